"""Classically augmented copies: shapes, labels, order, determinism, and what each policy may and may not change."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import ResourceError, UsageError
from datagen.evaluation import classical
from datagen.evaluation.classical import POLICIES, copies

CHANGING = sorted(set(POLICIES) - {"none"})


def slopes(count: int, size: tuple[int, int] = (24, 20), channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images that grow brighter from left to right, each of another shade, of three classes of unequal size."""
    ramp = np.linspace(20, 200, size[1])[None, None, :, None] + np.linspace(0, 40, count)[:, None, None, None]
    tint = np.array([1.0, 0.8, 0.6])[:channels]
    images = np.broadcast_to(ramp * tint, (count, *size, channels)).astype(np.uint8)
    return images, np.sort(np.arange(count) % 6 // 2 * (np.arange(count) % 5 > 0)).astype(np.int64)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [(8, 8), (28, 33), (256, 256)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_types(policy: str, size: tuple[int, int], channels: int) -> None:
    images, labels = slopes(4, size, channels)
    made, marks = copies(images, labels, policy=policy, count=6, seed=0)
    assert (made.shape, made.dtype, marks.shape, marks.dtype) == ((6, *size, channels), np.uint8, (6,), np.int64)


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_seeds_give_equal_copies_whatever_the_count(policy: str) -> None:
    images, labels = slopes(7)
    first, marks = copies(images, labels, policy=policy, count=20, seed=3)
    again, others = (copies(images, labels, policy=policy, count=11, seed=seed) for seed in (3, 4))
    assert np.array_equal(first[:11], again[0]) and np.array_equal(marks[:11], again[1])
    assert not np.array_equal(first[:11], others[0])


def test_none_repeats_the_images_exactly_each_with_its_label() -> None:
    images, labels = slopes(10)
    made, marks = copies(images, labels, policy="none", count=30, seed=1)
    known = {image.tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    assert len(known) == 10
    assert [known[image.tobytes()] for image in made] == marks.tolist()
    for start in (0, 10, 20):
        assert {image.tobytes() for image in made[start : start + 10]} == set(known)


@settings(max_examples=40)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=40), seed=st.integers(0, 99), cut=st.integers(1, 40))
def test_every_stretch_has_the_classes_in_proportion(labels: list[int], seed: int, cut: int) -> None:
    each = np.array(labels, np.int64)
    images = np.arange(len(each), dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    made, marks = copies(images, each, policy="none", count=min(cut, len(each)), seed=seed)
    assert np.array_equal(marks, each[made[:, 0, 0, 0]])
    for label in set(labels):
        assert abs((marks == label).sum() - labels.count(label) * len(marks) / len(labels)) < len(set(labels))


@pytest.mark.parametrize("policy", CHANGING)
def test_every_policy_changes_images_and_each_of_its_own(policy: str) -> None:
    images, labels = slopes(1)
    made, _ = copies(images, labels, policy=policy, count=12, seed=0)
    assert len({image.tobytes() for image in made}) > 8


@pytest.mark.parametrize("policy", CHANGING)
def test_flips_alone_mirror(policy: str) -> None:
    images, labels = slopes(5)
    made, _ = copies(images, labels, policy=policy, count=40, seed=0)
    middle = made[:, 6:-6].astype(float)
    mirrored = (middle[:, :, :6].mean((1, 2, 3)) > middle[:, :, -6:].mean((1, 2, 3))).sum()
    assert 8 <= mirrored <= 32 if policy == "flips" else mirrored == 0


@pytest.mark.parametrize("policy", CHANGING)
def test_what_is_grey_stays_grey(policy: str) -> None:
    images, labels = slopes(6, channels=1)
    one, _ = copies(images, labels, policy=policy, count=12, seed=0)
    three, _ = copies(images.repeat(3, axis=3), labels, policy=policy, count=12, seed=0)
    assert (three == three[..., :1]).all()
    assert np.array_equal(three[..., :1], one)


def test_colour_keeps_every_pixel_in_place_and_geometry_keeps_the_colours() -> None:
    images = np.full((2, 16, 16, 3), (200, 100, 50), np.uint8)
    images[:, 8:] = (20, 60, 120)
    made, _ = copies(images, np.zeros(2, np.int64), policy="colour", count=20, seed=0)
    assert (made[:, :8] == made[:, :1, :1]).all() and (made[:, 8:] == made[:, -1:, -1:]).all()
    assert len(np.unique(made[:, 0, 0], axis=0)) > 10
    turned, _ = copies(images, np.zeros(2, np.int64), policy="geometric", count=20, seed=0)
    assert (turned[:, 0, 0] == (200, 100, 50)).all() and (turned[:, -1, -1] == (20, 60, 120)).all(), "edges are repeated, never black"


def test_nothing_to_make_and_nothing_to_make_it_of() -> None:
    images, labels = slopes(3)
    assert copies(images, labels, policy="flips", count=0, seed=0)[0].shape == (0, 24, 20, 3)
    for wrong in ((images[:0], labels[:0]), (images, labels[:2]), (images.astype(float), labels)):
        with pytest.raises(ValueError, match="uint8"):
            copies(*wrong, policy="none", count=1, seed=0)
    with pytest.raises(UsageError, match="did you mean 'geometric'") as caught:
        copies(images, labels, policy="geometrik", count=1, seed=0)
    assert caught.value.code == 2


@pytest.mark.parametrize("before", [None, pytest.param("0", marks=pytest.mark.slow)])
def test_the_import_asks_no_server_and_leaves_the_environment(before: str | None) -> None:
    code = """
import os, socket, sys
asked = []
def refuse(*given, **more):
    asked.append(given)
    raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from datagen.evaluation import classical
assert "albumentations" not in sys.modules
classical.copies(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int64), policy="flips", count=2, seed=0)
print(os.environ.get("NO_ALBUMENTATIONS_UPDATE"), "albumentations" in sys.modules, len(asked))
"""
    variables = {k: v for k, v in os.environ.items() if k != classical.QUIET} | ({classical.QUIET: before} if before else {})
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=variables, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{before} True 0\n", "")


def test_other_peoples_warnings_are_silent_and_ours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(a: Any, channels: int) -> list[Any]:
        warnings.warn("from inside", UserWarning, stacklevel=1)
        return []

    monkeypatch.setattr(classical, "POLICIES", {"noisy": noisy})
    images, labels = slopes(2)
    copies(images, labels, policy="noisy", count=1, seed=0)
    with pytest.raises(UserWarning):
        noisy(None, 1)


def test_without_albumentations_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("albumentations"):
            raise ImportError("No module named 'albumentations'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    images, labels = slopes(2)
    assert len(copies(images, labels, policy="none", count=2, seed=0)[0]) == 2
    with pytest.raises(ResourceError, match="pip install albumentations") as caught:
        copies(images, labels, policy="colour", count=1, seed=0)
    assert caught.value.code == 6
