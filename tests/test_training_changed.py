"""A run goes on with what it began with, or says what changed (row R5)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_training import MINE, quick_fit

from datagen import storage
from datagen.errors import DatagenError, InputError


def repaint(path: Path) -> None:
    """Write other pixels into a file that keeps its length and its time of change."""
    before, pixels = path.stat(), np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(path, compress_level=0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def add(source: Path) -> None:
    Image.new("RGB", (16, 16), (9, 8, 7)).save(source / "class1" / "new.png")


def swap(source: Path) -> None:
    (source / "class0" / "000.png").rename(source / "keep")
    (source / "class1" / "000.png").rename(source / "class0" / "000.png")
    (source / "keep").rename(source / "class1" / "000.png")


CHANGES: dict[str, tuple[Callable[[Path], object], dict[str, object], int, str]] = {
    "other pixels, same length and time": (lambda source: repaint(source / "class0/003.png"), {}, 3, "the same counts, other pixels"),
    "labels swapped": (swap, {}, 3, "the same counts, other pixels"),
    "an image less": (lambda source: (source / "class0/000.png").unlink(), {}, 3, "class0: 15 images, now 14"),
    "an image more": (add, {}, 3, "class1: 15 images, now 16"),
    "a class less": (lambda source: shutil.rmtree(source / "class2"), {}, 3, "class2: 15 images, now 0"),
    "a class by another name": (lambda source: (source / "class2").rename(source / "other"), {}, 3, "class2: 15 images, now 0; other: 0 images, now 15"),
    "another setting": (lambda source: None, {"latent": 5}, 2, "latent: 4, now 5"),
    "another family": (lambda source: None, {"family": MINE}, 2, "family: cvae, now "),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, photos, and a fit of them that has not ended, run."""
    root, rng = tmp_path_factory.mktemp("begun"), np.random.default_rng(0)
    for i in range(45):
        path = root / "photos" / f"class{i // 15}" / f"{i % 15:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path, compress_level=0)
    quick_fit(root / "photos", root / "run", images=16)
    storage.remove(root / "run" / "generator" / "card.json")
    return root


@pytest.fixture
def place(begun: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(begun, tmp_path / "copy")


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_goes_on_with_what_it_began_with(place: Path, change: str) -> None:
    source, out = place / "photos", place / "run"
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name not in {"status.json", "scan.json", ".lock"}}
    work, settings, code, said = CHANGES[change]
    work(source)
    with pytest.raises(DatagenError) as caught:
        quick_fit(source, out, images=16, **settings)
    assert caught.value.code == code and said in caught.value.what
    assert {path: path.read_bytes() for path in kept} == kept


def test_at_most_five_differences_are_said(place: Path) -> None:
    for i in range(7):
        shutil.copytree(place / "photos/class0", place / f"photos/other{i}")
        for path in (place / f"photos/other{i}").iterdir():
            Image.fromarray(np.asarray(Image.open(path)) ^ np.uint8(i + 1)).save(path)
    with pytest.raises(InputError) as caught:
        quick_fit(place / "photos", place / "run", images=16)
    assert caught.value.what.count(", now ") == 5 and len(caught.value.line()) <= 300


def test_verify_data_trusts_no_file_that_looks_unchanged(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hides a change behind equal size, times and inode is believed until it is asked to be read anew."""
    from datagen.sources import look

    monkeypatch.setattr(look, "_stamp", lambda path: (1, 1, 1, 1))
    assert quick_fit(place / "photos", place / "run", images=16)["generator"]
    storage.remove(place / "run/generator/card.json")
    repaint(place / "photos/class0/003.png")
    assert quick_fit(place / "photos", place / "run", images=16)["generator"]
    storage.remove(place / "run/generator/card.json")
    with pytest.raises(InputError, match="other pixels"):
        quick_fit(place / "photos", place / "run", images=16, verify_data=True)
    assert "verify_data" not in json.loads((place / "run/recipe.json").read_text())["asked"]
