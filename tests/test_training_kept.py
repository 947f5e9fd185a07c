"""What a fit keeps: moments in the layout of their weights, checkpoints, curves without lost stretches, a page that ends, torch as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import quick_fit
from test_training_lost import BATCH, EVERY, job, weights

from datagen import machine, storage
from datagen.contracts import Spec, State
from datagen.errors import UsageError
from datagen.generators.descent import adam, descend
from datagen.progress import Progress
from datagen.recogniser import near
from datagen.recogniser.fit import _statistics
from datagen.records import Recipe
from datagen.training import checkpoint, loop, plan, story, timing
from datagen.training.watch import Watch

Make = Callable[..., Path]


def stepping(layout: str) -> State:
    """Return a state with a convolution whose moments have a layout, and its optimiser."""
    torch.manual_seed(0)
    state = State(Spec(2, (3, 8, 8), (4, 4), Recipe(device="cpu", learning_rate=0.01)))
    state.modules["net"] = torch.nn.Conv2d(3, 8, 3)
    timing.arrange(state, layout)
    state.optimizers["net"] = adam(state.modules["net"].parameters(), state, betas=(0.9, 0.99))
    return state


def step(state: State, seed: int) -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    descend(state.optimizers["net"], state.modules["net"](images).square().mean())


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_a_continued_fit_takes_the_steps_of_one_that_never_stopped(tmp_path: Path, layout: str) -> None:
    whole, first = stepping(layout), stepping(layout)
    for seed in range(3):
        step(whole, seed)
        step(first, seed)
    checkpoint.save(tmp_path, first, {}, stage=0, images=12, total_images=12)
    second = stepping(layout)
    found = checkpoint.newest(tmp_path, pytest.fail)
    assert found is not None
    checkpoint.load_nets(found[1], "net/", second.modules)
    checkpoint.load_optimizers(found[2], second)
    for weight, kept in second.optimizers["net"].state.items():
        assert all(value.stride() == weight.stride() for value in kept.values() if value.shape == weight.shape)
    for seed in range(3, 6):
        step(whole, seed)
        step(second, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.modules["net"].parameters(), second.modules["net"].parameters(), strict=True))


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_a_stopped_fit_with_channels_last_ends_like_a_whole_one(make_folder: Make, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(each=12, size=(16, 16))
    asked: dict[str, Any] = {"images": 256, "family": family, "batch": 16, "layout": "channels-last", "precision": "fp32", "width": 8, "deterministic": False}
    quick_fit(folder, tmp_path / "whole", **asked)
    one_step, count = loop._one_step, [0]

    def stopping(*given: Any) -> None:
        one_step(*given)
        count[0] += 1
        if count[0] == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(plan, "_every", lambda seconds, rate, batch: 4 * batch)
    monkeypatch.setattr(loop, "_one_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        quick_fit(folder, tmp_path / "parts", **asked)
    monkeypatch.setattr(loop, "_one_step", one_step)
    assert checkpoint.candidates(tmp_path / "parts/checkpoints")
    quick_fit(folder, tmp_path / "parts", **asked)
    whole, parts = ((tmp_path / name / "generator/weights.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_the_last_checkpoint_is_never_deleted_to_be_written_again(tmp_path: Path) -> None:
    loop.train(job(tmp_path))
    (newest, *_) = checkpoint.candidates(tmp_path / "checkpoints")
    operations: list[str] = []
    storage.hook = lambda operation, path: operations.append(path)
    again = job(tmp_path)
    loop.train(again)
    storage.hook = None
    assert not [path for path in operations if "checkpoints" in path] and checkpoint.candidates(tmp_path / "checkpoints")[0] == newest
    fresh = job(tmp_path / "fresh")
    loop.train(fresh)
    assert weights(again) == weights(fresh)


def test_half_a_checkpoint_counts_for_none(tmp_path: Path) -> None:
    loop.train(job(tmp_path, steps=2 * EVERY))
    folder = tmp_path / "checkpoints"
    assert [path.name for path in checkpoint.candidates(folder)] == [f"{n * BATCH * EVERY:012d}" for n in (2, 1)]
    half = folder / f"{BATCH * (2 * EVERY + 1):012d}"
    half.mkdir()
    (half / checkpoint.WEIGHTS).write_bytes(b"half")
    loop.train(job(tmp_path, steps=3 * EVERY))
    assert [path.name for path in checkpoint.candidates(folder)] == [f"{n * BATCH * EVERY:012d}" for n in (3, 2)] and not half.exists()


def test_curves_have_no_lost_stretches() -> None:
    lines = [
        {"images": n, "synthetic": n / 1000, "stage": "means", "images_per_second": 1.0, "losses": {"a": float(n)}} for n in (100, 200, 300, 150, 250, 350)
    ]
    assert [line["images"] for line in story._kept(lines)] == [100, 150, 250, 350]
    (only,) = story._stages(lines, {})
    assert only["curves"][0]["now"] == story.named(350.0)


def test_a_picture_of_yours_among_the_samples_is_passed_over(tmp_path: Path) -> None:
    for name in ("000000000064.png", "000000000064 (copy).png", "._x.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert [grid["images"] for grid in story._grids(tmp_path)] == [64]


def test_a_loss_that_is_no_number_is_null_and_forgotten_after_going_back(tmp_path: Path) -> None:
    watch = Watch(tmp_path, Progress(quiet=True), ("a",))
    watch._board = False
    watch.step("means", {"loss": torch.tensor(float("nan"))}, 8, 8)
    watch.end("means", 8)
    assert json.loads((tmp_path / "progress.jsonl").read_text(), parse_constant=pytest.fail)["losses"] == {"loss": None} and np.isnan(watch.last["loss"])
    watch.step("means", {"loss": torch.tensor(float("nan"))}, 8, 16)
    watch.forget()
    watch.step("means", {"loss": torch.tensor(1.0)}, 8, 16)
    watch.end("means", 16)
    assert watch.last == {"loss": 1.0}


def test_a_page_that_was_killed_before_its_end_ends(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder(each=12)
    quick_fit(folder, tmp_path / "run", images=64)
    page = tmp_path / "run/run.html"
    whole = page.read_bytes()
    assert b"refresh" not in whole
    page.write_bytes(whole.replace(b"<head>", b'<head><meta http-equiv="refresh" content="15">'))
    assert quick_fit(folder, tmp_path / "run", images=64)["finished"] and page.read_bytes() == whole


def test_a_fit_leaves_torch_as_it_was(make_folder: Make, tmp_path: Path) -> None:
    quick_fit(make_folder(each=12), tmp_path / "run", images=64, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(UsageError, match="no deterministic steps"):
        machine.device("mps", deterministic=True)


def test_what_is_said_by_the_clock_is_not_stored(make_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick_fit(make_folder(each=12), tmp_path / "run", images=64)
    told = json.loads((tmp_path / "run/recipe.json").read_text())["sentences"]
    assert told and not any("until" in sentence for sentence in told)


def test_unseen_images_that_repeat_training_images_do_not_blind_the_reference() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.6, 1.4, 30)
    clean = near._limit(scores)
    assert near._limit(np.append(scores, [1e-7, 3e-5, 0.02])) == pytest.approx(clean, rel=0.05) and clean > 0.2
    many = np.concatenate([rng.uniform(0.6, 1.4, 2000), np.full(10, 1e-6)])
    assert near._limit(many) > 0.5 and near._limit(np.zeros(0)) == 0.0


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation_are_those_of_all_pixels(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sets = [rng.integers(0, 256, (n, 9, 7, channels), dtype=np.uint8) // scale for n, scale in ((40, 1), (11, 3))]
    monkeypatch.setattr("datagen.recogniser.fit.COUNTED", 500)
    mean, deviation = _statistics([(images, np.zeros(len(images), np.int64)) for images in sets])
    means = np.mean([images.mean((0, 1, 2)) for images in sets], axis=0)
    squares = np.mean([(images.astype(np.float64) ** 2).mean((0, 1, 2)) for images in sets], axis=0)
    assert np.allclose(mean.numpy(), means, rtol=1e-6) and np.allclose(deviation.numpy(), np.sqrt(squares - means**2), rtol=1e-6)


def test_a_rate_of_several_processes_is_that_of_all() -> None:
    one = timing.Timed("fp32", "contiguous", 1, 100.0, {"x": 100.0})
    assert (one.together(8).rate, one.together(8).rates, one.together(1)) == (800.0, {"x": 800.0}, one)


@pytest.mark.parametrize("device, local, times", [("cuda", "8", 16), ("cpu", "8", 2), ("cpu", "16", 1), ("cpu", "1", 16)])
def test_processes_of_one_machine_share_its_processors(monkeypatch: pytest.MonkeyPatch, device: str, local: str, times: int) -> None:
    from datagen import ranks

    assert ranks.abreast(device) == 1
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    assert ranks.abreast(device) == times
