"""Kernel and Frechet distance of synthetic from unseen real images, with their errors, beside what real images have among themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from datagen import seeds
from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import drawing, wording
from datagen.records import Finding

LIMIT = 10_000
GROUPS = 10
"""parts that the jackknife leaves out in turn"""
PARTS = (1, 2, 3, 4, 5)
"""the Frechet distance is extrapolated from N, N/2, N/3, N/4 and N/5 images"""
DIMENSION, PER_DIMENSION = 256, 20
"""most leading components of the features for the Frechet distance, and images that each of them asks for"""
FEWEST = 40
"""images in each half; with fewer no distance is computed"""

Distance = Callable[[np.ndarray, np.ndarray], tuple[float, float]]
_KEYS = {
    "value": "distance of synthetic images from one half of the unseen real images; may lie below zero",
    "error": "its standard error (jackknife over ten parts)",
    "low": "lower end of its 95 % interval",
    "high": "upper end",
    "floor": "the same distance of the other half of the unseen real images: what real images have among themselves; 0 in expectation",
    "floor_error": "its standard error",
    "images": "images on each side, classes as in the unseen real images",
    "features": "features an image",
    "departs": "whether value minus floor is more than 1.96 times its standard error",
}
_FRECHET = {
    "components": "leading components of the unseen real images' features in which the distance was computed",
    "uncorrected": "the distance of the synthetic images at N as it is, before the extrapolation; it grows as N shrinks",
    "floor_uncorrected": "the same of the floor",
    "sizes": "the numbers of images that the extrapolation uses",
}


class Fidelity:
    """How far synthetic images lie from unseen real ones in features, by kernel and by Frechet distance, beside the real-against-real floor."""

    keys: Mapping[str, str] = {**wording.documented("fidelity_kernel_*", _KEYS), **wording.documented("fidelity_frechet_*", _KEYS | _FRECHET)}

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield "fidelity kernel ENCODER" and "fidelity frechet ENCODER" for each encoder.

        The unseen real images are halved at random, class by class. One half is compared with as many synthetic images of
        the same classes, and with the other half; so both figures have one N.
        """
        for encoder in context.encoders:
            yield from _both(context, encoder)


def _both(context: Context, encoder: str) -> Iterator[Finding]:
    names = [f"fidelity {kind} {encoder}" for kind in ("kernel", "frechet")]
    known, made = (getattr(context, part).labels[context.rows(part, LIMIT)] for part in ("test", "synthetic"))
    one, other = drawing.halves(known, context.seed)
    size = min(len(one), len(made))
    if size < FEWEST:
        yield from (wording.unmeasured(name, f"{size} images in each half are too few, {FEWEST} are needed", images=size) for name in names)
        return
    shares = drawing.shares(known, len(context.classes))
    one, other = (rows[drawing.like(known[rows], shares, size, context.seed, i)] for i, rows in enumerate((one, other)))
    drawn = drawing.like(made, shares, size, context.seed, 2)
    real = context.features("test", LIMIT, encoder)
    sides = [real[one].astype(np.float64), real[other].astype(np.float64), context.features("synthetic", LIMIT, encoder)[drawn].astype(np.float64)]
    yield _finding(names[0], sides, kernel_error, {"images": size, "features": real.shape[1]})
    components = max(2, min(real.shape[1], DIMENSION, size // PER_DIMENSION))
    basis = leading(real.astype(np.float64), components)
    extra = {"components": basis.shape[1], "sizes": [size // part for part in PARTS]}
    short = [side @ basis for side in sides]
    extra |= {"uncorrected": wording.number(frechet(short[0], short[2])), "floor_uncorrected": wording.number(frechet(short[0], short[1]))}
    yield _finding(names[1], short, frechet_error, {"images": size, "features": real.shape[1], **extra})


def _finding(name: str, sides: list[np.ndarray], distance: Distance, details: Mapping[str, Any]) -> Finding:
    (value, error), (floor, floor_error) = distance(sides[0], sides[2]), distance(sides[0], sides[1])
    found = wording.around(value, error)
    above = value - floor > statistics.Z * math.hypot(error, floor_error)
    _, kind, encoder = name.split(" ", 2)
    word = "farther from unseen real ones than those are" if above else "no farther from unseen real ones than those are"
    sentence = (
        f"By {kind} distance in the features of {encoder!r} synthetic images lie {word} from each other: {value:.3g} (95 % interval "
        f"{found['low']:.3g} to {found['high']:.3g}), floor {floor:.3g} (±{statistics.Z * floor_error:.2g}); N = {details['images']:,} on each side."
    )
    details = {**found, "floor": wording.number(floor), "floor_error": wording.number(floor_error), **details, "departs": bool(above)}
    reach = statistics.Z * error
    return Finding(name, value, value - reach, value + reach, sentence, details)


def leading(features: np.ndarray, components: int) -> np.ndarray:
    """Return float64 [F, K], orthonormal, the K leading principal directions of features float64 [N, F]; all, unturned, where K is at least F."""
    if components >= features.shape[1]:
        return np.eye(features.shape[1])
    found: np.ndarray = np.linalg.eigh(np.cov(features, rowvar=False))[1][:, ::-1][:, :components]
    return found


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Return the squared Frechet distance, at least 0, of the normal distributions fitted to features float64 [N, F] and [M, F].

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Dowson & Landau 1982, J. Multivar. Anal. 12, eq. 4); the trace of the root is
    the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which has the same eigenvalues and is symmetric.
    """
    first, second = np.atleast_2d(np.cov(one, rowvar=False)), np.atleast_2d(np.cov(other, rowvar=False))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    apart = one.mean(axis=0) - other.mean(axis=0)
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * shared)


def frechet_infinite(one: np.ndarray, other: np.ndarray, kept: np.ndarray | None = None) -> float:
    """Return the Frechet distance extrapolated to endless images: the intercept of a line in 1/N (Chong & Forsyth 2020, arXiv 1911.07023, eq. 4).

    It may lie below zero. The points are N, N/2, N/3, N/4 and N/5 images; each is the mean over the blocks of so many
    images that the rows fall into, so that every point uses every image.

    Args:
        one, other: float64 [N, F] each, in random order; N / 5 above F.
        kept: rows that are used, bool [N]; blocks stay what they are without it.
    """
    kept = np.ones(len(one), bool) if kept is None else kept
    place, inverse, found = np.arange(len(one)), [], []
    for part in PARTS:
        blocks = [(place * part // len(one) == block) & kept for block in range(part)]
        found.append(np.mean([frechet(one[block], other[block]) for block in blocks]))
        inverse.append(part / kept.sum())
    return float(np.polyfit(inverse, found, 1)[1])


def jackknife(count: int, estimate: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Return an estimate and its standard error by leaving out every tenth row in turn (Shao & Wu 1989, Ann. Stat. 17, eq. 1.3).

    Args:
        count: rows, in random order.
        estimate: of the rows kept, bool [count].
    """
    values = [estimate(np.arange(count) % GROUPS != group) for group in range(GROUPS)]
    return estimate(np.ones(count, bool)), math.sqrt((GROUPS - 1) * float(np.var(values)))


def frechet_error(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the extrapolated Frechet distance of features float64 [N, F] each, rows mixed alike, and its standard error."""
    mixed = [side[seeds.stream("mixed", i, len(side)).permutation(len(side))] for i, side in enumerate((one, other))]
    return jackknife(len(one), lambda kept: frechet_infinite(mixed[0], mixed[1], kept))


def kernel(one: np.ndarray, other: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of features float64 [N, F] and [M, F] under k = (x.y / F + 1)^3.

    Gretton et al. 2012, JMLR 13, eq. 3, with the kernel of Binkowski et al. 2018 (arXiv 1801.01401), section 4; may be below zero.
    """
    return float(_within(one) + _within(other) - 2 * _cubic(one, other).mean())


def _cubic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    product: np.ndarray = one @ other.T / one.shape[1] + 1
    return product * product * product


def _within(one: np.ndarray) -> float:
    values = _cubic(one, one)
    return float((values.sum() - np.trace(values)) / (len(one) * (len(one) - 1)))


def kernel_error(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the kernel distance of features float64 [N, F] and [M, F] and its standard error by a jackknife over ten parts of both.

    The sums of the kernel over pairs of parts are computed once, so at most N/10 x M/10 values are in memory, and the value
    is that of `kernel`.
    """
    sides = [one, other]
    parts = [[side[group::GROUPS] for group in range(GROUPS)] for side in sides]
    sums = {(a, b): np.array([[_cubic(x, y).sum() for y in parts[b]] for x in parts[a]]) for a, b in ((0, 0), (1, 1), (0, 1))}
    traces = [np.array([(((x * x).sum(1) / x.shape[1] + 1) ** 3).sum() for x in side]) for side in parts]
    sizes = [np.array([len(x) for x in side]) for side in parts]

    def estimate(kept: np.ndarray) -> float:
        groups = np.flatnonzero(kept)
        counts = [size[groups].sum() for size in sizes]
        within = [(sums[a, a][np.ix_(groups, groups)].sum() - traces[a][groups].sum()) / (counts[a] * (counts[a] - 1)) for a in (0, 1)]
        return float(sum(within) - 2 * sums[0, 1][np.ix_(groups, groups)].sum() / (counts[0] * counts[1]))

    return jackknife(GROUPS, estimate)
