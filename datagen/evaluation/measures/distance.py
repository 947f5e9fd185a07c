"""Frechet and kernel distance between synthetic and unseen real images, beside what real images have among themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from datagen import seeds
from datagen.evaluation.experiment import Context
from datagen.records import Finding

LIMIT = 10_000
SPLITS = 10
BLOCK = 500
FEWEST = 8
"""images in each half; with fewer no distance is computed"""


class Distance:
    """Frechet distance and unbiased kernel distance in a recogniser's features, each beside its real-against-real floor."""

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield the finding "distance frechet" and the finding "distance kernel".

        The unseen real images are halved at random, ten times; each time one half is compared with the other (the floor)
        and with as many synthetic images, drawn in the real classes' proportions. So both figures have one N and one bias.
        """
        real = context.features("test", LIMIT).astype(np.float64)
        synthetic = context.features("synthetic", LIMIT).astype(np.float64)
        labels = context.synthetic.labels[context.rows("synthetic", LIMIT)]
        shares = np.bincount(context.real.labels, minlength=len(context.classes)) / len(context.real)
        size = min(len(real) // 2, len(synthetic))
        for name, distance in {"frechet": frechet, "kernel": kernel_blocks}.items():
            if size < FEWEST:
                yield _none(name, size)
                continue
            pairs = []
            for split in range(SPLITS):
                order = seeds.stream("halves", context.seed, split).permutation(len(real))
                one, other = real[order[:size]], real[order[size : 2 * size]]
                drawn = synthetic[like(labels, shares, size, context.seed, split)]
                pairs.append((distance(one, other), distance(one, drawn)))
            yield _finding(name, np.array(pairs), size, real.shape[1])


def _none(name: str, size: int) -> Finding:
    sentence = f"The {name} distance was not computed: {size} images in each half are too few."
    return Finding(f"distance {name}", math.nan, math.nan, math.nan, sentence, {"images": size})


def _finding(name: str, pairs: np.ndarray, size: int, dimension: int) -> Finding:
    (floor, value), deviation = pairs.mean(axis=0), pairs.std(axis=0, ddof=1)
    low, high = np.quantile(pairs[:, 1], [0.025, 0.975])
    above = value - floor
    word = "no farther" if above <= 2 * deviation[0] else "farther"
    sentence = (
        f"By {name} distance synthetic images lie {word} from unseen real ones than those among themselves: "
        f"{value:.3g} beside a floor of {floor:.3g} (N = {size:,} on each side, {dimension} features; not FID)."
    )
    details = {
        "value": float(value),
        "deviation": float(deviation[1]),
        "floor": float(floor),
        "floor_deviation": float(deviation[0]),
        "ratio": float(value / floor) if floor > 0 else None,
        "images": size,
        "dimension": dimension,
        "splits": len(pairs),
    }
    return Finding(f"distance {name}", float(value), min(float(low), float(value)), max(float(high), float(value)), sentence, details)


def like(labels: np.ndarray, shares: np.ndarray, size: int, *key: object) -> np.ndarray:
    """Return `size` different rows whose classes have the given shares as far as there are rows; others fill what lacks.

    Args:
        labels: int64 [N], N at least `size`.
        shares: float [classes], sum 1.
        size: rows wanted.
        key: decides the draw.
    """
    order = seeds.stream("like", *key).permutation(len(labels))
    wanted = np.floor(np.cumsum(shares) * size + 0.5).astype(np.int64)
    wanted = np.diff(wanted, prepend=0)
    sorted_labels = labels[order]
    rank = np.empty(len(labels), np.int64)
    for label in range(len(shares)):
        members = sorted_labels == label
        rank[members] = np.arange(members.sum())
    first = rank < wanted[sorted_labels]
    return np.concatenate([order[first], order[~first]])[:size]


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Return the squared Frechet distance of the normal distributions fitted to features float64 [N, F] and [M, F].

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Dowson & Landau 1982, eq. 4); the trace of the root is the sum of the roots
    of the eigenvalues of S1^(1/2) S2 S1^(1/2), which has the same eigenvalues and is symmetric.
    """
    first, second = np.atleast_2d(np.cov(one, rowvar=False)), np.atleast_2d(np.cov(other, rowvar=False))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    apart = one.mean(axis=0) - other.mean(axis=0)
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * shared)


def kernel(one: np.ndarray, other: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of features float64 [N, F] and [M, F] under k = (x.y / F + 1)^3.

    Gretton et al. 2012, eq. 3, with the kernel of Binkowski et al. 2018, section 4; may be below zero.
    """
    across = _cubic(one, other).mean()
    return float(_within(one) + _within(other) - 2 * across)


def _cubic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    product: np.ndarray = (one @ other.T / one.shape[1] + 1) ** 3
    return product


def _within(one: np.ndarray) -> float:
    values = _cubic(one, one)
    return float((values.sum() - np.trace(values)) / (len(one) * (len(one) - 1)))


def kernel_blocks(one: np.ndarray, other: np.ndarray, distance: Callable[[np.ndarray, np.ndarray], float] = kernel) -> float:
    """Return the mean kernel distance over blocks of at most 500 images of each side, so that memory stays small."""
    count = max(1, min(len(one), len(other)) // BLOCK)
    pieces = zip(np.array_split(one, count), np.array_split(other, count), strict=True)
    return float(np.mean([distance(a, b) for a, b in pieces]))
