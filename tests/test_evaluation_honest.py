"""What a sceptical reviewer tries: real against real, planted copies, a planted shortcut, the same seeds twice, features of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_evaluation import _no_timing, call, folders, timeless

from datagen import seeds
from datagen.evaluation import arms, experiment, focus, statistics
from datagen.evaluation.arms import Labelled, Trial
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures.copies import Copies
from datagen.evaluation.plan import Plan
from datagen.recogniser.fit import Settings

__all__ = ["_no_timing", "folders"]
Make = Callable[..., Path]


def digits() -> Labelled:
    """Return scikit-learn's 1,797 handwritten digits, uint8 [N, 8, 8, 1]."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return Labelled(np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8), labels.astype(np.int64))


def thirds(draw: int) -> dict[str, Labelled]:
    """Return the digits as test (half of them) and two equal, disjoint halves of the rest, one of which plays the synthetic images."""
    whole, order = digits(), seeds.stream("thirds", draw).permutation(1797)
    rows = {"test": order[:897], "real": order[897:1347], "synthetic": order[1347:]}
    return {name: whole.taken(np.sort(found)) for name, found in rows.items()}


@pytest.mark.slow
def test_real_against_real_is_rarely_called_a_difference() -> None:
    called = 0
    for draw in range(20):
        trial = Trial(thirds(draw), tuple("0123456789"), Settings(steps=90, batch=64, width=12), draw)
        listed = [arms.real(), arms.with_synthetic("", trial.parts, "synthetic", trial.parts["real"])[0]]
        correct = [np.stack([arms.run(trial, arm, repeat).correct for repeat in range(3)]) for arm in listed]
        assert min(found.mean() for found in correct) > 0.9
        found = statistics.interval(correct[1].astype(float) - correct[0], seed=draw)
        called += found.low > 0 or found.high < 0
    assert called <= 3


def context(parts: dict[str, Labelled]) -> Context:
    """Return what measures look at, with features of a recogniser trained for a moment."""
    trial = Trial(parts, tuple("0123456789"), Settings(steps=60, batch=64, width=8), 0)
    encoder = arms.judge(trial)
    return Context(trial.classes, parts["real"], parts["synthetic"], parts["test"], (), {"recogniser": encoder.features}, encoder.predict)


def test_noisy_copies_are_listed_and_real_images_are_not() -> None:
    parts, rng = thirds(0), np.random.default_rng(0)
    made, real = parts["synthetic"], parts["real"]
    clean = next(iter(Copies().measure(context(parts)))).details
    assert clean["named"] <= 1, "the other half of the real images are no copies"
    planted = rng.choice(len(made), len(made) // 20, replace=False)
    images = made.images.copy()
    sources = rng.integers(0, len(real), len(planted))
    images[planted] = np.clip(real.images[sources] + rng.normal(0, 8, (len(planted), 8, 8, 1)), 0, 255).round().astype(np.uint8)
    found = next(iter(Copies().measure(context({**parts, "synthetic": dataclasses.replace(made, images=images)})))).details
    listed = {pair["synthetic"]["row"]: pair["real"]["row"] for pair in found["copies"]}
    right = sum(listed.get(int(row)) == int(source) for row, source in zip(planted, sources, strict=True))
    assert right >= 0.95 * len(planted)
    assert len(set(listed) - {int(row) for row in planted}) <= 1


def textured(count: int, label: int, rng: np.random.Generator) -> np.ndarray:
    """Return images [count, 12, 12, 1] of one class: a quarter a little brighter, under noise that blur takes away."""
    images = rng.integers(0, 160, (count, 12, 12, 1))
    row, column = divmod(label, 2)
    images[:, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 45
    return images.astype(np.uint8)


@pytest.mark.parametrize("planted", [True, False])
def test_a_blurred_top_up_is_a_shortcut_and_a_sharp_one_is_none(planted: bool) -> None:
    rng = np.random.default_rng(0)
    sizes = {"real": (80, 80, 80, 12), "test": (60, 60, 60, 60)}
    parts = {name: Labelled(np.concatenate([textured(n, c, rng) for c, n in enumerate(each)]), np.repeat(np.arange(4), each)) for name, each in sizes.items()}
    top_up = textured(120, 3, rng)
    parts["synthetic"] = Labelled(focus.blurred(top_up) if planted else top_up, np.full(120, 3))
    trial = Trial(parts, ("a", "b", "c", "rare"), Settings(steps=80, batch=32, width=8, augment="none"), 0, focus=3)
    found = experiment.conduct(trial, Plan(trial.settings, 3, 1, 1000.0, {}))[""]
    assert "synthetic" not in found.names()
    measured = {finding.measure: finding for finding in experiment.measure(found, ["rare"])}
    assert measured["focus shortcut"].details["suspected"] is planted
    assert set(measured["focus recall"].details["arms"]) == {"real", "classical", "both"}


def test_the_same_seeds_twice_agree_exactly(folders: dict[str, Path], tmp_path: Path) -> None:
    first, second = (call(folders, tmp_path / name, deterministic=True, quick=False, repeats=2, steps=8) for name in "ab")
    assert timeless(first) == timeless(second)
    other = call(folders, tmp_path / "c", deterministic=True, quick=False, repeats=2, steps=8, seed=1)
    assert timeless(other)["arms"] != timeless(first)["arms"]


def test_features_of_your_own(folders: dict[str, Path], tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text("def thumbnails(images):\n    return images[:, ::3, ::3].reshape(len(images), -1).astype('float32')\n")
    found = call(folders, tmp_path / "r", features=f"{code}:thumbnails", repeats=1)
    assert {"fidelity_kernel_given", "fidelity_kernel_random", "fidelity_kernel_recogniser"} <= set(found["measures"])


def test_a_shared_report_has_no_training_image(folders: dict[str, Path], tmp_path: Path) -> None:
    import base64
    import io
    import re

    twin = folders["synthetic"] / "class0" / "000.png"
    twin.write_bytes((folders["real"] / "class0" / "003.png").read_bytes())
    call(folders, tmp_path / "r", share=True, repeats=1)
    page = (tmp_path / "r/report.html").read_text()
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(raw))).convert("L")) for raw in re.findall(r"data:image/png;base64,([\w+/=]+)", page)]
    assert pictures, "synthetic images are shown"
    shown = {window.tobytes() for picture in pictures for window in windows(picture)}
    real = [np.asarray(Image.open(path)) for part in ("real", "test") for path in folders[part].rglob("*.png")]
    assert not any(image.tobytes() in shown for image in real)
    call(folders, tmp_path / "own", repeats=1)
    own = re.findall(r"data:image/png;base64,([\w+/=]+)", (tmp_path / "own/report.html").read_text())
    seen: Any = {w.tobytes() for raw in own for w in windows(np.asarray(Image.open(io.BytesIO(base64.b64decode(raw))).convert("L")))}
    assert any(image.tobytes() in seen for image in real), "the search finds them where they are"


def windows(picture: np.ndarray, side: int = 12) -> list[np.ndarray]:
    """Return every window of a picture as large as an image."""
    if min(picture.shape) < side:
        return []
    found = np.lib.stride_tricks.sliding_window_view(picture, (side, side)).reshape(-1, side, side)
    return [np.ascontiguousarray(window) for window in found]
