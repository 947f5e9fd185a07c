"""The pixel cache: right rows, made once, damage found (F7 and beyond), nothing of the input changed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_sources_look import count_decodes
from test_sources_scan import parquet_of, plant, save

from datagen import caching, storage
from datagen.errors import InputError, OutputError
from datagen.progress import Progress
from datagen.records import Dataset, Recipe
from datagen.sources import cache, origin
from datagen.sources.cache import pixels
from datagen.sources.decode import decode, to_shape
from datagen.sources.scan import scan

SHAPE = (3, 12, 8)
R = Recipe()


def expected(found: Dataset, root: Path, shape: tuple[int, int, int], resize: str) -> np.ndarray:
    images = [decode(root / path, max_pixels=10**6).pixels for path in found.paths]
    return np.stack([to_shape(image, shape, resize) for image in images])


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_rows_are_the_images_in_the_order_of_the_set(tmp_path: Path, resize: str) -> None:
    root = plant(tmp_path / "r", {"a": 70, "b": 90})
    save(root / "b/large.png", 500, (40, 30))
    found = scan(root, R)
    recipe = Recipe(resize=resize)
    for shape in (SHAPE, (1, 10, 12)):
        made = pixels(found, shape, recipe)
        assert made.dtype == np.uint8 and isinstance(made, np.memmap) and not made.flags.writeable
        assert np.array_equal(made, expected(found, root, shape, resize))


def test_test_images_of_another_root_and_rows_of_parquet(tmp_path: Path) -> None:
    train, test = plant(tmp_path / "train", {"a": 3, "b": 3}), plant(tmp_path / "test", {"a": 2, "b": 1}, first=50)
    found = scan(train, R, test=parquet_of(test, tmp_path / "t.parquet"))
    made = pixels(found, (3, 10, 12), R)
    direct = np.stack([np.asarray(Image.open(p)) for root in (train, test) for p in sorted(root.rglob("*.png"))])
    assert np.array_equal(made, direct)


def test_the_second_time_nothing_is_decoded_whatever_the_files_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 20, "b": 20})
    found = scan(root, R)
    first = pixels(found, SHAPE, R)
    opened = count_decodes(monkeypatch)
    assert np.array_equal(pixels(found, SHAPE, R), first)
    root.rename(tmp_path / "moved")
    assert np.array_equal(pixels(found, SHAPE, R), first) and opened == []
    (tmp_path / "moved").rename(root)
    turned = np.arange(len(found))[::-1]
    other = dataclasses.replace(found, paths=found.paths[::-1], digests=found.digests[turned], labels=found.labels[turned])
    assert np.array_equal(pixels(other, SHAPE, R), first[::-1]) and len(opened) == 40
    assert not np.array_equal(pixels(found, SHAPE, Recipe(resize="pad")), first)


def cached() -> Path:
    (file,) = (caching.cache_folder() / "pixels").glob("*.u8")
    return file


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
        before = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif how == "short":
        file.write_bytes(content[:-1])
    elif how == "long":
        file.write_bytes(content + b"x")
    elif how == "gone":
        file.unlink()
    else:
        file.with_suffix(".json").write_bytes(b"" if how == "seal empty" else b'[1, {"stamp": 2}]')


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("how", ["flipped", "short", "long", "gone", "seal empty", "seal wrong"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, how: str) -> None:
    root = plant(tmp_path / "r", {"a": 20, "b": 20})
    found = scan(root, R)
    first = np.array(pixels(found, SHAPE, R))
    damage(cached(), how)
    assert np.array_equal(pixels(found, SHAPE, R), first)
    assert storage.hash_file(cached()) in cached().with_suffix(".json").read_text()


@pytest.mark.usefixtures("own_cache")
def test_a_copied_cache_is_checked_once_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan(plant(tmp_path / "r", {"a": 20, "b": 20}), R)
    first = np.array(pixels(found, SHAPE, R))
    opened = count_decodes(monkeypatch)
    content = cached().read_bytes()
    cached().unlink()
    cached_again = caching.cache_folder() / "pixels"
    (seal,) = cached_again.glob("*.json")
    seal.with_suffix(".u8").write_bytes(content)
    hashed: list[object] = []
    real = storage.hash_file
    monkeypatch.setattr(storage, "hash_file", lambda path: hashed.append(path) or real(path))
    for _ in range(2):
        assert np.array_equal(pixels(found, SHAPE, R), first)
    assert opened == [] and sum(str(path).endswith(".u8") for path in hashed) == 1


CHANGES: dict[str, Callable[[Path], object]] = {
    "vanished": lambda file: file.unlink(),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-30]),
    "other pixels": lambda file: save(file, 9999),
    "other size": lambda file: save(file, 9999, (30, 30)),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("how", CHANGES)
def test_files_that_change_after_the_scan_are_refused(tmp_path: Path, how: str) -> None:
    root = plant(tmp_path / "r", {"a": 5, "b": 5})
    found = scan(root, R)
    CHANGES[how](root / "b/3.png")
    with pytest.raises(InputError) as caught:
        pixels(found, SHAPE, R)
    assert caught.value.where == "b/3.png" and "scan" in caught.value.line()
    assert list((caching.cache_folder() / "pixels").iterdir()) == []


@pytest.mark.usefixtures("own_cache")
def test_no_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan(plant(tmp_path / "r", {"a": 5, "b": 5}), R)
    monkeypatch.setattr(storage, "free_bytes", lambda _path: (1000, 1 << 60))
    with pytest.raises(OutputError, match="2,880 bytes, 1,000 are free"):
        pixels(found, SHAPE, R)


@pytest.mark.usefixtures("own_cache")
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan(plant(tmp_path / "r", {"a": 5, "b": 5}), R)

    def failing(operation: str, path: str) -> None:
        if operation == "fsync":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "hook", failing)
    with pytest.raises(OutputError, match="No space left"):
        pixels(found, SHAPE, R)
    monkeypatch.setattr(storage, "hook", None)
    folder = caching.cache_folder() / "pixels"
    assert list(folder.iterdir()) == []
    killed, writing = (folder / f"{storage.TEMPORARY}{name}" for name in ("killed", "writing"))
    for path in (killed, writing):
        path.write_bytes(b"half")
    os.utime(killed, (0, 0))
    assert pixels(found, SHAPE, R).shape == (10, 12, 8, 3)
    assert not killed.exists() and writing.exists(), "what nobody has written to for an hour is of a killed process"


@pytest.mark.usefixtures("own_cache")
def test_only_a_few_chunks_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan(plant(tmp_path / "r", {"a": 60, "b": 60}), R)
    monkeypatch.setattr(origin, "CHUNK", 4)
    ahead, written = 0, 0
    real = cache.to_shape

    def counting(*given: object) -> np.ndarray:
        nonlocal ahead
        ahead += 1
        assert ahead - written <= 4 * (2 * 2 + 2)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "to_shape", counting)
    progress = Progress(quiet=True)
    real_advance = progress.advance

    def advance(count: int = 1, text: str = "") -> None:
        nonlocal written
        written += count
        real_advance(count, text)

    monkeypatch.setattr(progress, "advance", advance)
    pixels(found, SHAPE, Recipe(threads=2), progress=progress)
    assert (progress.stage_name, progress.done, progress.total, ahead) == ("pixels", 120, 120, 120)
