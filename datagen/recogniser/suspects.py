"""Images whose label a recogniser that never saw them does not believe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datagen import seeds
from datagen.recogniser.fit import Settings, fit

FOLDS = 3
PASSES, SHOWN = 12, 150_000
"""how often each recogniser sees its images, and images that all of them are shown at most"""
FEWEST = 60
"""steps of each at least"""


@dataclass(frozen=True)
class Doubts:
    """What recognisers say of images they never saw.

    Attributes:
        own: probability float32 [N] of the image's own label.
        rival: the most probable other label int64 [N].
        other: its probability float32 [N].
    """

    own: np.ndarray
    rival: np.ndarray
    other: np.ndarray

    def ranked(self) -> np.ndarray:
        """Return all rows int64 [N], the least believed label first."""
        return np.argsort(self.own - self.other, kind="stable")


def planned(images: int) -> Settings:
    """Return how one recogniser is trained for so many images."""
    batch = 32 if images < 2000 else 64
    steps = max(FEWEST, min(PASSES * images * (FOLDS - 1) // FOLDS, SHOWN // FOLDS) // batch)
    return Settings(steps=steps, batch=batch, learning_rate=0.2 * (batch / 128) ** 0.5, width=16, smoothing=0.0)


def doubts(images: np.ndarray, labels: np.ndarray, classes: int, *, seed: int = 0, progress: Callable[[int, str], None] | None = None) -> Doubts:
    """Train one recogniser for each third of the images on the other two and ask it about that third (Northcutt et al. 2021, section 3.1).

    Args:
        images: uint8 [N, H, W, C].
        labels: int64 [N]; each class is divided evenly.
        classes: number of classes, two at least.
        seed: of division and recognisers.
        progress: called after each step of the three with 1 and a short text.
    """
    order = seeds.stream("suspects", seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % FOLDS
    settings = planned(len(labels))
    scores = np.zeros((len(labels), classes), np.float32)
    for part in range(FOLDS):
        rows = np.flatnonzero(fold != part)
        fitted = fit(images[rows], labels[rows], classes=classes, settings=settings, seed=seeds.integer(seed, "suspects", part), progress=progress)
        asked = np.flatnonzero(fold == part)
        scores[asked] = fitted.predict(images[asked])
    every = np.arange(len(labels))
    own = scores[every, labels].copy()
    scores[every, labels] = -1
    rival = scores.argmax(axis=1)
    return Doubts(own, rival, scores[every, rival])
