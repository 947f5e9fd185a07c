"""Soft labels: between an image's class and the probabilities that a teacher gave it."""

from __future__ import annotations

import numpy as np

from datagen.errors import UsageError

WEIGHT = 0.5
"""of a teacher's probabilities unless something else is said: labels alone do better on large sets, probabilities on small ones, their mean on either"""


def checked(weight: float) -> float:
    """Return the weight of probabilities in soft labels; UsageError where it is not from 0 to 1."""
    if not 0 <= weight <= 1:
        raise UsageError(f"{weight!r} is not from 0 to 1", where="weight", hint="1 for the probabilities alone, 0.5 for the mean with the class")
    return float(weight)


def labels(probabilities: np.ndarray, classes: np.ndarray, weight: float = WEIGHT) -> np.ndarray:
    """Return soft labels float32 [N, K], rows that add up to 1, from the classes alone (weight 0) to the probabilities alone (1).

    Args:
        probabilities: float [N, K] of a teacher; as they are stored, in half precision, they do not quite add up to 1.
        classes: int64 [N], of the images.
        weight: of the probabilities.
    """
    given = np.asarray(probabilities, np.float32)
    found: np.ndarray = np.float32(weight) * given / np.maximum(given.sum(axis=1, keepdims=True), 1e-6)
    found[np.arange(len(found)), classes] += np.float32(1 - weight)
    return found
