"""One class in focus: its recall at equal false alarms, and whether blur alone turns other images into it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from datagen.evaluation import statistics
from datagen.evaluation.statistics import Interval
from datagen.records import ArmResult

TURNED = 0.02
"""share of other images that must turn, beyond what the real arm shows, before a shortcut is suspected"""


def blurred(images: np.ndarray) -> np.ndarray:
    """Return images uint8 [N, H, W, C] halved by means over 2x2 pixels and enlarged again, as a generator that lacks detail gives them."""
    parts = []
    for start in range(0, max(len(images), 1), 1024):
        x = torch.from_numpy(np.array(images[start : start + 1024])).permute(0, 3, 1, 2).float()
        small = F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True, recompute_scale_factor=False)
        back = F.interpolate(small, x.shape[2:], mode="bilinear")
        parts.append(back.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def alarms(result: ArmResult, labels: np.ndarray, label: int) -> float:
    """Return the share of the images of other classes int64 [T] that a recogniser names as the class."""
    others = labels != label
    return float((result.predicted[others] == label).mean()) if others.any() else 0.0


def found_at(scores: np.ndarray, labels: np.ndarray, label: int, rate: float) -> np.ndarray:
    """Return bool [n], which images of the class score above the threshold that lets this share of other images through.

    Args:
        scores: float [T], the probability of the class.
        labels: int64 [T].
        label: the class.
        rate: false alarms allowed, a fraction; the threshold is the largest score that keeps to it.
    """
    others = np.sort(scores[labels != label])[::-1]
    allowed = int(np.floor(rate * len(others) + 1e-9))
    threshold = others[allowed] if allowed < len(others) else -np.inf
    found: np.ndarray = scores[labels == label] > threshold
    return found


def recalls(real: Sequence[ArmResult], arm: Sequence[ArmResult], labels: np.ndarray, label: int) -> np.ndarray:
    """Return bool [repeats, n], which images of the class each repeat of an arm finds at the false alarms of the real arm's same repeat."""
    rows = []
    for base, other in zip(real, arm, strict=True):
        assert other.scores is not None
        rows.append(found_at(other.scores, labels, label, alarms(base, labels, label)))
    return np.stack(rows)


def turned(arm: Sequence[ArmResult], labels: np.ndarray, label: int) -> np.ndarray:
    """Return float [repeats, others], 1 where an image of another class is named as the class only once it is blurred."""
    others = labels != label
    rows = []
    for result in arm:
        assert result.blurred is not None
        rows.append((result.blurred[others] == label) & (result.predicted[others] != label))
    return np.stack(rows).astype(np.float64)


def shortcut(real: Sequence[ArmResult], both: Sequence[ArmResult], labels: np.ndarray, label: int, *, seed: int = 0) -> tuple[Interval, bool]:
    """Return how many more images of other classes blur turns into the class with synthetic images than without, and whether that is a shortcut.

    A warning must not wait for many repeats: the interval is the bootstrap's over images and repeats alone.

    Args:
        real, both: the repeats of the two arms, equally many.
        labels: int64 [T].
        label: the class in focus.
        seed: decides the bootstrap's draws.
    """
    values = turned(both, labels, label) - turned(real, labels, label)
    found = Interval(float(values.mean()), *statistics.bootstrap(values, seed=seed))
    return found, found.low > 0 and found.mean >= TURNED
