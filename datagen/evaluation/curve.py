"""The recogniser's learning curve over real images, read backwards: how many real images a synthetic set equals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datagen import seeds

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
DRAWS = 1000


@dataclass(frozen=True)
class Equal:
    """How many real images a synthetic set equals.

    Attributes:
        images: the number; infinite above the curve's top, 0 below its foot, NaN where the curve is flat.
        low, high: ends of the 95 % interval, likewise.
        bound: "above" or "below" where the curve does not reach, "flat" where it rises so little that the interval holds every number; "" else.
    """

    images: float
    low: float
    high: float
    bound: str = ""


def sizes(images: int, classes: int) -> list[int]:
    """Return the subsample sizes of a real set, ascending, below its own: at least one image a class, four sizes where there is room."""
    wanted = [max(classes, round(images * fraction)) for fraction in FRACTIONS]
    if len(set(wanted)) < len(wanted):
        wanted = [round(value) for value in np.geomspace(classes, images, len(FRACTIONS) + 1)[:-1]]
    return sorted({value for value in wanted if value < images})


def monotone(values: np.ndarray) -> np.ndarray:
    """Return the closest non-decreasing sequence to values [S] in squared error (pool adjacent violators, Barlow et al. 1972)."""
    from sklearn.isotonic import isotonic_regression

    fitted: np.ndarray = isotonic_regression(np.asarray(values, np.float64))
    return fitted


def inverse(images: Sequence[int], accuracies: np.ndarray, wanted: float) -> float:
    """Return the number of real images at which the monotone curve first reaches an accuracy, linear between points over log n.

    Args:
        images: [S], ascending.
        accuracies: [S].
        wanted: an accuracy.

    Returns:
        the number; infinity above the last point, 0 below the first.
    """
    fitted, places = monotone(accuracies), np.log(np.asarray(images, np.float64))
    if wanted > fitted[-1]:
        return math.inf
    if wanted < fitted[0]:
        return 0.0
    after = int(np.searchsorted(fitted, wanted))
    if after == 0:
        return float(images[0])
    low, high = fitted[after - 1], fitted[after]
    share = (wanted - low) / (high - low)
    return float(np.exp(places[after - 1] + share * (places[after] - places[after - 1])))


def equal(
    images: Sequence[int], real: Sequence[np.ndarray], synthetic: np.ndarray, *, deviation: float, seed: int = 0, groups: np.ndarray | None = None
) -> Equal:
    """Return how many real images give the accuracy that the synthetic set gives, with its interval.

    Every draw of the bootstrap takes the same test images (or groups of them) for all points, and moves every point by what one
    training differs from another.

    Args:
        images: [S], numbers of real images, ascending.
        real: S arrays bool [R, T], correctness of the recognisers trained on so many.
        synthetic: bool [R, T], of those trained on the synthetic set, as many steps.
        deviation: standard deviation of the accuracy of one training.
        seed: decides the draws.
        groups: [T], images of one group are drawn together.
    """
    by_image = np.stack([found.mean(axis=0) for found in [*real, synthetic]])
    spread = np.array([deviation / math.sqrt(len(found)) for found in [*real, synthetic]])
    whole = by_image.mean(axis=1)
    best = inverse(images, whole[:-1], whole[-1])
    rng = seeds.stream("curve", seed, len(images))
    codes = np.arange(by_image.shape[1]) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.bincount(codes)
    sums = np.stack([np.bincount(codes, weights=row) for row in by_image])
    drawn = []
    for _ in range(DRAWS):
        rows = rng.integers(0, len(counts), len(counts))
        values = sums[:, rows].sum(axis=1) / counts[rows].sum() + spread * rng.standard_normal(len(spread))
        drawn.append(inverse(images, values[:-1], values[-1]))
    ordered = np.sort(drawn)
    low, high = ordered[int(0.025 * DRAWS)], ordered[math.ceil(0.975 * DRAWS) - 1]
    if low == 0 and math.isinf(high):
        return Equal(math.nan, 0.0, math.inf, "flat")
    bound = "above" if math.isinf(best) else "below" if best == 0 else ""
    return Equal(best, float(min(low, best)), float(max(high, best)), bound)
