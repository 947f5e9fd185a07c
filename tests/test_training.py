"""Fit: batches, averages, checkpoints, plans, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from datagen import recipe, storage
from datagen.contracts import State
from datagen.errors import ArtefactError, DatagenError, InputError, OutputError, UsageError
from datagen.progress import Progress
from datagen.synthesis.run import synthesize
from datagen.training import checkpoint, loop, plan, run
from datagen.training.averaging import Average
from datagen.training.batches import Batches

Maker = Callable[..., Path]
SMALL = {"family": "cvae", "width": 4, "latent": 4, "batch": 8, "deterministic": True, "threads": 1, "checkpoint_every": 64}
MINE = str(Path(__file__).parent / "mine.py") + ":Mine"


def quick_fit(source: Path, out: Path, images: int = 160, **more: object) -> dict:
    """Fit a very small generator without a word."""
    return run.fit(source, out, progress=Progress(out, quiet=True), images=images, **(SMALL | more))


def tree(folder: Path, *names: str) -> dict[str, bytes]:
    """Return the bytes of the files below the named sub-folders."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for name in names for p in sorted((folder / name).rglob("*")) if p.is_file()}


def batches(counts: list[int], *, balanced: bool, seed: int = 0) -> Batches:
    """Return batches over made pixels whose value tells the row."""
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.zeros((len(labels), 2, 2, 1), np.uint8)
    return Batches(pixels, labels, np.arange(len(labels)), balanced=balanced, seed=seed)


@settings(max_examples=30)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_balanced_shows_classes_and_their_images_equally(counts: list[int], seed: int) -> None:
    source, passes = batches(counts, balanced=True, seed=seed), 3
    rounds = passes * max(counts)
    rows = source.chosen(0, rounds * len(counts))
    shown = np.bincount(source.labels[rows], minlength=len(counts))
    assert set(shown) == {rounds}
    each = np.bincount(rows, minlength=sum(counts))
    for label, count in enumerate(counts):
        of_class = each[source.labels == label]
        assert of_class.max() - of_class.min() <= 1, (count, of_class)


@settings(max_examples=30)
@given(size=st.integers(1, 40), start=st.integers(0, 100), count=st.integers(1, 60))
def test_batches_depend_on_the_place_alone(size: int, start: int, count: int) -> None:
    whole = batches([size], balanced=False).chosen(0, start + count)
    np.testing.assert_array_equal(batches([size], balanced=False).chosen(start, count), whole[start:])
    assert sorted(batches([size], balanced=False).chosen(0, size).tolist()) == list(range(size))


def test_images_are_scaled_to_one_and_keep_their_labels() -> None:
    pixels = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3) * 5
    source = Batches(pixels, np.array([0, 1, 0, 1]), np.array([1, 3]), balanced=False, seed=0)
    images, labels = source.images(np.array([3, 1]))
    assert labels.tolist() == [1, 1]
    torch.testing.assert_close(images, torch.from_numpy(pixels[[3, 1]].transpose(0, 3, 1, 2).astype(np.float32)) / 127.5 - 1)


def test_average_halves_after_its_half_life() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average = Average(net, half_life=100)
    nn.init.ones_(net.weight)
    for _ in range(10):
        average.update(10, images_seen=10**6)
    assert average.net.weight.item() == pytest.approx(0.5, abs=1e-6)


def test_schedule_rises_then_falls_to_nothing() -> None:
    assert loop.schedule("cosine", 0.0) < 0.1
    assert loop.schedule("cosine", 0.05) > 0.98
    assert loop.schedule("cosine", 1.0) == pytest.approx(0, abs=1e-9)
    assert loop.schedule("constant", 1.0) == 1.0


def test_a_run_holds_what_the_design_says(make_folder: Maker, tmp_path: Path) -> None:
    out = tmp_path / "run"
    made = quick_fit(make_folder(each=20), out)
    names = {p.name for p in out.iterdir()}
    assert {"recipe.json", "data.json", "scan.json", "checkpoints", "generator", "progress.jsonl", "samples", "tb", "status.json"} <= names
    card = json.loads((out / "generator" / "card.json").read_text())
    assert card["images_seen"] == made["images"] == 160
    assert card["classes"] == ["class0", "class1", "class2"]
    assert card["hashes"]["weights.safetensors"] == storage.hash_file(out / "generator" / "weights.safetensors")
    assert str(tmp_path) not in (out / "generator" / "card.json").read_text()
    stored = json.loads((out / "recipe.json").read_text())
    assert stored["totals"] == [160]
    assert stored["origins"]["width"] == "flag"
    assert stored["origins"]["half_life"] == "plan"
    data = json.loads((out / "data.json").read_text())
    assert sum(data["split"].values()) == 60
    assert Path(made["grid"]).is_file()


def test_the_same_command_again_does_nothing(make_folder: Maker, tmp_path: Path) -> None:
    source, out = make_folder(each=15), tmp_path / "run"
    quick_fit(source, out)
    before = tree(out, "generator", "checkpoints")
    assert quick_fit(source, out)["finished"]
    assert tree(out, "generator", "checkpoints") == before


def test_other_settings_for_a_run_are_refused(make_folder: Maker, tmp_path: Path) -> None:
    source, out = make_folder(each=15), tmp_path / "run"
    quick_fit(source, out)
    with pytest.raises(UsageError, match="batch: 8, now 16"):
        quick_fit(source, out, batch=16)
    with pytest.raises(UsageError, match="family: cvae, now gan"):
        quick_fit(source, out, family="gan")


@pytest.mark.parametrize("family", ["vae", "cvae", "dcgan", "gan"])
def test_a_stopped_fit_continues_bit_for_bit(make_folder: Maker, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_folder(each=15)
    quick_fit(source, tmp_path / "whole", family=family)

    class Killed(BaseException):
        """Stands for a kill: nothing of the product catches it."""

    left = [8, 72, 136]

    def one_step(job: loop.Job, index: int, images: int) -> None:
        if left and images == left[0]:
            raise Killed(left.pop(0))
        plain(job, index, images)

    plain = loop._one_step
    monkeypatch.setattr(loop, "_one_step", one_step)
    for _ in range(3):
        with pytest.raises(Killed):
            quick_fit(source, tmp_path / "broken", family=family)
    quick_fit(source, tmp_path / "broken", family=family)
    assert not left
    assert tree(tmp_path / "broken", "generator", "checkpoints") == tree(tmp_path / "whole", "generator", "checkpoints")


def test_stopping_saves_and_says_how_to_go_on(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    source, out = make_folder(each=15), tmp_path / "run"
    plain = loop._one_step

    def one_step(job: loop.Job, index: int, images: int) -> None:
        if images == 40:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(job, index, images)

    monkeypatch.setattr(loop, "_one_step", one_step)
    with pytest.raises(DatagenError, match="the same command continues") as stopped:
        quick_fit(source, out)
    assert stopped.value.code == 75
    assert [p.name for p in checkpoint.candidates(out / "checkpoints")] == ["000000000048"]
    monkeypatch.setattr(loop, "_one_step", plain)
    assert quick_fit(source, out)["images"] == 160


def test_changed_images_are_refused_on_continuation(make_folder: Maker, tmp_path: Path) -> None:
    source, out = make_folder(each=15), tmp_path / "run"
    quick_fit(source, out)
    storage.remove(out / "generator" / "card.json")
    (source / "class0" / "000.png").unlink()
    with pytest.raises(InputError, match="class0: 15 images, now 14"):
        quick_fit(source, out)


@pytest.mark.parametrize("place", ["file", "inside", "foreign", "same"])
def test_out_that_cannot_be_a_run_is_refused(make_folder: Maker, tmp_path: Path, place: str) -> None:
    source = make_folder(each=15)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    out = {"file": tmp_path / "file", "inside": source / "run", "foreign": foreign, "same": source}[place]
    with pytest.raises(OutputError):
        quick_fit(source, out)
    assert (foreign / "thesis.txt").read_text() == "mine"
    assert sorted(p.name for p in foreign.iterdir()) == ["thesis.txt"]
    assert sorted(p.name for p in source.iterdir()) == ["class0", "class1", "class2"]


def test_a_missing_source_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        quick_fit(tmp_path / "typo", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_said_and_passed_over(make_folder: Maker, tmp_path: Path) -> None:
    source, out = make_folder(each=15), tmp_path / "run"
    quick_fit(source, out)
    newest, older = checkpoint.candidates(out / "checkpoints")
    path = newest / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    rng, said = np.random.default_rng(0), []
    for place in rng.integers(0, len(raw), 20):
        raw[place] ^= 1
        path.write_bytes(raw)
        found = checkpoint.newest(out / "checkpoints", said.append)
        assert found is not None
        assert found[0]["total_images"] == int(older.name)
        raw[place] ^= 1
    assert len(said) == 20
    for cut in (0, 1, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:cut])
        with pytest.raises(ArtefactError):
            checkpoint.unpack(newest, "weights.safetensors", json.loads((newest / "card.json").read_text())["hashes"]["weights.safetensors"])


def poisoning(monkeypatch: pytest.MonkeyPatch, steps: Container[int]) -> list[int]:
    """Make images of some steps (counted from 0 over the whole fit) no numbers; returns the number of steps so far."""
    plain, count = loop.timing.step, [0]

    def poisoned(stage: Any, state: Any, images: torch.Tensor, *rest: Any, **more: Any) -> dict[str, torch.Tensor]:
        count[0] += 1
        return plain(stage, state, images * float("nan") if count[0] - 1 in steps else images, *rest, **more)

    monkeypatch.setattr(loop, "timing", SimpleNamespace(step=poisoned, arrange=loop.timing.arrange))
    return count


def weights_of(run: Path) -> bytes:
    return (run / "generator" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("family", ["cvae", "dcgan", "gan", "vae"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_step_that_is_no_number_changes_nothing(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, at: int) -> None:
    said: list[str] = []
    progress = Progress(tmp_path / "run", quiet=True)
    progress.warn = said.append  # type: ignore[method-assign]
    poisoning(monkeypatch, {at, at + 1})
    made = run.fit(make_folder(each=15), tmp_path / "run", progress=progress, images=160, **(SMALL | {"family": family}))
    assert made["generator"] and not [line for line in said if "checkpoint" in line], "two steps in a row are passed over"


def test_three_in_a_row_go_back_to_the_last_checkpoint(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    progress = Progress(tmp_path / "run", quiet=True)
    progress.warn = said.append  # type: ignore[method-assign]
    source = make_folder(each=15)
    poisoning(monkeypatch, range(5, 8))
    run.fit(source, tmp_path / "run", progress=progress, images=160, **(SMALL | {"checkpoint_every": 16}))
    assert len([line for line in said if "half the step size" in line]) == 1
    card = json.loads(next((tmp_path / "run" / "checkpoints").iterdir()).joinpath("card.json").read_text())
    assert card["rollbacks"] == 1
    monkeypatch.undo()
    quick_fit(source, tmp_path / "healthy")
    assert weights_of(tmp_path / "healthy") != weights_of(tmp_path / "run")
    assert "rollbacks" in json.loads(next((tmp_path / "healthy" / "checkpoints").iterdir()).joinpath("card.json").read_text())


def test_losses_that_stay_no_numbers_end_the_fit(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = poisoning(monkeypatch, range(1, 1000))
    with pytest.raises(DatagenError, match=r"no longer numbers after 24 images") as error:
        quick_fit(make_folder(each=15), tmp_path / "run", batch=8)
    assert error.value.code == 6 and count[0] < 20
    assert not list((tmp_path / "run").glob("checkpoints/*/card.json")), "nothing poisoned was kept"


def test_budget_plans_images_and_says_when_it_ends(make_folder: Maker, tmp_path: Path) -> None:
    lines: list[str] = []
    progress = Progress(tmp_path / "run")
    progress.say = lines.append  # type: ignore[method-assign]
    made = run.fit(make_folder(each=15), tmp_path / "run", progress=progress, budget=3, **(SMALL | {"deterministic": False}))
    assert any("until about" in line and "--budget 3 s" in line for line in lines)
    assert made["images"] == sum(json.loads((tmp_path / "run" / "recipe.json").read_text())["totals"])


def test_a_family_of_the_users_own_file_trains_and_synthesizes(make_folder: Maker, tmp_path: Path) -> None:
    source, out = make_folder(each=15), tmp_path / "run"
    quick_fit(source, out, family=MINE)
    assert quick_fit(source, out, family=MINE)["finished"]
    made = synthesize(out, tmp_path / "shards", recipe.gather(None, [], family=MINE, per_class=5, workers=1), progress=Progress(quiet=True))
    assert made["images"] == 15


def test_plan_prefers_what_the_user_said(tmp_path: Path) -> None:
    from datagen.generators.cvae import CVAE

    spec = plan.prepare(recipe.gather(None, [], width=7), CVAE(), (1, 28, 28), [10, 10])
    assert (spec.recipe.width, spec.recipe.origins["width"]) == (7, "flag")
    assert (spec.recipe.batch, spec.recipe.origins["batch"]) == (64, "plan")
    assert spec.recipe.colour == "grey"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(8, 200))
def test_a_short_walk_spares_small_classes(counts: list[int], most: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    shown = Batches(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, np.arange(len(labels)), balanced=True, seed=0)
    found = torch.bincount(torch.cat([some for _, some in shown.walk(7, most=most)]), minlength=len(counts)).tolist()
    assert sum(found) == min(most, len(labels))
    least = min((share for share, count in zip(found, counts, strict=True) if share < count), default=0)
    assert all(share == count or share <= least + 1 for share, count in zip(found, counts, strict=True))


def test_state_holds_only_what_is_sampled(tmp_path: Path) -> None:
    from datagen.generators.cvae import CVAE

    spec = plan.prepare(recipe.gather(None, [], width=4, latent=4), CVAE(), (1, 8, 8), [10, 10])
    family, state = CVAE(), State(spec)
    family.stages(spec)[0].build(state)
    job = loop.Job(family, family.stages(spec), [8], state, batches([2], balanced=False), tmp_path, "cpu", None)  # type: ignore[arg-type]
    assert set(job.sampled().modules) == {"decoder", "prior"}


@pytest.mark.parametrize("family", ["cvae", "vae"])
def test_a_grid_while_it_trains_has_a_prior_of_its_own(tmp_path: Path, family: str) -> None:
    from datagen import registry

    made = registry.load("families", family)()
    spec = plan.prepare(recipe.gather(None, [], family=family, width=4, latent=4, device="cpu"), made, (1, 8, 8), [60, 60])
    labels = np.repeat([0, 1], 60)
    pixels = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 1), dtype=np.uint8)
    state, shown = State(spec), Batches(pixels, labels, np.arange(120), balanced=True, seed=0)
    for stage in made.stages(spec):
        stage.build(state)
    job = loop.Job(made, made.stages(spec), [8], state, shown, tmp_path, "cpu", None)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in state.modules["prior"].state_dict().items()}
    seen = loop.previewed(job)
    assert set(seen.modules) == set(made.kept)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.modules["prior"].state_dict().items())
    assert not all(torch.equal(before[name], tensor) for name, tensor in seen.modules["prior"].state_dict().items())
    assert sum(len(rows) for _, rows in shown.walk(7, most=40)) == 40 and sum(len(rows) for _, rows in shown.walk(7)) == 120
