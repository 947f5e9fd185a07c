"""Which rows a measure compares: halves of one set and rows of two sets, classes in equal shares."""

from __future__ import annotations

import numpy as np

from datagen import seeds


def shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return float64 [classes], which part of labels int64 [N] each class is; 0 for those without any."""
    return np.bincount(labels, minlength=classes) / len(labels)


def like(labels: np.ndarray, shares: np.ndarray, size: int, *key: object) -> np.ndarray:
    """Return int64 [size], different rows whose classes have the given shares as far as there are rows; others fill what lacks.

    Args:
        labels: int64 [N], N at least `size`.
        shares: float [classes], sum 1.
        size: rows wanted.
        key: decides the draw.
    """
    order = seeds.stream("like", *key).permutation(len(labels))
    wanted = np.diff(np.floor(np.cumsum(shares) * size + 0.5).astype(np.int64), prepend=0)
    first = _rank(labels[order]) < wanted[labels[order]]
    return np.concatenate([order[first], order[~first]])[:size]


def halves(labels: np.ndarray, *key: object) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of two halves of labels int64 [N], int64 [N // 2] each, drawn at random; a class's counts differ by one at most."""
    order = seeds.stream("halves", *key).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    size = len(labels) // 2
    return order[0 : 2 * size : 2], order[1 : 2 * size : 2]


def shared(one: np.ndarray, other: np.ndarray, limit: int, *key: object) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of two sets, as many of each class from both: the most there are, at most about `limit` in all from each.

    Args:
        one, other: labels int64 [N] and [M].
        limit: rows wanted from each.
        key: decides the draw.
    """
    classes = int(max(one.max(initial=-1), other.max(initial=-1))) + 1
    counts = np.minimum(*(np.bincount(labels, minlength=classes) for labels in (one, other)))
    if counts.sum() > limit:
        counts = np.floor(counts * (limit / counts.sum()) + 0.5).astype(np.int64)
    found = []
    for side, labels in enumerate((one, other)):
        order = seeds.stream("shared", side, *key).permutation(len(labels))
        found.append(order[_rank(labels[order]) < counts[labels[order]]])
    return found[0], found[1]


def _rank(labels: np.ndarray) -> np.ndarray:
    """Return int64 [N], how many earlier rows have the same label."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, np.diff(starts, append=len(labels)))
    return rank
