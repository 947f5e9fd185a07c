"""How well the recogniser of each arm does on unseen real images, and what one arm is better than another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.arms import ARMS
from datagen.evaluation.experiment import Context
from datagen.evaluation.statistics import Interval
from datagen.records import Finding

MATRIX = 100
"""with more classes the matrix of confusions is left out"""
CONFUSED = 20
DIFFERENCES = (("both", "real"), ("synthetic", "real"))


class Downstream:
    """Accuracy and recall on unseen real images of the recogniser trained on each arm."""

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield one finding an arm, and one for both minus real and synthetic minus real."""
        present = {result.arm for result in context.arms}
        for arm in ARMS:
            if arm in present:
                yield _arm(context, arm)
        for better, base in DIFFERENCES:
            if {better, base} <= present:
                yield _difference(context, better, base)


def rounded(value: float) -> float | None:
    """Return a JSON number of six digits, None for NaN."""
    return None if math.isnan(value) else round(float(value), 6)


def ends(interval: Interval) -> dict[str, float | None]:
    """Return an interval as JSON: mean, low, high."""
    return {"mean": rounded(interval.mean), "low": rounded(interval.low), "high": rounded(interval.high)}


def _arm(context: Context, arm: str) -> Finding:
    correct, labels = context.correct(arm), context.test.labels
    accuracy = statistics.interval(correct, seed=context.seed, limits=(0.0, 1.0))
    counts = statistics.confusion(context.predicted(arm), labels, len(context.classes))
    results = [result for result in context.arms if result.arm == arm]
    recalls = statistics.recalls(correct, labels, len(context.classes))
    images = np.bincount(labels, minlength=len(context.classes))
    details: dict[str, Any] = {
        "accuracy": ends(accuracy),
        "repeats": [rounded(value) for value in correct.mean(axis=1)],
        "steps": results[0].steps,
        "images": results[0].images,
        "seconds": round(sum(result.seconds for result in results), 1),
        "per_class": [
            {"class": name, "images": int(n), "recall": rounded(r.mean), "low": rounded(r.low), "high": rounded(r.high)}
            for name, n, r in zip(context.classes, images, recalls, strict=True)
        ],
        "confusion": counts.tolist() if len(context.classes) <= MATRIX else None,
        "confused": _confused(counts, context.classes),
    }
    words = f"95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}"
    sentence = f"Trained on {_name(arm)}, the recogniser names {100 * accuracy.mean:.1f} % of {len(labels):,} unseen real images right ({words})."
    return Finding(f"downstream {arm}", accuracy.mean, accuracy.low, accuracy.high, sentence, details)


def _name(arm: str) -> str:
    return {"real": "real images", "synthetic": "synthetic images only", "both": "real + synthetic images"}[arm]


def _confused(counts: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the pairs of classes most often taken one for the other, as shares of the true class."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    totals = np.maximum(counts.sum(axis=1), 1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [{"class": classes[a], "taken_for": classes[b], "share": rounded(wrong[a, b] / totals[a])} for a, b in pairs if wrong[a, b]]


def _difference(context: Context, better: str, base: str) -> Finding:
    values = context.correct(better).astype(np.float64) - context.correct(base)
    found = statistics.interval(values, seed=context.seed)
    span = f"95 % interval {statistics.points(found.low)} to {statistics.points(found.high)}"
    sentence = f"{_name(better).capitalize()} minus real images: {statistics.points(found.mean)} points of accuracy ({span})."
    details: dict[str, Any] = dict(ends(found))
    if better == "both":
        before, after = (float(context.correct(arm).mean()) for arm in (base, better))
        judged = statistics.verdict(found, before, after, images=len(context.test), repeats=len(values))
        details |= {"kind": judged.kind, "verdict": judged.sentence}
    return Finding(f"downstream {better}-{base}", found.mean, found.low, found.high, sentence, details)
