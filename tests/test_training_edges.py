"""Fit at its edges: second stages that go back, odd widths, classes that are rare, signals outside the training, devices that are not here."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_training import poisoning, quick_fit
from test_training_lost import BATCH, job
from torch import nn

from datagen import ranks, recipe
from datagen.cli import app
from datagen.contracts import Spec, Stage, State
from datagen.errors import ResourceError, Stopped
from datagen.generators.descent import adam, descend
from datagen.generators.prior import LocalGaussians
from datagen.generators.vae import VAE
from datagen.progress import Progress
from datagen.recogniser import timing as recogniser_timing
from datagen.recogniser.fit import Settings
from datagen.records import Recipe
from datagen.training import finish, health, loop, plan, selection
from datagen.training.run import stopping

Maker = Callable[..., Path]


def test_what_a_later_stage_is_timed_on_lies_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []

    class Recorded:
        """Stands for what a stage computes on the CPU in place of images."""

        def to(self, device: str) -> torch.Tensor:
            moved.append(device)
            return torch.zeros(64, 8)

    class Flowing(VAE):
        """vae, but its last stage asks where its inputs are brought."""

        def stages(self, spec: Spec) -> Sequence[Stage]:
            *first, last = super().stages(spec)
            return [*first, dataclasses.replace(last, inputs=lambda state, images: Recorded())]

    family = Flowing()
    wanted = recipe.gather(None, [], family="vae", prior="flow", width=8, latent=4, batch=8, images=64, device="cpu", threads=1)
    spec = plan.prepare(wanted, family, (1, 8, 8), [40, 40])
    plan.complete(spec, family, batches_of((1, 8, 8), 40), begun=0.0)
    assert moved == ["cpu"]


def batches_of(shape: tuple[int, int, int], each: int) -> Any:
    from datagen.training.batches import Batches

    labels = np.repeat([0, 1], each)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), *shape[1:], shape[0]), dtype=np.uint8)
    return Batches(pixels, labels, np.arange(len(labels)), balanced=True, seed=0)


def test_a_second_stage_that_diverges_at_once_goes_back_to_the_end_of_the_first(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    source = make_folder(each=15)
    quick_fit(source, tmp_path / "healthy", family="vae")
    totals = json.loads((tmp_path / "healthy/recipe.json").read_text())["totals"]
    assert len(totals) == 2
    progress = Progress(tmp_path / "run", quiet=True)
    progress.warn = said.append  # type: ignore[method-assign]
    first = totals[0] // 8
    poisoning(monkeypatch, range(first, first + 3))
    quick_fit(source, tmp_path / "run", family="vae", checkpoint_every=10_000)
    monkeypatch.undo()
    cards = [json.loads(path.read_text()) for path in (tmp_path / "run/checkpoints").glob("*/card.json")]
    assert max(card["rollbacks"] for card in cards) == 1


@pytest.mark.parametrize("width", [36, 44, 50, 100])
def test_any_width_will_do(width: int) -> None:
    family = VAE()
    spec = plan.prepare(recipe.gather(None, [], width=width, latent=4, device="cpu"), family, (3, 16, 16), [40, 40])
    state = State(spec)
    stage = family.stages(spec)[0]
    stage.build(state)
    assert "right" in stage.step(state, torch.zeros(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]), 0.5)


def test_a_step_computes_gradients_of_its_own_weights_alone() -> None:
    spec = plan.prepare(Recipe(family="gan", device="cpu"), VAE(), (1, 8, 8), [4, 4])
    mine, other = nn.Linear(3, 3), nn.Linear(3, 1)
    state = State(spec)
    optimizer = adam(mine.parameters(), state, step=0.1, betas=(0.0, 0.9))
    before = mine.weight.detach().clone()
    descend(optimizer, other(mine(torch.ones(2, 3))).sum())
    assert other.weight.grad is None and not torch.equal(before, mine.weight)


def test_in_bf16_a_second_net_sees_what_the_first_step_changed() -> None:
    spec = plan.prepare(Recipe(family="gan", device="cpu"), VAE(), (1, 8, 8), [4, 4])
    net = nn.Linear(4, 1)
    optimizer = adam(net.parameters(), State(spec), step=0.5, betas=(0.0, 0.9))
    with torch.autocast("cpu", torch.bfloat16):
        before = net(torch.ones(1, 4))
        descend(optimizer, before.float().sum())
        after = net(torch.ones(1, 4))
    assert not torch.equal(before.detach(), after.detach())


def test_a_gpu_counts_bad_steps_in_a_row_itself() -> None:
    """Losses come as they would from a GPU that nobody waits for; only the last report, about a second old, is looked at."""
    job = SimpleNamespace(device="cuda", bad=0, in_a_row=None, longest=None, watch=SimpleNamespace(last={}))
    good, bad = {"loss": torch.tensor(1.0)}, {"loss": torch.tensor(float("nan"))}
    for found in (good, bad, good, bad, bad, good):
        loop._note(job, found)  # type: ignore[arg-type]
    job.watch.last = {"loss": float("nan")}
    loop._note(job, good)  # type: ignore[arg-type]
    assert job.bad == 2 < loop.IN_A_ROW, "bad steps that lie apart are passed over"
    job.watch.last = {"loss": 1.0}
    for found in (bad, bad, bad, good):
        loop._note(job, found)  # type: ignore[arg-type]
    assert job.bad == 2, "nobody has asked yet"
    job.watch.last = {"loss": float("nan")}
    loop._note(job, good)  # type: ignore[arg-type]
    assert job.bad == loop.IN_A_ROW


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_outside_the_training_ends_at_once(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    source, plain = make_folder(each=15), finish.near.build

    def build(*given: Any) -> Any:
        os.kill(os.getpid(), number)
        return plain(*given)

    monkeypatch.setattr(finish.near, "build", build)
    with pytest.raises(Stopped, match="stopped by") as stopped:
        quick_fit(source, tmp_path / "run")
    assert stopped.value.code == code and not (tmp_path / "run/generator").exists()
    monkeypatch.undo()
    assert quick_fit(source, tmp_path / "run")["images"] == 160


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping() as stop:
        assert signal.getsignal(signal.SIGTERM) != before and not stop()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_rare_class_is_among_what_the_filter_learns() -> None:
    labels = np.repeat([0, 1, 2], [30_000, 9_990, 10])
    rows = np.random.default_rng(0).permutation(len(labels))
    real = SimpleNamespace(pixels=np.arange(len(labels))[:, None], dataset=SimpleNamespace(labels=labels))
    found = finish._part(real, rows, 2_000, 0)  # type: ignore[arg-type]
    counts = np.bincount(found.labels)
    assert counts.sum() == 2_000 and counts[2] == 10 and 1_300 < counts[0] < 1_650
    assert (labels[found.images[:, 0]] == found.labels).all() and len(np.unique(found.images)) == 2_000
    assert np.array_equal(finish._part(real, rows[:100], 2_000, 0).images[:, 0], rows[:100])  # type: ignore[arg-type]


def test_a_class_that_was_not_looked_at_is_not_judged() -> None:
    filter = SimpleNamespace(predict=lambda images: np.eye(3)[images[:, 0]], features=lambda images: images.astype(float))
    train = selection.Part(np.array([[0], [0], [2], [2]]), np.array([0, 0, 2, 2]))
    found = health.look(filter, train, lambda labels, places, spread: labels[:, None], classes=3, spread=1.0)  # type: ignore[arg-type]
    assert [each.label for each in found] == [0, 2] and all(each.heeded == 1 for each in found)


def test_threads_that_are_given_again_count(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, plain = make_folder(each=15), loop._one_step

    def one_step(job: loop.Job, index: int, images: int) -> None:
        if images == 40:
            raise KeyboardInterrupt
        plain(job, index, images)

    monkeypatch.setattr(loop, "_one_step", one_step)
    with pytest.raises(KeyboardInterrupt):
        quick_fit(source, tmp_path / "run")
    monkeypatch.undo()
    quick_fit(source, tmp_path / "run", threads=2)
    assert torch.get_num_threads() == 2
    lines = [json.loads(line) for line in (tmp_path / "run/progress.jsonl").read_text().splitlines()]
    assert [(line["device"], line["threads"]) for line in lines if line["stage"] == "continued"] == [("cpu", 2)]
    assert (tmp_path / "run/run.html").is_file()


def test_what_runs_out_of_memory_is_no_fault_of_datagen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.tempfile, "gettempdir", lambda: str(tmp_path))
    progress = Progress(quiet=True)
    for error in (MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")):
        found = app._known(error, progress)
        assert isinstance(found, ResourceError) and found.code == 6 and "--batch" in found.hint
    assert "a fault of datagen" in app._known(RuntimeError("something else"), progress).what


def test_numbers_below_double_precision_still_name_a_place() -> None:
    """Where a device has no double precision, the largest single number below 1 must not lead past the last Gaussian of a class."""
    share = torch.special.ndtr(torch.tensor([40.0])).clamp(0, 1 - 6e-8)
    assert share.dtype == torch.float32 and (share * 4096).long().item() == 4095
    prior = LocalGaussians((40, 40), 4)
    noise = torch.full((2, VAE().noise(Spec(2, (1, 8, 8), (40, 40), Recipe(latent=4, prior="local")))), 40.0)
    assert torch.isfinite(prior(torch.tensor([0, 1]), noise)).all()


def test_with_several_processes_one_error_is_said_once(tmp_path: Path) -> None:
    """The first one refuses the folder; the other, which waits for it, is no fault of datagen."""
    (tmp_path / "photos/a").mkdir(parents=True)
    (tmp_path / "photos/a/1.png").write_bytes(b"no image")
    given = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--log-dir",
        str(tmp_path / "logs"),
        "-m",
        "datagen",
        "fit",
        str(tmp_path / "photos"),
        "--out",
        str(tmp_path / "run"),
    ]
    found = subprocess.run(given, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert found.returncode and "a fault of datagen" not in found.stderr
    assert found.stderr.count("error: ") >= 1 and "1.png" in found.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ResourceError, match="process 3 of this machine has no GPU, there are 2"), ranks.group("cuda"):
        pass


def careful(state: State, images: torch.Tensor, labels: torch.Tensor, done: float) -> dict[str, torch.Tensor]:
    """Step as the built-in families do."""
    return {"squares": descend(state.optimizers["painter"], (state.modules["painter"](labels) - images.flatten(1)).square().mean())}


def test_a_bad_step_on_a_gpu_does_not_stop_what_follows(tmp_path: Path) -> None:
    """A job that believes its nets to be on a GPU: nobody waits for the losses, averages go on, and the report after the next is of numbers again."""
    made = job(tmp_path)
    made.stages = [dataclasses.replace(made.stages[0], step=careful)]
    loop.build(made, 0)
    loop._prepare(made, made.stages[0])
    plain, poisoned = made.batches.images, {2}

    def images(rows: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, labels = plain(rows)
        return pictures * (float("nan") if made.step in poisoned else 1.0), labels  # type: ignore[attr-defined]

    made.batches.images, made.device = images, "cuda"  # type: ignore[method-assign]
    for step in range(8):
        made.step = step  # type: ignore[attr-defined]
        before = [tensor.clone() for average in made.averages.values() for tensor in average.target]
        loop._one_step(made, 0, step * BATCH)
        made.watch._report("mine", step)
        after = [tensor for average in made.averages.values() for tensor in average.target]
        assert step in poisoned or not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(torch.isfinite(tensor).all() for tensor in after)
        assert not loop._agreed(made, step, 0)
    assert all(np.isfinite(value) for value in made.watch.last.values()) and int(made.longest) == 1


def test_an_optimiser_passes_over_a_step_that_it_is_told_to() -> None:
    weights = [torch.ones(3, requires_grad=True)]
    optimizer = torch.optim.AdamW(weights, lr=0.1, fused=True)
    weights[0].grad = torch.full((3,), float("nan"))
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()
    assert weights[0].tolist() == [1, 1, 1]
    weights[0].grad, optimizer.found_inf = torch.ones(3), torch.zeros(())  # type: ignore[attr-defined]
    optimizer.step()
    assert (weights[0] < 1).all()


def test_images_that_stay_on_a_gpu_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = batches_of((3, 6, 6), 5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 1 << 30))
    pixels, labels = shown._on("cpu")
    rows = shown.chosen(3, 8)
    assert torch.equal(pixels[torch.from_numpy(shown.place[rows])].float().div(127.5).sub(1), shown.images(rows)[0])
    assert torch.equal(labels[torch.from_numpy(rows)], shown.images(rows)[1])
    small = batches_of((3, 6, 6), 5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 1000))
    assert small._on("cpu") is None


def test_less_is_kept_back_where_choosing_takes_less() -> None:
    fast = recogniser_timing.Timed(Settings(), 1, 50_000.0, {})
    wanted = recipe.gather(None, [], device="cpu", budget="10m")
    assert plan._kept_back(wanted, fast, 20_000.0) == plan.SELECTION
    gpu = wanted.changed("test", device="cuda")
    assert 0.02 < plan._kept_back(gpu, fast, 20_000.0) < 0.1
    assert plan._kept_back(gpu, None, 20_000.0) == plan.SELECTION
