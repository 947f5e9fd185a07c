"""How far a recogniser trained on real images agrees with the labels of the synthetic ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import wording
from datagen.evaluation.measures.downstream import ends, rounded
from datagen.evaluation.statistics import Interval
from datagen.records import Finding

LIMIT = 10_000
CONFUSED = 20
FEWEST = 20

_KEYS = {
    "agreement": "share of synthetic images that the recogniser gives the class they are labelled with",
    **wording.documented("agreement", wording.share_keys("agreeing by looked at")),
    "unseen": "the same of unseen real images, weighted to the synthetic images' classes",
    **wording.documented("unseen", wording.share_keys("agreeing by looked at, weighted")),
    "label_noise": "unseen minus agreement: wrong or unrecognisable synthetic labels beyond what the recogniser gets wrong in real images",
    "label_noise.mean": "fraction; below zero where synthetic images are easier than real ones",
    "label_noise.low": "lower end of the 95 % interval of a difference of two shares (Newcombe 1998, method 10)",
    "label_noise.high": "upper end",
    "images": "synthetic images looked at",
    "unseen_images": "unseen real images looked at",
    "per_class": "one row a class, in the order of the labels",
    "per_class.class": "name",
    "per_class.images": "synthetic images labelled so",
    "per_class.agreement": "share of them; null where there are none",
    "per_class.low": "lower end of Wilson's 95 % interval",
    "per_class.high": "upper end",
    "per_class.unseen": "the same share of unseen real images of the class",
    "per_class.label_noise": "unseen minus agreement of the class",
    "per_class.label_noise_low": "lower end of its interval, as for all",
    "per_class.label_noise_high": "upper end",
    "confused": "the pairs of classes most often taken one for the other, at most 20",
    "confused.class": "the label of the synthetic image",
    "confused.taken_for": "what the recogniser says",
    "confused.share": "share of the images of that label",
    "confused.unseen": "the same share among unseen real images; null where there are none of the class",
    "departs": "whether the interval of label_noise lies above zero",
}


class Agreement:
    """Agreement of the recogniser trained on real images with the labels of the synthetic ones, beside its own errors on unseen real ones."""

    keys: Mapping[str, str] = wording.documented("agreement", _KEYS)

    def measure(self, context: Context) -> Finding:
        """Return the share agreed upon (GAN-test: Shmelkov et al. 2018, arXiv 1807.09499, section 3), by class, and the label noise it speaks of.

        Collapsed or repeated images reach high agreement too: this measure says nothing about variety.
        """
        chances = [chance for part in ("synthetic", "test") if (chance := context.probabilities(part, LIMIT)) is not None]
        sizes = {"images": min(LIMIT, len(context.synthetic)), "unseen_images": min(LIMIT, len(context.test))}
        if len(chances) < 2:
            return wording.unmeasured("agreement", "no recogniser predicts classes", **sizes)
        if min(sizes.values()) < FEWEST:
            return wording.unmeasured("agreement", f"fewer than {FEWEST} synthetic or unseen real images", **sizes)
        made, unseen = (
            statistics.confusion(given.argmax(1)[None], getattr(context, part).labels[context.rows(part, LIMIT)], len(context.classes))
            for given, part in zip(chances, ("synthetic", "test"), strict=True)
        )
        found = statistics.wilson(float(np.trace(made) / made.sum()), int(made.sum()))
        known = weighted(unseen, made.sum(1))
        shared = unseen.sum(1) > 0
        agreed = statistics.wilson(float(np.diag(made)[shared].sum() / max(1, made[shared].sum())), int(made[shared].sum()))
        noise = difference(known, agreed)
        details: dict[str, Any] = {"agreement": ends(found), "unseen": ends(known), "label_noise": ends(noise), **sizes}
        details |= {"per_class": [_row(name, made, unseen, i) for i, name in enumerate(context.classes)]}
        details |= {"confused": _confused(made, unseen, context.classes), "departs": bool(noise.low > 0)}
        return Finding("agreement", found.mean, found.low, found.high, _sentence(found, known, noise, details), details)


def _sentence(found: Interval, known: Interval, noise: Interval, details: Mapping[str, Any]) -> str:
    text = f"A recogniser trained on real images agrees with the labels of {100 * found.mean:.1f} % of {details['images']:,} synthetic images"
    text += f" (95 % interval {100 * found.low:.1f} to {100 * found.high:.1f})"
    if math.isnan(noise.mean):
        return text + "; no unseen real image has any of their classes."
    word = f"about {100 * noise.mean:.1f} % of the labels look wrong beyond its own errors" if noise.low > 0 else "no wrong labels show beyond its own errors"
    text += f" and is right on {100 * known.mean:.1f} % of unseen real ones of the same classes: {word}"
    return f"{text} ({statistics.points(noise.low)} to {statistics.points(noise.high)} points)."


def weighted(counts: np.ndarray, wanted: np.ndarray) -> Interval:
    """Return the share on the diagonal if classes occurred as `wanted`, with Wilson's interval for as many images as its variance amounts to.

    The effective number is 1 / sum(w^2 / n) (Kish 1965, section 11.7); classes without images are left out.

    Args:
        counts: int64 [true class, predicted class].
        wanted: float or int [classes], at least 0.
    """
    totals = counts.sum(1)
    shared = (totals > 0) & (wanted > 0)
    if not shared.any():
        return Interval(math.nan, math.nan, math.nan)
    weights = wanted[shared] / wanted[shared].sum()
    share = float((weights * np.diag(counts)[shared] / totals[shared]).sum())
    return statistics.wilson(min(1.0, share), max(1, int(1 / (weights**2 / totals[shared]).sum() + 1e-9)))


def difference(one: Interval, other: Interval) -> Interval:
    """Return one share minus another with the interval made of both of Wilson's (Newcombe 1998, Stat. Med. 17, p. 873, method 10)."""
    mean = one.mean - other.mean
    below = math.hypot(one.mean - one.low, other.high - other.mean)
    above = math.hypot(one.high - one.mean, other.mean - other.low)
    return Interval(mean, mean - below, mean + above)


def _row(name: str, made: np.ndarray, unseen: np.ndarray, label: int) -> dict[str, Any]:
    found, known = (_recall(counts, label) for counts in (made, unseen))
    noise = difference(known, found)
    row = {"class": name, "images": int(made[label].sum()), "agreement": rounded(found.mean), "low": rounded(found.low), "high": rounded(found.high)}
    return row | {
        "unseen": rounded(known.mean),
        "label_noise": rounded(noise.mean),
        "label_noise_low": rounded(noise.low),
        "label_noise_high": rounded(noise.high),
    }


def _recall(counts: np.ndarray, label: int) -> Interval:
    total = int(counts[label].sum())
    return statistics.wilson(counts[label, label] / total if total else math.nan, total)


def _confused(made: np.ndarray, unseen: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    wrong = made * (1 - np.eye(len(made), dtype=np.int64))
    pairs = [divmod(int(place), len(made)) for place in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]]
    shares = [(counts / np.where(counts.sum(1) > 0, counts.sum(1), np.nan)[:, None]) for counts in (made, unseen)]
    return [
        {"class": classes[a], "taken_for": classes[b], "share": rounded(shares[0][a, b]), "unseen": rounded(shares[1][a, b])} for a, b in pairs if wrong[a, b]
    ]
