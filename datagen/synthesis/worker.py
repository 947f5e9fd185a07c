"""Makes one shard: tile by tile to pixels, image files, rows, and commits it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from datagen import registry
from datagen.contracts import Format, Rows
from datagen.formats import encode
from datagen.places import Place
from datagen.records import ShardNote, ShardTask
from datagen.synthesis import acceptance
from datagen.synthesis.commit import commit
from datagen.synthesis.forecast import Probed, probe
from datagen.synthesis.heartbeat import beat
from datagen.synthesis.painter import Origin, Painted, Painter, open_painter
from datagen.synthesis.plan import Plan

MOST_CLASSES = 100
"""with more, probabilities are not stored"""


@dataclass
class ShardMaker:
    """Makes shards of one production; travels to worker processes, where the painter is opened at the first shard.

    Attributes:
        out: the set's place.
        origin: what makes the images.
        plan: which images there are.
        format: the format's name.
        encoder: png or jpeg.
        mark: that every image file carries, "" for none.
    """

    out: Place
    origin: Origin
    plan: Plan
    format: str
    encoder: str
    mark: str = ""
    _painter: Painter | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_painter": None}

    def __call__(self, task: ShardTask) -> ShardNote | Probed:
        """Make and commit one shard; returns its note. Of a probe, look whether enough images are accepted, and return what they take on disk."""
        if task.probe:
            acceptance.require(self.painter(), self.origin, [name for name, count in zip(self.plan.classes, self.plan.counts, strict=True) if count])
            return probe(self, task)
        rows = self.rows(task)
        began = time.perf_counter()
        note = commit(self.out, self.writer(), task, rows)
        beat(0, writing=time.perf_counter() - began)
        return note

    def writer(self) -> Format:
        """Return the format's writer."""
        part: Format = registry.load("formats", self.format)()
        return part

    def painter(self) -> Painter:
        """Return what makes the images, opened at the first call."""
        if self._painter is None:
            self._painter = open_painter(self.origin, self.plan.seed)
        return self._painter

    def painted(self, label: int, first: int, wanted: int) -> Painted:
        """Return one tile."""
        return self.painter().tile(self.plan.classes[label], first, wanted)

    def rows(self, task: ShardTask) -> Rows:
        """Return the rows of a shard in the order they are stored; beats after each tile."""
        images: list[bytes] = []
        found: list[Painted] = []
        for label, first, wanted in task.tiles:
            began = time.perf_counter()
            tile = self.painted(label, first, wanted)
            painted = time.perf_counter()
            images += encode.encode(tile.images, self.encoder, self.mark)
            found.append(dataclasses.replace(tile, images=tile.images[:0]))
            beat(wanted, sampling=painted - began, encoding=time.perf_counter() - painted)
        tiles = np.array(task.tiles, np.int64).reshape(-1, 3)
        labels = np.repeat(tiles[:, 0], tiles[:, 2])
        indices = np.concatenate([np.arange(first, first + wanted) for _, first, wanted in task.tiles])
        order = self.plan.order(task.id, len(images))
        scored = all(tile.probabilities is not None for tile in found)
        columns = {name: np.concatenate([getattr(tile, name) for tile in found])[order] for name in ("confidence", "probabilities") if scored}
        if all(tile.nearest_real is not None for tile in found):
            columns["nearest_real"] = np.concatenate([tile.nearest_real for tile in found if tile.nearest_real is not None])[order]
        if len(self.plan.classes) > MOST_CLASSES:
            columns.pop("probabilities", None)
        return Rows(
            [images[i] for i in order],
            labels[order],
            self.plan.classes,
            np.full(len(images), self.plan.seed, np.int64),
            indices[order],
            np.concatenate([tile.attempts for tile in found])[order],
            **columns,
            tried=sum(tile.tried for tile in found),
            forced=sum(tile.forced for tile in found),
            near_copies=sum(tile.near_copies for tile in found),
            suffix=encode.SUFFIXES[self.encoder],
            source=self.origin.source,
        )
