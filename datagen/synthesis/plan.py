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
SHARDS, SHARD_LEAST = 16, 1024
"""shards that an order has at least where they were not asked for, and images that each of them has at least"""
SHARD_PIXELS = 1 << 28
"""bytes of pixels a shard holds at most where the number of images was not asked for"""


@dataclass(frozen=True)
class Plan:
    """An order for images.

    Attributes:
        classes: names in code-point order.
        counts: images of each class, in their order; 0 makes none.
        seed: everything random follows from it.
        shard_images: images a shard, about.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    seed: int
    shard_images: int

    @property
    def images(self) -> int:
        """All images."""
        return sum(self.counts)

    @property
    def shards(self) -> int:
        """Number of shards, each of one tile at least."""
        tiles = sum(-(-count // TILE) for count in self.counts)
        return max(1, min(tiles, -(-self.images // self.shard_images)))

    @functools.cached_property
    def tiles(self) -> np.ndarray:
        """Return int64 [T, 3]: class index, first index and images wanted (1 to 64), in an order that follows from the seed."""
        counts = np.array(self.counts, np.int64)
        tiles = -(-counts // TILE)
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), tiles)
        firsts = TILE * (np.arange(len(labels), dtype=np.int64) - np.repeat(np.cumsum(tiles) - tiles, tiles))
        found = np.stack([labels, firsts, np.minimum(TILE, counts[labels] - firsts)], axis=1)
        order: np.ndarray = found[seeds.stream("order", self.seed).permutation(len(found))]
        return order

    def task(self, id: int, format: Format) -> ShardTask:
        """Return shard `id` of this plan in a format."""
        first, end = (len(self.tiles) * i // self.shards for i in (id, id + 1))
        return ShardTask(id, format.name(id, self.shards), tuple((int(a), int(b), int(c)) for a, b, c in self.tiles[first:end]))

    def order(self, id: int, count: int) -> np.ndarray:
        """Return int64 [count], the order in which the images of shard `id` are stored."""
        return seeds.stream("rows", self.seed, id, self.shards).permutation(count)


def shard_size(asked: int, shape: Sequence[int], explicit: bool, images: int) -> int:
    """Return images a shard: what was asked for explicitly; else enough shards for many workers, and none above 256 MB of pixels.

    Args:
        asked: images a shard.
        shape: channels, height, width in pixels.
        explicit: whether that was asked for by name.
        images: of the whole order.
    """
    if explicit:
        return asked
    return max(TILE, min(asked, SHARD_PIXELS // int(np.prod(shape)), max(SHARD_LEAST, -(-images // SHARDS))))
