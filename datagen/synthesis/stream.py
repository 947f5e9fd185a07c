"""Fresh labelled images inside a training process: none is ever seen twice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from datagen import recipe as recipes
from datagen import seeds
from datagen.errors import InputError, UsageError
from datagen.reading import soft
from datagen.synthesis import painter
from datagen.synthesis.plan import TILE

BUFFER = 16
"""tiles of 64 images, each of one class, that are shuffled together"""
EPOCH, PART = (1 << 40) + 1, 1 << 24
"""tiles that are set aside for an epoch, and for what is seen of it between two interruptions"""


class StreamDataset(IterableDataset[Any]):
    """Labelled images that a generator makes while a recogniser trains, for a DataLoader with any number of workers.

    Yields (image, label); the image is a tensor uint8 [C, H, W], or what `transform` makes of the Pillow image; the label is the place of the class
    in `classes` (sorted names). Classes come equally often, but for a tile of 64 in an epoch, in each worker and process, too. Workers and
    processes that train together share an epoch. With the generator on a GPU, load with `num_workers=0`.

    Args:
        run: RUN, a generator's folder, or rule:NAME.
        per_epoch: images an epoch, of all processes together.
        transform: called with each Pillow image (mode L or RGB).
        rank, shares: which process this is and how many train together; torch.distributed is asked where they are left out.
        settings: of `datagen synthesize` that decide pixels: seed, device, mode, min_confidence, spread, guidance, reference.

    Raises:
        UsageError: a number makes no sense.
        ArtefactError: there is no generator, or it is damaged.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        per_epoch: int = 50_000,
        transform: Callable[[Image.Image], Any] | None = None,
        rank: int | None = None,
        shares: int | None = None,
        **settings: Any,
    ) -> None:
        self._recipe = recipes.gather(None, [], **settings)
        self._origin = painter.look(str(run), self._recipe)
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if together else 0
        self.shares = shares if shares is not None else torch.distributed.get_world_size() if together else 1
        if per_epoch < self.shares or not 0 <= self.rank < self.shares:
            raise UsageError(f"{per_epoch} images for process {self.rank} of {self.shares}", where="per_epoch", hint="give each process images")
        self.classes, self.per_epoch, self.transform, self.probabilities = self._origin.classes, per_epoch, transform, False
        self._weight = soft.WEIGHT
        self._place = torch.tensor([0, 0, 0], dtype=torch.int64).share_memory_()
        self._painter: painter.Painter | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_painter": None}

    def __len__(self) -> int:
        return len(self._owned(self.rank, self.shares))

    def soft(self, weight: float = soft.WEIGHT) -> StreamDataset:
        """Return the dataset with soft labels float32 [classes] in place of labels, as `ShardDataset.soft` does; InputError without a filter."""
        other = copy.copy(self)
        other._weight = soft.checked(weight)
        other.probabilities = True
        return other

    def set_epoch(self, epoch: int) -> None:
        """Make other images from now on; loader workers that are kept alive hear of it."""
        self._place[0], self._place[2] = epoch, 0

    def state_dict(self, seen: int = 0) -> dict[str, int]:
        """Return where an epoch stands after `seen` images of this process."""
        return {"epoch": int(self._place[0]), "part": int(self._place[1]), "seen": int(self._place[2]) + seen}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on with the rest of an epoch: as many images as were left, all of them new."""
        self._place[0], self._place[1], self._place[2] = state["epoch"], state["part"] + 1, state["seen"]

    def _owned(self, share: int, shares: int) -> range:
        """Return the images of an epoch, by number, that come of one share; what was seen before `load_state_dict` is left out."""
        left = max(0, self.per_epoch - int(self._place[2]) * self.shares)
        return range(share, left, shares)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        worker = get_worker_info()
        share = self.rank if worker is None else worker.id * self.shares + self.rank
        shares = self.shares if worker is None else self.shares * worker.num_workers
        if self._painter is None:
            self._painter = painter.open_painter(self._origin, self._recipe.seed)
        epoch, part = self._place[:2].tolist()
        wanted, many = len(self._owned(share, shares)), len(self.classes)
        first, order = epoch * EPOCH + part * PART, seeds.stream("stream", self._recipe.seed, epoch, part, share)
        count, start = -(-wanted // TILE), share * -(-len(self._owned(0, shares)) // TILE)
        for begin in range(0, count, BUFFER):
            rounds = [number // many * shares + share for number in range(begin, min(begin + BUFFER, count))]
            tiles = [first + turn * many + (start + begin + place) % many for place, turn in enumerate(rounds)]
            buffer = [image for tile in tiles for image in self._painted(tile)]
            for place in order.permutation(len(buffer))[: wanted - begin * TILE].tolist():
                yield buffer[place]

    def _painted(self, tile: int) -> Iterator[tuple[Any, Any]]:
        """Yield the images of one tile of the endless sequence, in which the classes take turns."""
        assert self._painter is not None
        block, label = divmod(tile, len(self.classes))
        painted = self._painter.tile(self.classes[label], block * TILE, TILE)
        scores = painted.probabilities if self.probabilities else None
        if self.probabilities and scores is None:
            raise InputError("has no filter that gives probabilities", where=self._origin.run, hint="leave soft() out, or fit anew")
        given = None if scores is None else soft.labels(scores, np.full(len(scores), label), self._weight)
        for row, image in enumerate(painted.images):
            shown = torch.from_numpy(image.transpose(2, 0, 1).copy()) if self.transform is None else self.transform(_pillow(image))
            yield shown, label if given is None else torch.from_numpy(given[row])


def _pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
