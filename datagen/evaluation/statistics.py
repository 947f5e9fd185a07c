"""Means with 95 % intervals over repeats and test images, for an arm, for a class and for the difference of two arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datagen import seeds

DRAWS = 2000
"""bootstrap draws"""
Z = 1.959964
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)
"""97.5 % quantiles of Student's t for 1 to 20 degrees of freedom"""
CELLS = 8_000_000
"""numbers of one piece of the bootstrap in memory"""


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2


def quantile_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t; beyond 20 degrees of freedom by two terms of its expansion about the normal one."""
    return T[freedom - 1] if freedom <= len(T) else Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)


def interval(values: np.ndarray, *, seed: int = 0, limits: tuple[float, float] = (-1.0, 1.0)) -> Interval:
    """Return the mean of values [repeats, test images] and its interval: the wider of two.

    One is a bootstrap (Efron 1979) that resamples test images and repeats, the other Student's t over the means of the
    repeats. For a paired difference of two arms the values are those of one arm minus those of the other, image by image.

    Args:
        values: float or bool [R, T]; a single repeat leaves the bootstrap over images alone.
        seed: decides the draws.
        limits: the interval is cut there.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    mean, repeats = float(values.mean()), len(values)
    low, high = bootstrap(values, seed=seed)
    if repeats > 1:
        reach = quantile_t(repeats - 1) * float(values.mean(axis=1).std(ddof=1)) / math.sqrt(repeats)
        if 2 * reach > high - low:
            low, high = mean - reach, mean + reach
    return Interval(mean, max(min(low, mean), limits[0]), min(max(high, mean), limits[1]))


def bootstrap(values: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of the mean of values [R, T] when rows and columns are drawn with replacement."""
    repeats, images = values.shape
    rng = seeds.stream("bootstrap", seed, repeats, images)
    means = np.empty(draws)
    piece = max(1, CELLS // images)
    for start in range(0, draws, piece):
        count = min(piece, draws - start)
        rows = rng.integers(0, images, (count, images))
        by_repeat = np.stack([repeat[rows].mean(axis=1) for repeat in values], axis=1)
        chosen = rng.integers(0, repeats, (count, repeats))
        means[start : start + count] = np.take_along_axis(by_repeat, chosen, axis=1).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def wilson(share: float, count: int) -> Interval:
    """Return a share of `count` images with its interval (Wilson 1927, JASA 22, p. 209); NaN where there is no image."""
    if count == 0:
        return Interval(math.nan, math.nan, math.nan)
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    reach = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return Interval(share, max(0.0, min(middle - reach, share)), min(1.0, max(middle + reach, share)))


def recalls(correct: np.ndarray, labels: np.ndarray, classes: int) -> list[Interval]:
    """Return each class's recall, its mean over the repeats, with Wilson's interval for its number of test images.

    Args:
        correct: bool [R, T].
        labels: int64 [T].
        classes: number of classes.
    """
    found = []
    for label in range(classes):
        members = labels == label
        found.append(wilson(float(correct[:, members].mean()) if members.any() else math.nan, int(members.sum())))
    return found


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return counts int64 [true class, predicted class], summed over the repeats of predictions int64 [R, T]."""
    pairs = np.broadcast_to(labels, predicted.shape) * classes + predicted
    return np.bincount(pairs.ravel(), minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class Verdict:
    """What the comparison of two arms says: kind (helps, none_seen, harms) and one sentence."""

    kind: str
    sentence: str


def points(value: float, *, sign: bool = True) -> str:
    """Return a difference of shares in points: +1.2, −0.4."""
    text = f"{100 * value:+.1f}" if sign else f"{100 * abs(value):.1f}"
    return text.replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def verdict(difference: Interval, before: float, after: float, *, images: int, repeats: int) -> Verdict:
    """Judge the difference of the accuracies of "both" (`after`) and "real" (`before`) on `images` unseen real images.

    It helps when the whole interval lies above zero, harms when it lies below, else no difference was seen.
    """
    span = f"95 % interval {points(difference.low)} to {points(difference.high)}"
    where = f"{images:,} unseen real images, {repeats} repeat{'s' if repeats > 1 else ''}"
    change = f"from {100 * before:.1f} % to {100 * after:.1f} %"
    if difference.low > 0:
        text = f"Adding these synthetic images to the real ones helps: accuracy rises by {points(difference.mean, sign=False)} points ({span}), {change}"
        return Verdict("helps", f"{text} ({where}).")
    if difference.high < 0:
        text = f"Adding these synthetic images to the real ones harms: accuracy falls by {points(difference.mean, sign=False)} points ({span}), {change}"
        return Verdict("harms", f"{text} ({where}).")
    text = f"Adding these synthetic images to the real ones makes no difference that was seen: {points(difference.mean)} points ({span}), {change}"
    return Verdict("none_seen", f"{text} ({where}); only a difference of about {points(difference.half, sign=False)} points or more could have been seen.")
