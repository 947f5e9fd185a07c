"""Real and synthetic images as one torch Dataset, classes matched by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from datagen.errors import InputError, UsageError, nearest
from datagen.reading.shards import ShardDataset
from datagen.reading.turns import Turns


class Mixed(Dataset[Any]):
    """Real images followed by synthetic ones, as `mix` makes it.

    Attributes:
        classes: names; a label is the place of its class, as the real set numbers them.
        real: number of real images, the first ones.
        synthetic: number of synthetic images in an epoch.
        probabilities: whether labels are probabilities float32 [classes]: the synthetic images' own, and 1 for a real image's class.
    """

    def __init__(self, real: Any, synthetic: ShardDataset, places: np.ndarray, count: int, seed: int) -> None:
        self.classes, self.real, self.synthetic = tuple(real.classes), len(real), count
        self._real, self._made, self._places, self.probabilities = real, synthetic, places, synthetic.probabilities
        self._turns = Turns(len(synthetic), count, "mix", seed)

    def set_epoch(self, epoch: int) -> None:
        """Draw other synthetic images from now on, where there are more than an epoch takes; loader workers that are kept alive hear of it."""
        self._turns.set_epoch(epoch)
        self._made.set_epoch(epoch)

    def __len__(self) -> int:
        return self.real + self.synthetic

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row = int(row) % len(self)
        if row < self.real:
            image, label = self._real[row]
            return image, self._shares([int(label)], 1.0) if self.probabilities else int(label)
        image, label = self._made[self._turns.row(row - self.real)]
        if not self.probabilities:
            return image, int(self._places[label])
        known = self._places >= 0
        return image, self._shares(self._places[known], label[known])

    def _shares(self, places: Any, given: Any) -> torch.Tensor:
        """Return float32 [classes], what is given at some places as shares of their sum, 0 elsewhere."""
        found = torch.zeros(len(self.classes))
        found[places] = given
        return found / found.sum().clamp_min(1e-6)


def mix(
    real: str | Path | Dataset[Any],
    synthetic: str | Path | ShardDataset,
    *,
    ratio: float | None = 1.0,
    transform: Callable[[Image.Image], Any] | None = None,
    seed: int = 0,
) -> Mixed:
    """Return real and synthetic images as one Dataset for a DataLoader.

    Args:
        real: labelled folder or shards, or a dataset of (image, label) with `classes`, such as torchvision's ImageFolder.
        synthetic: folder of shards, or a ShardDataset; every one of its classes must be one of the real set's. With ShardDataset(...).soft()
            all labels are probabilities; where that has no transform of its own it takes the one that a folder would.
        ratio: synthetic images for each real one; None takes all there are. `set_epoch(n)` draws others in each epoch.
        transform: called with each image (Pillow) that is opened here; by default that of the real dataset. Beside another
            dataset than ours synthetic images are RGB, as torchvision opens real ones.
        seed: of the draw.

    Raises:
        InputError: a synthetic class is none of the real set's.
        UsageError: more synthetic images are asked for than there are, or the real set has no `classes`, or probabilities in place of labels.
        ArtefactError: the shards are damaged or unfinished.
    """
    ours = isinstance(real, str | Path | ShardDataset)
    if isinstance(real, str | Path):
        real = ShardDataset(real, transform=transform)
    if not hasattr(real, "classes"):
        raise UsageError("has no classes", where=type(real).__name__, hint="give it an attribute `classes`: the names in the order of the labels")
    if getattr(real, "probabilities", False):
        raise UsageError("has probabilities in place of labels", where=type(real).__name__, hint="give the real images without soft()")
    like = _like(transform or getattr(real, "transform", None), ours=ours)
    if isinstance(synthetic, str | Path):
        synthetic = ShardDataset(synthetic, transform=like)
    if synthetic.probabilities and synthetic.transform is None:
        synthetic = copy.copy(synthetic)
        synthetic.transform = like
    names = list(real.classes)
    for name in synthetic.classes:
        if name not in names and (synthetic.labels == synthetic.classes.index(name)).any():
            raise InputError(f"class {name!r} is none of the real set's", where=synthetic.path, hint=nearest(name, names))
    places = np.array([names.index(name) if name in names else -1 for name in synthetic.classes], np.int64)
    count = len(synthetic) if ratio is None else round(ratio * len(real))  # type: ignore[arg-type]
    if not 0 <= count <= len(synthetic):
        what = f"{count:,} synthetic images are asked for, {len(synthetic):,} are there"
        raise UsageError(what, where=f"ratio={ratio}", hint="synthesize more, or give a smaller ratio; ratio=None takes all")
    return Mixed(real, synthetic, places, count, seed)


def _like(transform: Callable[[Image.Image], Any] | None, *, ours: bool) -> Callable[[Image.Image], Any] | None:
    """Return a transform that gives synthetic images the form that real ones have."""
    return transform if ours else _Coloured(transform)


class _Coloured:
    """Turns images to RGB before a transform; a class of its own, so that worker processes can be spawned."""

    def __init__(self, transform: Callable[[Image.Image], Any] | None) -> None:
        self.transform = transform

    def __call__(self, image: Image.Image) -> Any:
        coloured = image.convert("RGB")
        return coloured if self.transform is None else self.transform(coloured)
