"""How well the recogniser of each arm does on unseen real images, and what one arm is better than another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.statistics import Interval
from datagen.records import Finding

MATRIX = 100
"""with more classes the matrix of confusions is left out"""
CONFUSED = 20
NAMES: Mapping[str, str] = {
    "real": "real images",
    "classical": "real + classically augmented images",
    "weighted": "real images with class weights",
    "oversampled": "real images with the rarer classes oversampled",
    "synthetic": "synthetic images only",
    "both": "real + synthetic images",
    "native": "real images at their own size",
}
"""the arms of every report, in words, in their order"""
SOFT = ", by soft labels"


class Downstream:
    """Accuracy and recall on unseen real images of the recogniser trained on each arm."""

    keys: ClassVar[Mapping[str, str]] = {}

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield one finding an arm, and one for each difference: both minus every arm without synthetic images, synthetic minus real, native minus real."""
        present = [arm for arm in NAMES if arm in context.names()]
        for arm in present:
            yield _arm(context, arm)
        rivals = [arm for arm in present if arm not in {"synthetic", "both", "native"}]
        pairs = [("both", rival) for rival in rivals] + [("synthetic", "real"), ("classical", "real"), ("native", "real")]
        for better, base in pairs:
            if {better, base} <= set(present):
                yield _difference(context, better, base)


def rounded(value: float) -> float | None:
    """Return a JSON number of six digits, None for NaN."""
    return None if math.isnan(value) else round(float(value), 6)


def ends(interval: Interval) -> dict[str, float | None]:
    """Return an interval as JSON: mean, low, high."""
    return {"mean": rounded(interval.mean), "low": rounded(interval.low), "high": rounded(interval.high)}


def _arm(context: Context, arm: str) -> Finding:
    correct, labels = context.correct(arm), context.test.labels
    shown = context.by_replicate(correct) if arm in {"synthetic", "both"} else correct
    accuracy = statistics.accuracy(shown, seed=context.seed, groups=context.groups)
    counts = statistics.confusion(context.predicted(arm), labels, len(context.classes))
    results = context.results(arm)
    recalls = statistics.recalls(correct, labels, len(context.classes))
    images = np.bincount(labels, minlength=len(context.classes))
    details: dict[str, Any] = {
        "accuracy": ends(accuracy),
        "repeats": [rounded(value) for value in correct.mean(axis=1)],
        "steps": results[0].steps,
        "images": results[0].images,
        "labels": context.labelled(arm),
        "seconds": round(sum(result.seconds for result in results), 1),
        "per_class": [
            {"class": name, "images": int(n), "recall": rounded(r.mean), "low": rounded(r.low), "high": rounded(r.high)}
            for name, n, r in zip(context.classes, images, recalls, strict=True)
        ],
        "confusion": counts.tolist() if len(context.classes) <= MATRIX else None,
        "confused": _confused(counts, context.classes),
    }
    words = f"95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}"
    soft = SOFT if context.labelled(arm) == "soft" else ""
    sentence = f"Trained on {NAMES[arm]}{soft}, the recogniser names {100 * accuracy.mean:.1f} % of {len(labels):,} unseen real images right ({words})."
    return Finding(f"downstream {arm}", accuracy.mean, accuracy.low, accuracy.high, sentence, details)


def _confused(counts: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the pairs of classes most often taken one for the other, as shares of the true class."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    totals = np.maximum(counts.sum(axis=1), 1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [{"class": classes[a], "taken_for": classes[b], "share": rounded(wrong[a, b] / totals[a])} for a, b in pairs if wrong[a, b]]


def _difference(context: Context, better: str, base: str) -> Finding:
    repeats = min(len(context.results(better)), len(context.results(base)))
    one, other = context.correct(better)[:repeats], context.correct(base)[:repeats]
    if better in {"both", "synthetic"}:
        one, other = context.by_replicate(one), context.by_replicate(other)
    found = statistics.paired(one, other, seed=context.seed, groups=context.groups)
    span = f"95 % interval {statistics.points(found.low)} to {statistics.points(found.high)}"
    soft = SOFT + "," if context.labelled(better) == "soft" else ""
    sentence = f"{NAMES[better].capitalize()}{soft} minus {NAMES[base]}: {statistics.points(found.mean)} points of accuracy ({span})."
    details: dict[str, Any] = {**ends(found), "per_class": _by_class(context, one, other)}
    if better == "both":
        before, after = float(other.mean()), float(one.mean())
        judged = statistics.verdict(found, before, after, base=NAMES[base], images=len(context.test), repeats=repeats)
        details |= {"kind": judged.kind, "verdict": judged.sentence}
    return Finding(f"downstream {better}-{base}", found.mean, found.low, found.high, sentence, details)


def _by_class(context: Context, one: np.ndarray, other: np.ndarray) -> list[dict[str, Any]]:
    """Return the difference of two arms' recalls by class, with intervals corrected for the number of classes (Bonferroni)."""
    labels = context.test.labels
    rows: list[dict[str, Any]] = []
    present = len(np.unique(labels))
    for label, name in enumerate(context.classes):
        members = labels == label
        if not members.any():
            rows.append({"class": name, "mean": None, "low": None, "high": None, "visible": None})
            continue
        groups = None if context.groups is None else context.groups[members]
        found = statistics.paired(one[:, members], other[:, members], seed=context.seed, groups=groups, level=1 - (1 - statistics.LEVEL) / present)
        rows.append({"class": name, **ends(found), "visible": rounded(statistics.visible(int(members.sum())))})
    return rows
