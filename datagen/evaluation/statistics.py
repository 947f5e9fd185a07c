"""Means with 95 % intervals over repeats and test images, for an arm, for a class and for the difference of two arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from datagen import seeds

LEVEL = 0.95
DRAWS = 2000
"""bootstrap draws"""
Z = 1.959964
CELLS = 8_000_000
"""numbers of one piece of the bootstrap in memory"""
DISAGREE = 0.18
"""share of the images that two recognisers of one accuracy are expected to judge differently"""


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval (95 % unless something else is said)."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2


def quantile_t(freedom: int, level: float = LEVEL) -> float:
    """Return the quantile of Student's t that a two-sided interval of this level reaches to."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def visible(images: int) -> float:
    """Return the smallest difference of two arms, as a fraction, that so many test images can show (paired, 95 %): 1.96 sqrt(0.18 / n)."""
    return min(1.0, Z * math.sqrt(DISAGREE / max(1, images)))


def interval(
    values: np.ndarray, *, seed: int = 0, limits: tuple[float, float] = (-1.0, 1.0), groups: np.ndarray | None = None, level: float = LEVEL
) -> Interval:
    """Return the mean of values [repeats, test images] and its interval: the wider of two.

    One is a bootstrap (Efron 1979) that resamples test images and repeats, the other Student's t over the means of the
    repeats. For a paired difference of two arms the values are those of one arm minus those of the other, image by image.

    Args:
        values: float or bool [R, T]; a single repeat leaves the bootstrap over images alone.
        seed: decides the draws.
        limits: the interval is cut there.
        groups: [T], any values; images of one group are drawn together.
        level: of the interval.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    mean, repeats = float(values.mean()), len(values)
    low, high = bootstrap(values, seed=seed, groups=groups, level=level)
    if repeats > 1:
        reach = quantile_t(repeats - 1, level) * float(values.mean(axis=1).std(ddof=1)) / math.sqrt(repeats)
        if 2 * reach > high - low:
            low, high = mean - reach, mean + reach
    return Interval(mean, max(min(low, mean), limits[0]), min(max(high, mean), limits[1]))


def bootstrap(values: np.ndarray, *, seed: int = 0, draws: int = DRAWS, groups: np.ndarray | None = None, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of the percentile interval of the mean of values [R, T] when rows, and columns or groups of them, are drawn with replacement."""
    low, high = np.quantile(resampled(values, seed=seed, draws=draws, groups=groups), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled(values: np.ndarray, *, seed: int = 0, draws: int = DRAWS, groups: np.ndarray | None = None) -> np.ndarray:
    """Return float64 [draws], the means of values [R, T] when rows, and columns or groups of them, are drawn with replacement.

    A drawn group brings all its columns, so the mean of a draw is the sum over its groups by the number of their columns.
    """
    repeats, images = values.shape
    sums, sizes = _by_group(values, groups)
    units = sums.shape[1]
    rng = seeds.stream("bootstrap", seed, repeats, images)
    means = np.empty(draws)
    piece = max(1, CELLS // units)
    for start in range(0, draws, piece):
        count = min(piece, draws - start)
        rows = rng.integers(0, units, (count, units))
        totals = rows.shape[1] if sizes is None else sizes[rows].sum(axis=1)
        by_repeat = np.stack([repeat[rows].sum(axis=1) / totals for repeat in sums], axis=1)
        chosen = rng.integers(0, repeats, (count, repeats))
        means[start : start + count] = np.take_along_axis(by_repeat, chosen, axis=1).mean(axis=1)
    return means


def _by_group(values: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the sums [R, G] of values [R, T] over each group and the columns [G] in it; without groups the values themselves and None."""
    if groups is None:
        return values, None
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(codes)
    return np.stack([np.bincount(codes, weights=row, minlength=len(sizes)) for row in values]), sizes


def accuracy(correct: np.ndarray, *, seed: int = 0, groups: np.ndarray | None = None) -> Interval:
    """Return the share of images that an arm names right, with an interval that reaches as far as `interval` and `_two_more`: none is right for certain.

    Args:
        correct: bool [R, T].
        seed, groups: as for `interval`.
    """
    found = interval(correct, seed=seed, limits=(0.0, 1.0), groups=groups)
    low, high = _two_more(np.asarray(correct, np.float64), (0.0, 1.0), groups, LEVEL)
    return Interval(found.mean, max(0.0, min(found.low, low)), min(1.0, max(found.high, high)))


def paired(better: np.ndarray, base: np.ndarray, *, seed: int = 0, groups: np.ndarray | None = None, level: float = LEVEL) -> Interval:
    """Return the difference of two arms' accuracies, with an interval that reaches as far as `interval` and `_two_more`.

    So arms that differ in a handful of images, or in none, never get an interval without width.

    Args:
        better, base: bool [R, T], the same repeats and images, at least one.
        seed, groups, level: as for `interval`.
    """
    values = better.astype(np.float64) - base
    found = interval(values, seed=seed, groups=groups, level=level)
    low, high = _two_more(values, (-1.0, 1.0), groups, level)
    return Interval(found.mean, max(-1.0, min(found.low, low)), min(1.0, max(found.high, high)))


def _two_more(values: np.ndarray, extremes: tuple[float, float], groups: np.ndarray | None, level: float) -> tuple[float, float]:
    """Return the ends of the normal interval of the mean over images (or groups) when two more are added, one at each extreme.

    For one repeat and a difference that is Bonett & Price's interval (2012, J. Educ. Behav. Stat. 37), for a share Agresti & Caffo's
    (2000, Am. Stat. 54); with several repeats an image counts by its mean over them.
    """
    sums, _ = _by_group(values, groups)
    units = np.concatenate([sums.mean(axis=0) * sums.shape[1] / values.shape[1], extremes])
    reach = float(special.ndtri((1 + level) / 2)) * float(units.std()) / math.sqrt(len(units))
    return float(units.mean()) - reach, float(units.mean()) + reach


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
    """What the comparison of two arms says: kind (helps, none_seen, harms, unclear) and one sentence."""

    kind: str
    sentence: str


def points(value: float, *, sign: bool = True) -> str:
    """Return a difference of shares in points: +1.2, −0.4."""
    text = f"{100 * value:+.1f}" if sign else f"{100 * abs(value):.1f}"
    return text.replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def verdict(difference: Interval, before: float, after: float, *, base: str = "real images", images: int, repeats: int) -> Verdict:
    """Judge the difference of the accuracies of real + synthetic (`after`) and of the best arm without synthetic images (`before`).

    It helps when the whole interval lies above zero, harms when it lies below, else no difference was seen. One training of each arm
    leaves it unclear: two on the same images differ, too, and nothing says by how much.

    Args:
        difference: after minus before.
        before, after: accuracies, fractions.
        base: the arm without synthetic images in words.
        images: unseen real images tested on.
        repeats: of each arm.
    """
    span = f"95 % interval {points(difference.low)} to {points(difference.high)}"
    where = f"{images:,} unseen real images, {repeats} repeat{'s' if repeats > 1 else ''}"
    change = f"from {100 * before:.1f} % with {base} to {100 * after:.1f} %"
    if repeats == 1:
        text = "One training of each arm cannot tell whether these synthetic images help: two on the same images differ, too. This one changed by"
        return Verdict("unclear", f"{text} {points(difference.mean)} points ({span} over images alone), {change} ({where}).")
    if difference.low > 0:
        text = f"Adding these synthetic images to the real ones helps: accuracy rises by {points(difference.mean, sign=False)} points ({span}), {change}"
        return Verdict("helps", f"{text} ({where}).")
    if difference.high < 0:
        text = f"Adding these synthetic images to the real ones harms: accuracy falls by {points(difference.mean, sign=False)} points ({span}), {change}"
        return Verdict("harms", f"{text} ({where}).")
    text = f"Adding these synthetic images to the real ones makes no difference that was seen: {points(difference.mean)} points ({span}), {change}"
    return Verdict("none_seen", f"{text} ({where}); only a difference of about {points(difference.half, sign=False)} points or more could have been seen.")
