"""Labelled images of a set on an object store, shard by shard through a cache folder of bounded size that processes share."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from datagen import caching, holding, storage
from datagen.errors import ArtefactError, UsageError
from datagen.reading.manifest import ShardSet
from datagen.reading.verify import whole

CACHE_BYTES = 20 * 10**9
"""of all shards that are kept on this machine"""
PACK = ".pack"
TRIES = 8
NUMBERS = 2
"""int64 an image in a pack's index: label and offset"""


class Remote:
    """Labelled images by shard and place; the rows are in the order of the shards, which was fixed when the set was opened.

    A shard is fetched when a row of it is wanted, compared with its SHA-256, unpacked into one file of the cache and read from there. The
    shard that was used longest ago is deleted when the cache is full. Nothing stays open, so worker processes may be forked or spawned.

    Args:
        found: the set.
        cache_bytes: what all packs of the cache folder take at most; one that is being fetched comes on top.

    Raises:
        ArtefactError: the set holds a file an image.
    """

    def __init__(self, found: ShardSet, cache_bytes: int = CACHE_BYTES) -> None:
        if not found.format.suffix:
            raise ArtefactError("has a file an image, which is not read from an object store", where=str(found.place), hint="copy it to a folder")
        self.root, self.classes, self.shards = str(found.place), found.classes, len(found.notes)
        self._found, self._bound = found, cache_bytes
        self._ends = np.cumsum([sum(note.rows.values()) for note in found.notes], dtype=np.int64)
        self._folder = caching.cache_folder() / "objects"
        self._indices: dict[int, np.ndarray] = {}
        self._used: dict[int, float] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.shards else 0

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int64 [N], index into `classes`; the first time every shard is fetched for it, unless it is in the cache."""
        return np.concatenate([self._index(shard)[:-1, 0] for shard in range(self.shards)] or [np.zeros(0, np.int64)])

    def label(self, row: int) -> int:
        """Return the class of an image; raises as `content`."""
        shard, at = self._place(row)
        return int(self._index(shard)[at, 0])

    def name(self, row: int) -> str:
        """Return the URL of the shard that holds an image."""
        return self._found.place.where(self._found.notes[self._place(row)[0]].file)

    def content(self, row: int) -> bytes:
        """Return the bytes of one image file.

        Raises:
            ArtefactError: the shard is missing or damaged.
            ResourceError: the store cannot be reached or refuses.
            OutputError: the cache folder has no room.
            UsageError: the shard is larger than the cache may be.
        """
        shard, at = self._place(row)
        index = self._index(shard)
        return self._read(shard, int(index[at, 1]), int(index[at + 1, 1] - index[at, 1]))

    def _place(self, row: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, row, side="right"))
        return shard, row - (int(self._ends[shard - 1]) if shard else 0)

    def _images(self, shard: int) -> int:
        return int(self._ends[shard] - (self._ends[shard - 1] if shard else 0))

    def _pack(self, shard: int) -> Path:
        return self._folder / f"{self._found.notes[shard].sha256}{PACK}"

    def _index(self, shard: int) -> np.ndarray:
        """Return int64 [n + 1, 2] of labels and offsets."""
        if shard not in self._indices:
            size = 8 * NUMBERS * (self._images(shard) + 1)
            index = np.frombuffer(self._read(shard, -size, size), np.int64).reshape(-1, NUMBERS)
            if index[-1, 0] != -1 or index[:-1, 0].max(initial=0) >= len(self.classes):
                raise ArtefactError("has labels that are no class", where=self.name(int(self._ends[shard]) - 1))
            self._indices[shard] = index
        return self._indices[shard]

    def _read(self, shard: int, offset: int, length: int) -> bytes:
        """Return bytes of a pack, from its end where the offset is negative; fetched where it is not there (any more)."""
        pack = self._pack(shard)
        for _ in range(TRIES):
            try:
                with open(pack, "rb") as file:
                    file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
                    content = file.read(length)
            except FileNotFoundError:
                self._fetch(shard)
                continue
            if len(content) != length:
                raise ArtefactError("is cut", where=pack, hint="delete it; it is fetched again")
            self._mark(shard)
            return content
        raise ArtefactError("was deleted as often as it was fetched", where=pack, hint="give a larger cache_bytes, or fewer workers")

    def _mark(self, shard: int) -> None:
        now = time.monotonic()
        if now - self._used.get(shard, -np.inf) > 1.0:
            self._used[shard] = now
            storage.used(self._pack(shard))

    def _fetch(self, shard: int) -> None:
        """Bring a shard into the cache, unless another process just did."""
        pack, note = self._pack(shard), self._found.notes[shard]
        storage.make_folder(self._folder)
        with holding.turn(self._folder / f"{note.sha256[:2]}.lock"):
            if pack.exists():
                return
            with whole(self._found, note) as path:
                parts = list(self._found.format.read(path))
            images = [image for part in parts for image in part.images]
            if len(images) != self._images(shard):
                raise ArtefactError("holds another number of images than its note says", where=self._found.place.where(note.file))
            offsets = np.cumsum([0, *map(len, images)], dtype=np.int64)
            labels = np.concatenate([*(part.labels for part in parts), [-1]]).astype(np.int64)
            index = np.stack([labels, offsets], axis=1).tobytes()

            def write(file: Any) -> None:
                file.writelines(images)
                file.write(index)

            with holding.turn(self._folder / "room.lock"):
                self._make_room(int(offsets[-1]) + len(index))
                storage.create(pack, write, again=True)

    def _make_room(self, size: int) -> None:
        """Delete packs, that used longest ago first, until another one of `size` bytes fits; and what killed processes left."""
        if size > self._bound:
            raise UsageError(f"a shard takes {size:,} bytes, the cache {self._bound:,}", where="cache_bytes", hint="give a larger one")
        storage.sweep(self._folder, unused=storage.STALE)
        packs = []
        for entry in os.scandir(self._folder):
            try:
                status = entry.stat()
            except FileNotFoundError:  # another worker has taken its download away
                continue
            if entry.name.endswith(PACK):
                packs.append((status.st_mtime_ns, status.st_size, entry.path))
        there = sum(bytes for _, bytes, _ in packs)
        for _, bytes, path in sorted(packs):
            if there + size <= self._bound:
                return
            storage.remove(path)
            there -= bytes
