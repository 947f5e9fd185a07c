"""How useful a generator's images are so far, in a second: a simple classifier trained on them alone, asked about the select part."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datagen import seeds
from datagen.recogniser.search import descriptors

IMAGES, EACH = 500, 2
"""images that the classifier learns from, and of a class at least"""
ASKED, FEWEST = 2_000, 40
"""images of the select part that it is asked about, and below which nothing is said"""
SIDE, KERNEL = 16, 256
"""longest side of the images that are compared, and centres of the kernel"""
Drawer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""images uint8 [N, H, W, C] of labels int64 [N] and places int64 [N], which keep the draws of a class apart"""


@dataclass(frozen=True)
class Proxy:
    """What a fit asks of itself while it trains.

    A ridge classifier on 256 radial functions of small descriptors (Nystroem: Williams & Seeger 2001): weak, but as
    quick as a grid of samples, and equally weak for real and synthetic images.

    Attributes:
        labels: int64 [M], of the images that the classifier learns from.
        places: int64 [M], the how-manieth of its class.
        asked: descriptors float32 [N, D] of select images.
        answers: their labels int64 [N].
        real: share of them that is named right after as many training images, repeated where a class has fewer.
    """

    labels: np.ndarray
    places: np.ndarray
    asked: np.ndarray
    answers: np.ndarray
    real: float = 0.0

    def ask(self, draw: Drawer) -> float:
        """Return the share of the select images named right after images of a generator."""
        return self._right(draw(self.labels, self.places))

    def _right(self, images: np.ndarray) -> float:
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import RidgeClassifier
        from sklearn.pipeline import make_pipeline

        known = descriptors(images, SIDE)
        wide = 1 / max(float(known.var(axis=0).sum()), 1e-9)
        kernel = Nystroem(gamma=wide, n_components=min(KERNEL, len(known)), random_state=0)
        classifier = make_pipeline(kernel, RidgeClassifier(alpha=0.1)).fit(known, self.labels)
        return float((classifier.predict(self.asked) == self.answers).mean())


def proxy(pixels: np.ndarray, labels: np.ndarray, train: np.ndarray, select: np.ndarray, *, classes: int, seed: int) -> Proxy | None:
    """Return what asks, or None where the select part has fewer than 40 images or scikit-learn is missing.

    Of more than 250 classes some are taken, at equal distances.

    Args:
        pixels: uint8 [N, H, W, C], an array or memory map.
        labels: int64 [N].
        train: rows of the training images, of every class one at least.
        select: rows of the select part.
        classes: number of classes.
        seed: decides which images are taken.
    """
    shown = np.arange(0, classes, max(1, -(-classes * EACH // IMAGES)))
    each = max(EACH, IMAGES // len(shown))
    rows = seeds.stream(seed, "proxy").permutation(train)
    rows = np.concatenate([np.resize(rows[labels[rows] == label], each) for label in shown])
    select = select[np.isin(labels[select], shown)]
    asked = np.sort(seeds.stream(seed, "proxy", "select").permutation(select)[:ASKED])
    if len(asked) < FEWEST:
        return None
    if importlib.util.find_spec("sklearn") is None:
        return None
    bare = Proxy(np.repeat(shown, each), np.tile(np.arange(each), len(shown)), descriptors(pixels[asked], SIDE), labels[asked])
    return dataclasses.replace(bare, real=bare._right(pixels[rows]))
