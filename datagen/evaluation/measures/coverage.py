"""Precision, recall, density and coverage of synthetic images, beside those of as many unseen real ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import drawing, wording
from datagen.evaluation.measures.downstream import ends
from datagen.evaluation.statistics import Interval
from datagen.records import Finding

LIMIT = 10_000
K = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
"""neighbours that make a ball"""
BLOCK = 512
FEWEST = 20
"""images in each half, of a class or in all; with fewer nothing is computed"""

MEANING = {
    "precision": "share of synthetic images inside a ball about an unseen real one that reaches to its third nearest (Kynkaanniemi et al. 2019, eq. 1, 2)",
    "recall": "share of unseen real images inside such a ball about a synthetic one (the same, eq. 3)",
    "density": "balls about unseen real images (to the fifth nearest) that a synthetic one lies in, by 5; 1 is alike (Naeem et al. 2020, eq. 5)",
    "coverage": "share of unseen real images whose ball (to the fifth nearest) holds a synthetic one (the same, eq. 6); about 0.97 if alike",
}


def _value_keys(name: str) -> dict[str, str]:
    value = {"mean": "the figure", "low": "lower end of the 95 % interval over images, for these balls", "high": "upper end"}
    return {name: MEANING[name], **wording.documented(name, value), f"{name}.floor": "the same of the other half of the unseen real images"}


_KEYS = {
    **{key: text for name in MEANING for key, text in _value_keys(name).items()},
    "images": "images on each side, classes as in the unseen real images",
    "per_class": "the same figures within each class, in the order of the labels",
    "per_class.class": "name",
    "per_class.images": "images on each side; below 20 the figures are null",
    **{f"per_class.{name}": name for name in MEANING},
    **{f"per_class.{name}_floor": "of the unseen real images" for name in MEANING},
    "thinnest": "the classes whose coverage lies farthest below its floor, at most 5",
    "departs": "whether the interval of any figure but density above its floor lies below its floor's interval",
}


class Coverage:
    """Whether synthetic images look real (precision, density) and whether they show all that real ones do (recall, coverage)."""

    keys: Mapping[str, str] = wording.documented("coverage_*", _KEYS)

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield "coverage ENCODER" for each encoder; its estimate is the coverage.

        Balls lie about one half of the unseen real images; as many synthetic ones of the same classes are compared, and for
        the floor the other half.
        """
        for encoder in context.encoders:
            yield _finding(context, encoder)


def _finding(context: Context, encoder: str) -> Finding:
    known, made = (getattr(context, part).labels[context.rows(part, LIMIT)] for part in ("test", "synthetic"))
    halves = drawing.halves(known, context.seed)
    size = min(len(halves[0]), len(made))
    if size < FEWEST:
        return wording.unmeasured(f"coverage {encoder}", f"{size} images in each half are too few, {FEWEST} are needed", images=size)
    shares = drawing.shares(known, len(context.classes))
    rows = [half[drawing.like(known[half], shares, size, context.seed, i)] for i, half in enumerate(halves)]
    drawn = drawing.like(made, shares, size, context.seed, 2)
    real, synthetic = (context.features(part, LIMIT, encoder).astype(np.float64) for part in ("test", "synthetic"))
    sides = (real[rows[0]], real[rows[1]], synthetic[drawn])
    value, floor = _figures(sides[0], sides[2]), _figures(sides[0], sides[1])
    details: dict[str, Any] = {name: {**ends(value[name]), "floor": wording.number(floor[name].mean)} for name in MEANING}
    per_class = [_of_class(context, label, sides, (known[rows[0]], known[rows[1]], made[drawn])) for label in range(len(context.classes))]
    thin = sorted((c["coverage"] - c["coverage_floor"], c["class"]) for c in per_class if c["coverage"] is not None)[:5]
    departs = any(value[name].high < floor[name].low for name in MEANING)
    details |= {"images": size, "per_class": per_class, "thinnest": [name for gap, name in thin if gap < 0], "departs": departs}
    texts = [f"{name} {value[name].mean:.2f} (floor {floor[name].mean:.2f})" for name in MEANING]
    word = "fall short of unseen real images" if departs else "cover and resemble unseen real images as those do each other"
    sentence = f"In the features of {encoder!r} synthetic images {word}: {', '.join(texts)}; N = {size:,} on each side."
    found = value["coverage"]
    return Finding(f"coverage {encoder}", found.mean, found.low, found.high, sentence, details)


def _of_class(context: Context, label: int, sides: tuple[np.ndarray, ...], labels: tuple[np.ndarray, ...]) -> dict[str, Any]:
    one, other, made = (side[of == label] for side, of in zip(sides, labels, strict=True))
    size = min(len(one), len(other), len(made))
    row: dict[str, Any] = {"class": context.classes[label], "images": size}
    if size < FEWEST:
        return row | dict.fromkeys([*MEANING, *(f"{name}_floor" for name in MEANING)])
    value, floor = _figures(one[:size], made[:size]), _figures(one[:size], other[:size])
    row |= {name: wording.number(value[name].mean) for name in MEANING}
    return row | {f"{name}_floor": wording.number(floor[name].mean) for name in MEANING}


def _figures(real: np.ndarray, other: np.ndarray) -> dict[str, Interval]:
    """Return each figure with its interval over the images that it is a mean of: Wilson's for shares, the normal one for density."""
    by_k = {k: prdc(real, other, k) for k in set(K.values())}
    found = {}
    for name, k in K.items():
        each = by_k[k][name]
        mean = float(each.mean())
        reach = statistics.Z * float(each.std(ddof=1)) / math.sqrt(len(each))
        found[name] = Interval(mean, max(0.0, mean - reach), mean + reach) if name == "density" else statistics.wilson(mean, len(each))
    return found


def prdc(real: np.ndarray, other: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Return what each image adds to precision [M], recall [N], density [M] and coverage [N]: their means are the figures.

    Naeem et al. 2020 (arXiv 2002.09797), eq. 3 to 6, precision and recall after Kynkaanniemi et al. 2019 (arXiv 1904.06991),
    eq. 1 to 3. Balls are open: an image on the edge lies outside.

    Args:
        real: float64 [N, F], N above k.
        other: float64 [M, F], M above k.
        k: the neighbour that a ball reaches to.
    """
    reach, reach_other = radii(real, k), radii(other, k)
    hits = np.zeros(len(other))
    recall, coverage = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for start in range(0, len(real), BLOCK):
        apart = distances(real[start : start + BLOCK], other)
        inside = apart < reach[start : start + BLOCK, None]
        hits += inside.sum(0)
        coverage[start : start + BLOCK] = inside.any(1)
        recall[start : start + BLOCK] = (apart < reach_other).any(1)
    return {"precision": (hits > 0).astype(float), "recall": recall.astype(float), "density": hits / k, "coverage": coverage.astype(float)}


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return Euclidean distances float64 [N, M] of features float64 [N, F] and [M, F]."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return np.sqrt(np.maximum(squares, 0))


def radii(features: np.ndarray, k: int) -> np.ndarray:
    """Return float64 [N], the distance of each of features float64 [N, F] to its k-th nearest other."""
    found = np.empty(len(features))
    for start in range(0, len(features), BLOCK):
        apart = distances(features[start : start + BLOCK], features)
        apart[np.arange(len(apart)), start + np.arange(len(apart))] = 0
        found[start : start + BLOCK] = np.partition(apart, k, axis=1)[:, k]
    return found
