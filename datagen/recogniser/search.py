"""Rows of known images or features that lie nearest to a query, found by block matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

SIDE, COARSE = 32, 8
"""longest side of the images that are compared pixel by pixel, and of those that are searched"""
COMPONENTS = 64
"""principal components of the descriptors that are searched"""
CONTRAST = 4.0
"""grey levels added to an image's own contrast, so that a flat image is like no other"""
PIECE = 4096
"""images that are reduced at a time, whole blocks"""
BLOCK = 256
"""queries at a time: their distances to all known rows are in memory"""


@cache
def area(before: int, after: int) -> np.ndarray:
    """Return float32 [after, before], each row the share that every old pixel has in a new one."""
    edges = np.linspace(0, before, after + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cells = np.arange(before)
    overlap = np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, None)
    shares: np.ndarray = (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)
    return shares


def apply(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return float32 [N, h, w, C]: images float32 [N, H, W, C] with matrices for rows [h, H] and columns [w, W], or one of each an image [N, h, H]."""
    count, height, width, channels = images.shape
    lying = images.transpose(0, 3, 1, 2)
    if rows.ndim == 2:
        across = (lying.reshape(-1, width) @ columns.T).reshape(count, channels, height, len(columns))
    else:
        rows, across = rows[:, None], np.ascontiguousarray(lying) @ columns[:, None].transpose(0, 1, 3, 2)
    return (rows @ across).transpose(0, 2, 3, 1)


def luma(images: np.ndarray) -> np.ndarray:
    """Return float32 [N, H, W, 1], 0 to 255, of images uint8 [N, H, W, C]: ITU-R BT.601's of three channels, else their mean."""
    weights = np.array([0.299, 0.587, 0.114]) if images.shape[3] == 3 else np.full(images.shape[3], 1 / images.shape[3])
    found: np.ndarray = (images @ weights.astype(np.float32))[..., None]
    return found


def flattened(images: np.ndarray) -> np.ndarray:
    """Return images [N, ...] as [N, D] without their mean; N may be 0."""
    flat = images.reshape(len(images), int(np.prod(images.shape[1:])))
    found: np.ndarray = flat - flat.mean(1, keepdims=True)
    return found


def reduced(images: np.ndarray, side: int) -> np.ndarray:
    """Return float32 [N, h, w, C], h and w at most `side`, of images [N, H, W, C]: means over areas; small images stay as they are."""
    height, width = images.shape[1:3]
    shorter = max(1.0, max(height, width) / side)
    rows, columns = (area(length, max(1, round(length / shorter))) for length in (height, width))
    parts = [apply(images[start : start + BLOCK].astype(np.float32), rows, columns) for start in range(0, len(images), BLOCK)]
    return np.concatenate(parts) if parts else np.zeros((0, len(rows), len(columns), images.shape[3]), np.float32)


def descriptors(images: np.ndarray, side: int = COARSE) -> np.ndarray:
    """Return float32 [N, D] of images [N, H, W, C] with values 0 to 255: means over areas without their mean, of length 1 for all but flat images.

    Of two images that differ in brightness and contrast alone the descriptors are nearly equal; their product is the
    correlation of the two.
    """
    pieces = (images[start : start + PIECE] for start in range(0, max(1, len(images)), PIECE))
    return np.concatenate([_described(flattened(reduced(reduced(piece, SIDE), side))) for piece in pieces])


def _described(flat: np.ndarray) -> np.ndarray:
    found: np.ndarray = flat / np.sqrt((flat**2).sum(1, keepdims=True) + CONTRAST**2 * flat.shape[1])
    return found


def leading(vectors: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """Return float32 [D, K], the K leading directions of vectors [N, D] about zero; K is at most D."""
    moment = vectors.T.astype(np.float64) @ vectors
    found: np.ndarray = np.linalg.eigh(moment)[1][:, ::-1][:, :components].astype(np.float32)
    return found


def nearest(queries: Sequence[np.ndarray], known: np.ndarray, count: int) -> np.ndarray:
    """Return int64 [N, min(count, M)], the rows of known [M, D] at the smallest Euclidean distance of a query, in no order.

    Args:
        queries: variants of the same queries, each float32 [N, D]; a row counts by its nearest variant.
        known: float32 [M, D].
        count: rows wanted.
    """
    count, half = min(count, len(known)), 0.5 * (known**2).sum(1)
    found = np.empty((len(queries[0]), count), np.int64)
    for start in range(0, len(found), BLOCK):
        best = _running([variant[start : start + BLOCK] for variant in queries], known)
        best -= half
        found[start : start + BLOCK] = np.argpartition(-best, count - 1, axis=1)[:, :count]
    return found


def _running(pieces: Sequence[np.ndarray], known: np.ndarray) -> np.ndarray:
    """Return float32 [N, M], the largest of q.k - |q|^2 / 2 over the variants of a query, one product in memory at a time."""
    best = np.full((len(pieces[0]), len(known)), -np.inf, np.float32)
    product = np.empty_like(best)
    for piece in pieces:
        np.matmul(piece, known.T, out=product)
        product -= 0.5 * (piece**2).sum(1, keepdims=True)
        np.maximum(best, product, out=best)
    return best


def closest(queries: np.ndarray, known: np.ndarray, *, others: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of queries float [N, F] the Euclidean distance float64 [N] to, and the row int64 [N] of, the nearest of known float [M, F].

    The nearest are found by |q|^2 + |k|^2 - 2 q.k in blocks; the distance itself is then computed from the difference, so that it
    is zero for equal features.

    Args:
        queries, known: as said; known has a row at least, two with `others`.
        others: the queries are the known rows themselves, and none is its own neighbour.
    """
    rows = np.empty(len(queries), np.int64)
    known = known.astype(np.float64)
    norms = (known**2).sum(axis=1)
    for start in range(0, len(queries), BLOCK):
        apart = norms - 2 * queries[start : start + BLOCK].astype(np.float64) @ known.T
        if others:
            apart[np.arange(len(apart)), start + np.arange(len(apart))] = np.inf
        rows[start : start + BLOCK] = apart.argmin(axis=1)
    return np.sqrt(((queries.astype(np.float64) - known[rows]) ** 2).sum(axis=1)), rows
