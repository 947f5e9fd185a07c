"""Which images there are and which shard takes which of them: pure arithmetic on what was asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datagen import seeds
from datagen.contracts import Format
from datagen.records import ShardTask

TILE = 64
"""consecutive indices of one class that are computed together"""
SHARD_PIXELS = 1 << 28
"""bytes of pixels a shard holds at most where the number of images was not asked for"""


@dataclass(frozen=True)
class Plan:
    """An order for images.

    Attributes:
        classes: names in code-point order.
        per_class: images of each class.
        seed: everything random follows from it.
        shard_images: images a shard, about.
    """

    classes: tuple[str, ...]
    per_class: int
    seed: int
    shard_images: int

    @property
    def images(self) -> int:
        """All images."""
        return len(self.classes) * self.per_class

    @property
    def shards(self) -> int:
        """Number of shards, each of one tile at least."""
        tiles = len(self.classes) * -(-self.per_class // TILE)
        return max(1, min(tiles, -(-self.images // self.shard_images)))

    @functools.cached_property
    def tiles(self) -> np.ndarray:
        """Return int64 [T, 3]: class index, first index and images wanted (1 to 64), in an order that follows from the seed."""
        firsts = np.arange(0, self.per_class, TILE, dtype=np.int64)
        wanted = np.minimum(TILE, self.per_class - firsts)
        labels = np.repeat(np.arange(len(self.classes), dtype=np.int64), len(firsts))
        found = np.stack([labels, np.tile(firsts, len(self.classes)), np.tile(wanted, len(self.classes))], axis=1)
        order: np.ndarray = found[seeds.stream("order", self.seed).permutation(len(found))]
        return order

    def task(self, id: int, format: Format) -> ShardTask:
        """Return shard `id` of this plan in a format."""
        first, end = (len(self.tiles) * i // self.shards for i in (id, id + 1))
        return ShardTask(id, format.name(id, self.shards), tuple((int(a), int(b), int(c)) for a, b, c in self.tiles[first:end]))

    def order(self, id: int, count: int) -> np.ndarray:
        """Return int64 [count], the order in which the images of shard `id` are stored."""
        return seeds.stream("rows", self.seed, id, self.shards).permutation(count)


def shard_size(asked: int, shape: Sequence[int], explicit: bool) -> int:
    """Return images a shard: what was asked for explicitly, else as few as fit in 256 MB of pixels of (C, H, W)."""
    return asked if explicit else max(TILE, min(asked, SHARD_PIXELS // int(np.prod(shape))))
