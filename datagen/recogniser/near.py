"""64 numbers a training image, by which synthetic images that repeat one are found while they are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from datagen import tensors
from datagen.errors import ArtefactError
from datagen.recogniser.search import descriptors, leading

FILE = "reference.safetensors"
SIDE, NUMBERS = 16, 64
"""longest side of the images that the numbers are computed from, and how many numbers"""
ALARMS = 0.001
"""share of unseen real images that may be taken for copies"""
STEEPNESS = 6.0
"""the share of images below a small score grows at least with this power of it: below 1,000 unseen images the limit is lowered by that"""
TWINS = 0.1
"""share of the median score of unseen images below which one is taken for a copy of a training image itself: by that power one in a million is so near"""
EVEN = 0.5
"""share of the root mean square distance to the class's training images from which on an image repeats none of them, being about as far from all"""
FITTED = 5_000
"""training images that the directions are learnt from"""
BLOCK = 512
CELLS = 1 << 25
"""distances that are in memory at a time"""
LOOKED_AT = 10_000
"""unseen images that the limit is taken from, at most"""


@dataclass(frozen=True)
class Reference:
    """The training images as numbers.

    Attributes:
        basis: float32 [D, K], directions of the described images, K at most 64.
        numbers: float32 [N, K], the training images.
        labels: int64 [N].
        limit: score below which an image is a near-copy.
    """

    basis: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    limit: float
    _of: dict[int, np.ndarray] = field(default_factory=dict)

    def look(self, images: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the distance float32 [N] to the nearest training image of the class, and the score float32 [N] that tells near-copies.

        The score is the distance times its ratio to the distance of the second nearest: small where one training image is much
        nearer than all others. An image counts as it is or mirrored, whichever is nearer; brightness and contrast do not count.

        Args:
            images: uint8 [N, H, W, C].
            label: their class; one without training images has distance and score infinite.
        """
        first, second, _ = self._near(images, label)
        return first, _scores(first, second)

    def copies(self, images: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances of `look` and, bool [N], which images are near-copies of training images.

        Where the images of a class hardly differ, a smooth one lies near all of them and repeats none: the nearest must also be
        no farther than half the root mean square distance to all.
        """
        first, second, typical = self._near(images, label)
        return first, (_scores(first, second) < self.limit) & (first <= EVEN * typical)

    def _near(self, images: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return float32 [N] each, distances to the nearest and second nearest training image, and the root mean square of those to all."""
        if label not in self._of:
            self._of[label] = np.ascontiguousarray(self.numbers[self.labels == label])
        known = self._of[label]
        if not len(known):
            nothing = np.full(len(images), np.inf, np.float32)
            return nothing, nothing, nothing
        both = [_apart(descriptors(view, SIDE) @ self.basis, known) for view in (images, images[:, :, ::-1])]
        first, second, typical = np.where(both[1][:, :1] < both[0][:, :1], both[1], both[0]).T
        return first, second, typical


def _scores(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the scores of `look` from the distances to the nearest and the second nearest."""
    return first * first / np.clip(second, 1e-6, np.finfo(np.float32).max)


def _apart(queries: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return float32 [N, 3], the distances of queries [N, K] to the nearest and the second nearest of known [M, K], and the root mean square of all.

    With one known alone the second is as near and the third infinite.
    """
    piece, found = max(1, CELLS // len(known)), [np.zeros((0, 3), np.float32)]
    for some in (queries[start : start + piece] for start in range(0, len(queries), piece)):
        squares = (some**2).sum(1)[:, None] + (known**2).sum(1) - 2 * some @ known.T
        least = np.sort(np.partition(squares, 1, axis=1)[:, :2], axis=1) if len(known) > 1 else squares[:, [0, 0]]
        mean = squares.mean(1, keepdims=True) if len(known) > 1 else np.full_like(squares, np.inf)
        found.append(np.sqrt(np.maximum(np.concatenate([least, mean], axis=1), 0)).astype(np.float32))
    return np.concatenate(found)


def build(images: np.ndarray, labels: np.ndarray, train: np.ndarray, unseen: np.ndarray) -> Reference:
    """Return the reference of training images, with a limit below which at most 0.1 % of unseen real images lie.

    Args:
        images: uint8 [N, H, W, C], an array or a memory map.
        labels: int64 [N].
        train: int64 [T], the rows of the training images.
        unseen: int64 [U], rows of real images that are none of them; the fewer, the lower the limit, 0 without any.
    """
    some = train[np.unique(np.linspace(0, len(train) - 1, min(FITTED, len(train))).astype(np.int64))]
    basis = leading(np.concatenate(list(_blocks(images, some))), NUMBERS)
    numbers = np.concatenate([block @ basis for block in _blocks(images, train)])
    found = Reference(basis, numbers, labels[train].astype(np.int64), 0.0)
    if len(unseen) > LOOKED_AT:
        unseen = unseen[np.argsort(labels[unseen], kind="stable")][np.linspace(0, len(unseen) - 1, LOOKED_AT).astype(np.int64)]
    scores = [found.look(images[rows], int(k))[1] for k in np.unique(labels[unseen]) for rows in _pieces(unseen[labels[unseen] == k])]
    return replace(found, limit=_limit(np.concatenate(scores) if scores else np.zeros(0)))


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def _blocks(images: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    return (descriptors(images[piece], SIDE) for piece in _pieces(rows))


def _limit(scores: np.ndarray) -> float:
    """Return a score that one in a thousand unseen images stays below; of fewer than a thousand it is guessed from the least.

    Unseen images that nearly repeat a training image, as frames of one burst do, say nothing of how near others come: they are left out.
    """
    if not len(scores):
        return 0.0
    scores = scores[scores >= TWINS * np.median(scores)]
    if len(scores) * ALARMS >= 1:
        return float(np.sort(scores)[int(len(scores) * ALARMS)])
    return float(scores.min() * (len(scores) * ALARMS) ** (1 / STEEPNESS))


def pack(reference: Reference) -> bytes:
    """Return a reference as safetensors; equal numbers give equal bytes."""
    from safetensors.numpy import save

    named = {"basis": reference.basis, "numbers": reference.numbers, "labels": reference.labels, "limit": np.array([reference.limit], np.float64)}
    return bytes(save({name: np.ascontiguousarray(value) for name, value in named.items()}))


def unpack(content: bytes, shape: tuple[int, int, int], where: object) -> Reference:
    """Return the reference that `pack` wrote.

    Args:
        content: of the file.
        shape: channels, height, width of the images.
        where: named by errors.

    Raises:
        ArtefactError: it is no safetensors, or its tensors are missing, of other shapes, or no finite numbers.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    tensors.shapes(content, where)
    try:
        found = load(content)
        basis, numbers, labels, limit = (found[name] for name in ("basis", "numbers", "labels", "limit"))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ArtefactError("is no reference of training images", where=where) from error
    size = descriptors(np.zeros((1, shape[1], shape[2], shape[0]), np.uint8), SIDE).shape[1]
    fits = basis.ndim == numbers.ndim == 2 and basis.shape == (size, numbers.shape[1]) and labels.shape == numbers.shape[:1] and limit.shape == (1,)
    if not fits or not all(np.isfinite(each).all() for each in found.values()):
        raise ArtefactError("does not fit the generator's images", where=where)
    return Reference(basis, numbers, labels, float(limit[0]))
