"""Every image in its final shape in one memory-mapped file, made once for equal content and checked before it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL

from datagen import caching, storage
from datagen.errors import ArtefactError, InputError, OutputError
from datagen.progress import Progress
from datagen.records import SCHEMA, Dataset, Recipe
from datagen.sources import origin
from datagen.sources.decode import VERSION, Decoded, to_shape
from datagen.sources.look import digest

_AGAIN = "give the same command again; where it says the same, with --set verify_data=true"
_SPARE = 64 << 20


def pixels(dataset: Dataset, shape: tuple[int, int, int], recipe: Recipe, *, progress: Progress | None = None) -> np.ndarray:
    """Return every image of a set in one shape, uint8 [N, height, width, channels], memory-mapped and read-only.

    The file lies in the cache folder ($DATAGEN_CACHE, else the user's own), named by content, order, shape and way of
    resizing. Its SHA-256 is checked when it is new or was touched since the last check; a damaged one is made again.

    Args:
        dataset: the scanned set; rows keep its order.
        shape: channels (1 or 3), height, width, as `plan_shape` gives it.
        recipe: its `resize`, `max_pixels` and `threads`.
        progress: shows the stage "pixels", one unit an image, where the file is made.

    Raises:
        InputError: an image vanished or changed since the scan.
        OutputError: the cache folder has no room or cannot be written.
    """
    channels, height, width = shape
    file = caching.entry("pixels", dataset.digests.tobytes(), *shape, recipe.resize, VERSION, PIL.__version__).with_suffix(".u8")
    rows = (len(dataset), height, width, channels)
    if not _intact(file, rows):
        _make(file, dataset, shape, recipe, progress or Progress(quiet=True))
    return np.memmap(file, np.uint8, "r", shape=rows)


def _seal(file: Path) -> Path:
    return file.with_suffix(".json")


def _stamp(file: Path) -> list[int]:
    status = os.stat(file)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _intact(file: Path, rows: tuple[int, ...]) -> bool:
    """Whether the file is there and whole; it is read through only where its stamp is not the one of the last check."""
    try:
        seal: Any = storage.read_json(_seal(file), limit=1 << 16)
        stamp = _stamp(file)
        if not isinstance(seal, dict) or stamp[0] != int(np.prod(rows, dtype=object)) or seal.get("schema") != SCHEMA:
            return False
        if seal.get("stamp") == stamp:
            storage.used(_seal(file))
            return True
        if seal.get("sha256") != storage.hash_file(file):
            return False
    except (ArtefactError, OSError):
        return False
    storage.write_json(_seal(file), seal | {"stamp": stamp})
    return True


def _make(file: Path, dataset: Dataset, shape: tuple[int, int, int], recipe: Recipe, progress: Progress) -> None:
    try:
        storage.sweep(storage.make_folder(file.parent), unused=storage.STALE)
    except OutputError as error:
        raise OutputError(error.what, where=error.where, hint="decoded images are kept there: set DATAGEN_CACHE to a folder that can be written") from error
    need, (free, _) = len(dataset) * int(np.prod(shape)), storage.free_bytes(file.parent)
    if need + _SPARE > free:
        hint = "free some space, set DATAGEN_CACHE to another disk, or give a smaller --size"
        raise OutputError(f"the decoded images need {need:,} bytes, {free:,} are free", where=file.parent, hint=hint)
    caching.forget("pixels")
    storage.remove(_seal(file))
    with progress.stage("pixels", len(dataset)):

        def write(out: BinaryIO) -> None:
            for images in _shaped(dataset, shape, recipe):
                out.write(b"".join(images))
                progress.advance(len(images))

        _, sha = storage.replace(file, write)
    storage.write_json(_seal(file), {"schema": SCHEMA, "sha256": sha, "stamp": _stamp(file)})


def _shaped(dataset: Dataset, shape: tuple[int, int, int], recipe: Recipe) -> Iterator[list[bytes]]:
    """Yield the images in order, in lists, each checked against what the scan saw."""
    bases = [origin.base_of(root) if root else "" for root in (dataset.roots[0] or dataset.root, dataset.roots[1])]

    def bring(number: int, seen: Decoded | InputError) -> bytes:
        path = dataset.paths[number]
        if isinstance(seen, InputError):
            raise InputError(f"{seen.what}, though it was good at the scan", where=path, hint=_AGAIN)
        if digest(seen.pixels) != dataset.digests[number].tobytes():
            raise InputError("changed since the scan", where=path, hint=_AGAIN)
        return to_shape(seen.pixels, shape, recipe.resize).tobytes()

    places = [(bases[int(unseen)], path) for path, unseen in zip(dataset.paths, dataset.test.tolist(), strict=True)]
    for done in origin.each(places, bring, max_pixels=recipe.max_pixels, threads=origin.threads_of(recipe.threads)):
        yield [content for _, content in done]
