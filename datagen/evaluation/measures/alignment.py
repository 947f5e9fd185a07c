"""Whether one image is another in disguise: what is left of it after the best mirror, shift, crop and change of brightness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from datagen.recogniser.search import SIDE, apply, descriptors, flattened, leading, luma, nearest, reduced

CROP = 0.95
"""side of the crop that is searched for among all known images, by the image's side"""
MOVES = tuple(
    [(1.0, 0.0, 0.0)]
    + [(1.0, float(down), float(right)) for down in range(-2, 3) for right in range(-2, 3) if (down, right) != (0, 0)]
    + [(side, down * (1 - side) * SIDE, right * (1 - side) * SIDE) for side in (CROP, 0.9) for down in (-0.5, 0, 0.5) for right in (-0.5, 0, 0.5)]
)
"""what is tried first: side of the crop, and how far its centre lies down and right of the image's"""
STEPS = ((0.02, 0.4), (0.01, 0.2), (0.005, 0.1))
"""of the search about the best of them: side of the crop, pixels"""
DEEP, REFINED = 6, 2
"""candidates that are tried under every move, and of them refined"""
BLOCK = 128


@dataclass(frozen=True)
class Aligned:
    """The known image that explains each query best, and what is then left.

    Attributes:
        row: int64 [N], of the known images.
        residual: float32 [N], root mean square of what is left of the query's luma, in grey levels (0 to 255) at 32 pixels or fewer.
        ratio: float32 [N], that by what the median of its other candidates leaves; near 0 for a copy, near 1 for an image of its own.
        move: float32 [N, 3], side of the crop, pixels (of 32) down and right.
        mirrored: bool [N], whether left and right are exchanged.
    """

    row: np.ndarray
    residual: np.ndarray
    ratio: np.ndarray
    move: np.ndarray
    mirrored: np.ndarray

    def name(self, place: int) -> str:
        """Return in words what makes the known image the query: "mirrored, crop of 95 %"."""
        side, down, right = (float(value) for value in self.move[place])
        parts = ["mirrored"] * bool(self.mirrored[place])
        if side < 0.985:
            parts.append(f"crop of {100 * side:.0f} %")
        elif max(abs(down), abs(right)) > 0.25:
            parts.append(f"shifted by {max(abs(down), abs(right)) / SIDE:.1%}".replace("%", " %"))
        return ", ".join(parts) or "as it is"


class Known:
    """Known images prepared for the search.

    Args:
        images: uint8 [M, H, W, C], array or memory map.
        features: float32 [M, F] of them, or None where pixels alone are searched.
    """

    def __init__(self, images: np.ndarray, features: np.ndarray | None = None) -> None:
        self.images, self.features = images, features
        found = descriptors(images)
        self.basis = leading(found)
        self.descriptors = found @ self.basis

    def candidates(self, queries: np.ndarray, features: np.ndarray | None = None, count: int = 16) -> np.ndarray:
        """Return int64 [N, K], rows that queries uint8 [N, H, W, C] may stem from.

        These are the nearest by reduced pixels, of the query as it is, mirrored, and as it was before a crop, and half as many by features [N, F].
        """
        variants = [descriptors(variant) @ self.basis for way in (queries, mirrored(queries)) for variant in _uncropped(reduced(way, SIDE))]
        found = nearest(variants, self.descriptors, count)
        if features is None or self.features is None:
            return found
        return np.concatenate([found, nearest([features], self.features, max(1, count // 2))], axis=1)

    def explain(self, queries: np.ndarray, features: np.ndarray | None = None) -> Aligned:
        """Return what explains each of queries uint8 [N, H, W, C] best; their features [N, F] widen the search."""
        return align(queries, self.images, self.candidates(queries, features))


def mirrored(images: np.ndarray) -> np.ndarray:
    """Return images [N, H, W, C] with left and right exchanged."""
    return images[:, :, ::-1]


def _sampling(side: np.ndarray, shift: np.ndarray, length: int) -> np.ndarray:
    """Return float32 [N, length, length]: along one axis a crop (side [N], its centre `shift` [N] pixels of 32 off) enlarged by linear interpolation."""
    middle = (length - 1) / 2
    at = (np.arange(length) - middle) * side[:, None] + middle + shift[:, None] * length / SIDE
    at = np.clip(at, 0, length - 1)
    found: np.ndarray = np.maximum(0, 1 - np.abs(at[:, :, None] - np.arange(length))).astype(np.float32)
    return found


def _moved(images: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return images float32 [N, H, W, C] under moves [N, 3], or [1, 3] for all."""
    rows, columns = (_sampling(moves[:, 0], moves[:, i + 1], images.shape[i + 1]) for i in (0, 1))
    return apply(images, rows[0], columns[0]) if len(moves) == 1 else apply(images, rows, columns)


def _uncropped(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield images [N, H, W, C] as they are, and as they were before a crop of 95 % in the middle or in a corner (edges repeated)."""
    yield images
    reach = 0.5 * (1 - CROP) * SIDE
    for down, right in ((0, 0), (-reach, -reach), (-reach, reach), (reach, -reach), (reach, reach)):
        yield _moved(images, np.array([[1 / CROP, -down / CROP, -right / CROP]]))


def align(queries: np.ndarray, known: np.ndarray, candidates: np.ndarray) -> Aligned:
    """Return the candidate that explains each query best.

    Candidates are ranked as they are, the best of them tried under every move, and the best of these refined. Brightness and
    contrast are free while ranking: a query q beside a candidate c leaves |q| sqrt(1 - r^2), r their correlation (above 0).
    What is left in the end is computed with that change clipped to 0 to 255, as images are. Colour is not looked at: it
    suffers most from JPEG.

    Args:
        queries: uint8 [N, H, W, C].
        known: uint8 [M, H, W, C].
        candidates: int64 [N, K], rows of `known`; a row may occur twice.
    """
    pieces = (slice(start, start + BLOCK) for start in range(0, len(candidates), BLOCK))
    parts = [_align_block(reduced(luma(queries[piece]), SIDE), known, candidates[piece]) for piece in pieces]
    empty = Aligned(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros((0, 3), np.float32), np.zeros(0, bool))
    return Aligned(**{field.name: np.concatenate([getattr(part, field.name) for part in [empty, *parts]]) for field in fields(Aligned)})


def _align_block(asked: np.ndarray, known: np.ndarray, rows: np.ndarray) -> Aligned:
    unique, place = np.unique(rows, return_inverse=True)
    small, place = reduced(luma(known[unique]), SIDE), place.reshape(rows.shape)
    ways = np.stack([asked, mirrored(asked)], axis=1)
    plain = _ranked(ways, small, place)
    order = np.argsort(-plain, axis=1, kind="stable")
    each = np.arange(len(rows))
    tried = [_best_move(ways, small[place[each, order[:, k]]]) for k in range(min(DEEP, rows.shape[1]))]
    ranks = np.argsort(-np.stack([found[0] for found in tried], axis=1), axis=1, kind="stable")
    chosen = None
    for rank in range(min(REFINED, len(tried))):
        k = ranks[:, rank]
        column = order[each, k]
        move, flip = (np.stack([found[i] for found in tried])[k, each] for i in (1, 2))
        found = _refined(ways[each, flip.astype(int)], small[place[each, column]], move)
        chosen = _better(chosen, (found[0], rows[each, column], found[1], flip))
    assert chosen is not None
    residual, row, move, flip = chosen
    usual = asked.reshape(len(asked), -1).std(1) * np.sqrt(1 - np.clip(_median_other(plain, rows, row), 0, 1) ** 2)
    return Aligned(row, residual, (residual / np.maximum(usual, 1e-3)).astype(np.float32), move.astype(np.float32), flip)


def _better(one: tuple[np.ndarray, ...] | None, other: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return, query by query, the tuple whose first entry [N] is smaller."""
    if one is None:
        return other
    less = other[0] < one[0]
    return tuple(np.where(less.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(one, other, strict=True))


def _median_other(plain: np.ndarray, rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return the median [N] of correlations [N, K] over candidates other than `row` [N]; 0 where there is no other."""
    others = np.where(rows == row[:, None], np.nan, plain)
    some = ~np.isnan(others).all(1)
    found = np.zeros(len(rows))
    found[some] = np.nanmedian(others[some], axis=1)
    return found


def _centred(images: np.ndarray) -> np.ndarray:
    """Return images [N, ...] as float32 [N, D] without their mean, of length 1 (0 for flat ones)."""
    flat = flattened(images)
    found: np.ndarray = flat / np.maximum(np.sqrt((flat**2).sum(1, keepdims=True)), 1e-3)
    return found


def _ranked(ways: np.ndarray, small: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return float32 [N, K], the best correlation of a query, either way and uncropped or not, with each candidate as it is."""
    best = np.zeros(place.shape, np.float32)
    variants = [_centred(variant) for way in (0, 1) for variant in _uncropped(ways[:, way])]
    for k in range(place.shape[1]):
        other = _centred(small[place[:, k]])
        for variant in variants:
            np.maximum(best[:, k], np.einsum("nd,nd->n", variant, other), out=best[:, k])
    return best


def _best_move(ways: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return correlation [N], move [N, 3] and whether mirrored [N] of the best of `MOVES` on images [N, H, W, C] beside queries [N, 2, H, W, C]."""
    count = len(images)
    both = np.stack([_centred(ways[:, 0]), _centred(ways[:, 1])], axis=1)
    best, number, flip = np.full(count, -1.0, np.float32), np.zeros(count, np.int64), np.zeros(count, bool)
    for i, move in enumerate(MOVES):
        found = np.einsum("nwd,nd->nw", both, _centred(_moved(images, np.array([move]))))
        value = found.max(1)
        better = value > best + 1e-6
        best[better], number[better], flip[better] = value[better], i, found.argmax(1)[better]
    return best, np.array(MOVES)[number], flip


def _refined(queries: np.ndarray, images: np.ndarray, move: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is left [N] and the move [N, 3] after a search about `move` that takes smaller and smaller steps along one axis at a time."""
    wanted, move = _centred(queries), move.copy()
    best = np.einsum("nd,nd->n", wanted, _centred(_moved(images, move)))
    for side, pixels in STEPS:
        for axis, step in ((0, side), (1, pixels), (2, pixels), (0, -side), (1, -pixels), (2, -pixels)):
            trial = move.copy()
            trial[:, axis] += step
            found = np.einsum("nd,nd->n", wanted, _centred(_moved(images, trial)))
            better = found > best + 1e-6
            best[better], move[better] = found[better], trial[better]
    return left(queries, _moved(images, move)), move


def left(queries: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return float32 [N], the root mean square of what is left of queries [N, ...] beside images [N, ...] of best brightness and contrast.

    Both on 0 to 255. The change (gain above 0) is fitted by least squares to all pixels, and to those of the query that are
    neither black nor white, then clipped to 0 to 255; the better of the two counts. Where the query has less contrast than
    the image, what is left is multiplied by what it lacks: a dull or blurred image would else be near to any other.
    """
    q, c = (part.reshape(len(part), -1) for part in (queries, images))
    free = (q > 0.5) & (q < 254.5)
    free |= free.mean(1, keepdims=True) < 0.1
    found = []
    for weight in (np.ones_like(q), free.astype(np.float32)):
        total = weight.sum(1, keepdims=True)
        mean_q, mean_c = (weight * q).sum(1, keepdims=True) / total, (weight * c).sum(1, keepdims=True) / total
        off = c - mean_c
        gain = np.maximum((weight * off * (q - mean_q)).sum(1, keepdims=True), 0) / np.maximum((weight * off**2).sum(1, keepdims=True), 1e-6)
        found.append(np.sqrt(((q - np.clip(gain * off + mean_q, 0, 255)) ** 2).mean(1)))
    lacking: np.ndarray = np.minimum(*found) * np.maximum(1, c.std(1) / np.maximum(q.std(1), 1e-3))
    return lacking
