"""Unseen real images that are near-duplicates of training images: the arms' accuracy with and without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures.downstream import NAMES, ends
from datagen.records import Finding

KEYS: Mapping[str, str] = {
    "leaks.checked": "unseen real images looked at beside every training image",
    "leaks.found": "of those, near-duplicates of a training image (score of at most 0.5, as in copies)",
    "leaks.rows": "their places among the unseen images, at most 1,000",
    "leaks.arms": "accuracy by arm without them; the same as above where there are none",
    "leaks.arms.*": "one arm's",
    "leaks.arms.*.mean": "fraction",
    "leaks.arms.*.low": "lower end of the 95 % interval",
    "leaks.arms.*.high": "upper end",
    "leaks.difference": "real + synthetic minus the arm to beat, without them",
    "leaks.difference.mean": "fraction",
    "leaks.difference.low": "lower end of its 95 % interval",
    "leaks.difference.high": "upper end",
    "leaks.departs": "whether there are any",
}
LISTED = 1000


def finding(context: Context, copies: np.ndarray, checked: int) -> Finding:
    """Return how the arms do without the unseen images that training images nearly equal (Barz & Denzler 2020, arXiv 1902.00423).

    Args:
        context: the experiment.
        copies: int64 [n], rows of unseen images that are near-duplicates of training images.
        checked: unseen images that were looked at.
    """
    keep = np.setdiff1d(np.arange(len(context.test)), copies)
    share = statistics.wilson(len(copies) / checked, checked)
    details = {"checked": checked, "found": len(copies), "rows": copies[:LISTED].tolist(), "departs": len(copies) > 0}
    sentence = f"{len(copies):,} of {checked:,} unseen real images checked are near-duplicates of training images"
    base = context.choice.base if context.choice.base in context.names() else "real"
    if not {"both", base} <= set(context.names()) or not len(keep):
        return Finding("leaks", share.mean, share.low, share.high, f"{sentence}.", {**details, "arms": {}, "difference": None})
    groups = None if context.groups is None else context.groups[keep]
    right = {arm: context.correct(arm)[:, keep] for arm in NAMES if arm in context.names()}
    right |= {arm: context.by_replicate(right[arm]) for arm in ("synthetic", "both") if arm in right}
    arms = {arm: statistics.accuracy(each, seed=context.seed, groups=groups) for arm, each in right.items()}
    one, other = (context.by_replicate(context.correct(arm)[:, keep]) for arm in ("both", base))
    difference = statistics.paired(one, other, seed=context.seed, groups=groups)
    if len(copies):
        mean, low, high = (statistics.points(value) for value in (difference.mean, difference.low, difference.high))
        sentence += f"; without them real + synthetic minus {NAMES[base]} is {mean} points ({low} to {high})"
    details |= {"arms": {arm: ends(found) for arm, found in arms.items()}, "difference": ends(difference)}
    return Finding("leaks", share.mean, share.low, share.high, f"{sentence}.", details)
