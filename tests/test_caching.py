"""What is kept to save time leaves the cache folder when nobody uses it any more, and nothing else does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import synthetic
from test_sources_scan import plant

import datagen
from datagen import caching, storage
from datagen.errors import OutputError
from datagen.records import Recipe
from datagen.sources.cache import pixels
from datagen.sources.scan import scan

R = Recipe()
NEW, OLD, HALF, SINGLE, PACK, READ, MARKED = (caching.entry("things", number).name for number in range(7))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "own cache"))
    return tmp_path / "own cache"


def kept(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"1")
    return path


def aged(path: Path, days: float) -> None:
    """Make a file, or a folder and all in it, as if last used so long ago."""
    when = time.time() - 86400 * days
    for each in [*path.rglob("*"), path]:
        os.utime(each, (when, when))


def test_entries_leave_after_a_month_without_use(folder: Path) -> None:
    kind = folder / "things"
    files = {NEW + ".u8": 1, OLD + ".u8": 31, OLD + ".json": 40, HALF + ".u8": 31, HALF + ".json": 29, ".tmp-x": 99, SINGLE + "01234567.bin": 31}
    for name, days in files.items():
        aged(kept(kind / name), days)
    for name in (PACK, READ, MARKED):
        kept(kind / name / "images.bin")
        aged(kind / name, 31)
    os.utime(kind / READ / "images.bin", (time.time(), 0))
    storage.used(kind / MARKED)
    assert caching.forget("things") == 3
    assert {path.name for path in kind.iterdir()} == {NEW + ".u8", HALF + ".u8", HALF + ".json", ".tmp-x", READ, MARKED}
    assert caching.forget("things") == caching.forget("nothing there") == 0


@pytest.mark.parametrize("name", ["cats", "cats.tar", "2024", "f" * 31, "F" * 32, "e" * 33, "a" * 64])
def test_what_somebody_else_put_there_stays(folder: Path, name: str) -> None:
    """DATAGEN_CACHE may be a folder whose `shards/` is somebody's own."""
    aged(kept(folder / "shards" / name), 999)
    aged(kept(folder / "shards" / f"my {name}" / "1.png").parent, 999)
    assert caching.forget("shards") == 0
    assert len([path for path in (folder / "shards").rglob("*") if path.is_file()]) == 2


def test_what_cannot_be_deleted_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (OLD, NEW):
        aged(kept(folder / "things" / f"{name}.u8"), 31)

    def refused(path: Path) -> None:
        if path.stem == OLD:
            raise OutputError("cannot be deleted", where=path)
        path.unlink()

    monkeypatch.setattr(storage, "remove", refused)
    assert caching.forget("things") == 1 and (folder / "things" / f"{OLD}.u8").exists()


def test_pixels_and_scans_nobody_uses_make_room_for_new_ones(folder: Path, tmp_path: Path) -> None:
    first, second, third = (scan(plant(tmp_path / name, {"a": 4, "b": 4}, first=number), R) for number, name in enumerate("pqr"))
    for found in (first, second):
        pixels(found, (3, 8, 8), R)
    for kind in ("pixels", "scans"):
        for path in (folder / kind).iterdir():
            aged(path, 31)
    assert pixels(second, (3, 8, 8), R).shape == (8, 8, 8, 3), "using it again marks it"
    scan(tmp_path / "q", R)
    assert [len(list((folder / "pixels").glob("*"))), len(list((folder / "scans").glob("*")))] == [4, 3]
    pixels(third, (3, 8, 8), R)
    scan(plant(tmp_path / "s", {"a": 4, "b": 4}), R)
    assert [len(list((folder / "pixels").glob("*"))), len(list((folder / "scans").glob("*")))] == [4, 2]
    assert pixels(first, (3, 8, 8), R).shape == (8, 8, 8, 3), "what has left is made anew"


def test_unpacked_shards_nobody_uses_leave(folder: Path, tmp_path: Path) -> None:
    rule = synthetic.rule(tmp_path)
    for number, name in enumerate("xyz"):
        datagen.synthesize(rule, tmp_path / name, workers=1, per_class=4, seed=number)
    for name in "xy":
        datagen.ShardDataset(tmp_path / name)
    packs = folder / "shards"
    for path in packs.iterdir():
        aged(path, 31)
    datagen.ShardDataset(tmp_path / "y")
    datagen.ShardDataset(tmp_path / "z")
    assert len(list(packs.iterdir())) == 2
    assert len(datagen.ShardDataset(tmp_path / "x")) == 4 * 5
