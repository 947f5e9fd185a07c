"""Damages of a set of images, and which measure must see which: shared by a test and by benchmarks/damage.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from datagen import registry
from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.recogniser.fit import Fitted, Settings, fit
from datagen.records import Finding

MEASURES = ("agreement", "fidelity", "coverage", "separability", "copies", "duplicates", "balance", "drift")
MUST: Mapping[str, Mapping[str, int]] = {
    "agreement": {"relabelled": 2},
    "fidelity": {"blurred": 2, "noised": 3, "collapsed": 3},
    "coverage": {"noised": 3, "collapsed": 2},
    "separability": {"blurred": 2, "noised": 2},
    "copies": {"copied": 1},
    "duplicates": {"collapsed": 1},
    "balance": {},
    "drift": {"blurred": 1, "noised": 1},
}
"""by measure and damage, the strength (1 to 3) from which on the measure must depart from the real-against-real floor"""
BLIND: Mapping[str, tuple[str, ...]] = {
    "agreement": ("copied",),
    "fidelity": ("relabelled",),
    "coverage": ("relabelled", "copied"),
    "separability": ("relabelled",),
    "copies": ("blurred", "noised", "relabelled"),
    "duplicates": ("relabelled",),
    "balance": ("blurred", "noised", "relabelled", "collapsed", "copied"),
    "drift": ("relabelled", "copied"),
}
"""by measure, damages that it cannot see by its nature: it does not look at labels, pixels, variety or training images"""


@dataclass(frozen=True)
class Damage:
    """What is done to images and labels (given the training images, a strength and a generator), three strengths, and these in words."""

    apply: Callable[[Labelled, Labelled, float, np.random.Generator], Labelled]
    strengths: tuple[float, float, float]
    words: str


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.clip(np.round(images), 0, 255).astype(np.uint8)


def blurred(made: Labelled, real: Labelled, strength: float, rng: np.random.Generator) -> Labelled:
    """Mix each image with its means over 3x3 pixels."""
    padded = np.pad(made.images.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = made.images.shape[1:3]
    means = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9
    return Labelled(_pixels((1 - strength) * made.images + strength * means), made.labels)


def noised(made: Labelled, real: Labelled, strength: float, rng: np.random.Generator) -> Labelled:
    """Add normal noise of this deviation in grey levels."""
    return Labelled(_pixels(made.images + rng.normal(0, strength, made.images.shape)), made.labels)


def relabelled(made: Labelled, real: Labelled, strength: float, rng: np.random.Generator) -> Labelled:
    """Exchange the labels of this share of the images among themselves, so that every class keeps its count."""
    chosen = rng.permutation(len(made))[: round(strength * len(made))]
    labels = made.labels.copy()
    ordered = chosen[np.argsort(labels[chosen], kind="stable")]
    labels[ordered] = np.roll(labels[ordered], len(ordered) // 2)
    return Labelled(made.images, labels)


def collapsed(made: Labelled, real: Labelled, strength: float, rng: np.random.Generator) -> Labelled:
    """Keep so many different images of each class and repeat them with a trace of noise."""
    images = made.images.copy()
    for label in np.unique(made.labels):
        members = np.flatnonzero(made.labels == label)
        images[members] = made.images[members[np.arange(len(members)) % int(strength)]]
    return Labelled(_pixels(images + rng.normal(0, 1, images.shape)), made.labels)


def copied(made: Labelled, real: Labelled, strength: float, rng: np.random.Generator) -> Labelled:
    """Put training images of the same classes, with a trace of noise, in the place of this share."""
    images = made.images.copy()
    order = {label: iter(rng.permutation(np.flatnonzero(real.labels == label))) for label in np.unique(real.labels)}
    for row in rng.permutation(len(made))[: round(strength * len(made))]:
        source = next(order[made.labels[row]], None)
        if source is not None:
            images[row] = _pixels(real.images[source] + rng.normal(0, 2, real.images.shape[1:]))
    return Labelled(images, made.labels)


DAMAGES: Mapping[str, Damage] = {
    "blurred": Damage(blurred, (0.3, 0.6, 1.0), "share of a 3x3 mean"),
    "noised": Damage(noised, (15, 30, 60), "deviation in grey levels"),
    "relabelled": Damage(relabelled, (0.05, 0.2, 0.5), "share of the labels"),
    "collapsed": Damage(collapsed, (20, 8, 2), "different images a class"),
    "copied": Damage(copied, (0.03, 0.2, 0.6), "share that are training images"),
}


@cache
def digits(each: int) -> tuple[Labelled, Labelled, Labelled]:
    """Return three sets of `each` handwritten digits 8x8 (at most 599) that share no image: training, unseen, and fresh ones in the place of synthetic."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = _pixels(found.images[order] * (255 / 16))[..., None]
    return tuple(Labelled(images[i * each : (i + 1) * each], found.target[order][i * each : (i + 1) * each].astype(np.int64)) for i in range(3))  # type: ignore[return-value]


@cache
def recogniser(each: int) -> Fitted:
    """Return a small recogniser trained on the training digits."""
    real = digits(each)[0]
    return fit(real.images, real.labels, classes=10, settings=Settings(steps=80, batch=64, learning_rate=0.1, width=8), seed=1)


def context(each: int, damage: str = "", strength: int = 0) -> Context:
    """Return an experiment whose synthetic images are fresh real ones, damaged by the first, second or third strength."""
    real, test, made = digits(each)
    if damage:
        found = DAMAGES[damage]
        made = found.apply(made, real, found.strengths[strength - 1], np.random.default_rng(strength))
    net = recogniser(each)
    return Context(tuple("0123456789"), real, made, test, (), {"recogniser": net.features}, net.predict)


def findings(name: str, given: Context) -> list[Finding]:
    """Return the findings of a measure."""
    found = registry.load("measures", name)().measure(given)
    return [found] if isinstance(found, Finding) else list(found)


def seen(name: str, given: Context) -> bool:
    """Whether any finding of a measure departs from the floor."""
    return any(finding.details.get("departs") for finding in findings(name, given))
