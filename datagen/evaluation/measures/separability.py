"""Whether a classifier can tell synthetic from unseen real images by their features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping

import numpy as np

from datagen import seeds
from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import drawing, wording
from datagen.evaluation.measures.downstream import ends
from datagen.records import Finding

LIMIT = 10_000
EACH = 5_000
"""images of each side that are told apart"""
FOLDS = 5
FEWEST = 50

_KEYS = {
    "accuracy": "share of images, half of them synthetic, that a logistic regression told right without having seen them",
    **wording.documented("accuracy", wording.share_keys("0.5 is chance")),
    "z": "(2 accuracy - 1) sqrt(images): standard normal where the two sets are alike",
    "floor": "the same accuracy for real training images against unseen real ones; above 0.5 where the recogniser knows what it was trained on",
    **wording.documented("floor", wording.share_keys("0.5 is chance")),
    "floor_z": "the same of the floor",
    "images": "told apart, synthetic and real together, as many of each class from both",
    "floor_images": "the same of the floor",
    "departs": "whether accuracy lies above 0.5 and above the floor by more than chance",
}


class Separability:
    """How well a linear classifier tells synthetic from unseen real images: a two-sample test."""

    keys: Mapping[str, str] = wording.documented("separability_*", _KEYS)

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield "separability ENCODER" for each encoder (Lopez-Paz & Oquab 2017, arXiv 1610.06545, section 3)."""
        for encoder in context.encoders:
            yield _finding(context, encoder)


def _finding(context: Context, encoder: str) -> Finding:
    sides = {part: context.features(part, LIMIT, encoder) for part in ("real", "test", "synthetic")}
    labels = {part: getattr(context, part).labels[context.rows(part, LIMIT)] for part in sides}
    pairs = {part: drawing.shared(labels["test"], labels[part], EACH, context.seed) for part in ("synthetic", "real")}
    fewest = min(len(rows[0]) for rows in pairs.values())
    if fewest < FEWEST:
        return wording.unmeasured(f"separability {encoder}", f"{fewest} images on each side are too few, {FEWEST} are needed", images=2 * fewest)
    correct = {part: told(sides["test"][rows[0]], sides[part][rows[1]], context.seed) for part, rows in pairs.items()}
    found, floor = (statistics.wilson(float(correct[part].mean()), len(correct[part])) for part in ("synthetic", "real"))
    z, floor_z = (z_of(correct[part]) for part in ("synthetic", "real"))
    error = math.hypot(*(math.sqrt(side.mean * (1 - side.mean) / len(correct[part])) for side, part in ((found, "synthetic"), (floor, "real"))))
    departs = z > statistics.Z and found.mean - max(floor.mean, 0.5) > statistics.Z * error
    word = "can" if departs else "cannot"
    sentence = (
        f"By the features of {encoder!r} a linear classifier {word} tell synthetic from unseen real images beyond chance: {100 * found.mean:.1f} % right "
        f"(z = {z:.1f}; 50 % is chance), {100 * floor.mean:.1f} % for real training against unseen real images."
    )
    details = {"accuracy": ends(found), "z": wording.number(z), "floor": ends(floor), "floor_z": wording.number(floor_z), "departs": bool(departs)}
    details |= {"images": len(correct["synthetic"]), "floor_images": len(correct["real"])}
    return Finding(f"separability {encoder}", found.mean, found.low, found.high, sentence, details)


def z_of(correct: np.ndarray) -> float:
    """Return (2 a - 1) sqrt(n) for the accuracy a over correct bool [n]: standard normal by chance (Lopez-Paz & Oquab 2017, section 3.1)."""
    return (2 * float(correct.mean()) - 1) * math.sqrt(len(correct))


def told(one: np.ndarray, other: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return bool [N + M], which of features float [N, F] and [M, F] a logistic regression fitted to other images puts on the right side.

    Five folds, each judged by what was fitted to the four others; features standardised over those.

    Args:
        one, other: at least 5 rows each.
        seed: decides the folds.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([one, other]).astype(np.float64)
    y = np.repeat([0, 1], [len(one), len(other)])
    fold = np.concatenate([seeds.stream("fold", seed, side).permutation(len(part)) % FOLDS for side, part in enumerate((one, other))])
    correct = np.zeros(len(x), bool)
    for held in range(FOLDS):
        rest = fold != held
        mean, deviation = x[rest].mean(0), np.maximum(x[rest].std(0), 1e-6)
        model = LogisticRegression(C=0.1, max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((x[rest] - mean) / deviation, y[rest])
        correct[~rest] = model.predict((x[~rest] - mean) / deviation) == y[~rest]
    return correct
