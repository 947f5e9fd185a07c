"""Synthetic images that repeat a training image: how near they come, which are copies, and whether membership shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import drawing, leaks, membership, wording
from datagen.evaluation.measures.alignment import Aligned, Known, mirrored
from datagen.evaluation.measures.downstream import ends
from datagen.recogniser.search import closest, descriptors
from datagen.records import Finding

LIMIT = 5_000
PAIRS, LISTED = 12, 1000
QUANTILES = (0, 1, 5, 25, 50, 75, 95, 100)
RESIDUAL, RATIO = 10.5, 0.5
"""grey levels and ratio (see `alignment.Aligned`) that no copy exceeds: score 1"""
PLAIN = 0.5
"""an unseen real image of this score or less is a copy itself; a copy is never asked for more"""
ALARMS = 0.001
"""share of the unseen real images that may be named"""
FEW = 500
"""training images of a class below which generators tend to repeat them"""
FEWEST = 20

_PLACE = {"row": "place in the set", "name": "file, or file#row, relative to the set", "class": "class"}
_COPIES = {
    "checked": "synthetic images looked at beside every training image",
    "of": "synthetic images in all",
    "unseen": "unseen real images looked at in the same way",
    "near": "of those checked, nearer to a training image in the recogniser's features than 99 % of unseen real images are",
    "threshold": "the first percentile of the distances of unseen real images from their nearest training image",
    "share": "near by checked",
    "expected": "share that is expected of fresh images: 0.01, and more where the unseen real images are few",
    **wording.documented("share", wording.share_keys("near by checked")),
    "equal_pixels": "synthetic images, of all, with exactly the pixels of a training image, mirrored ones included",
    "equal": "the first thousand of them",
    "equal.synthetic": "the synthetic image",
    "equal.real": "the training image",
    **wording.documented("equal.*", _PLACE),
    "equal.mirrored": "whether left and right are exchanged",
    "named": "of those checked, copies by pixels: score at most `limit`",
    "named_share": "the same as a fraction",
    **wording.documented("named_share", wording.share_keys("named by checked")),
    "limit": "score up to which an image is named: 1, or less where more than 0.1 % of the unseen real images reach 1; 0.5 at least",
    "likely": "of those checked, with a score of at most 1",
    "unseen_likely": "unseen real images with a score of at most 1",
    "unseen_named": "unseen real images with a score of at most `limit`: false alarms, or copies among the real images",
    "unseen_copies": "unseen real images with a score of at most 0.5: plainly copies of training images; they do not lower `limit`",
    "copies": "those with a score of at most 1, plainest first, at most 1,000",
    "copies.synthetic": "the synthetic image",
    "copies.real": "the training image",
    **wording.documented("copies.*", _PLACE),
    "copies.transform": "what makes the training image the synthetic one",
    "copies.named": "whether the score is at most `limit`",
    "copies.score": "the larger of residual / 10.5 and ratio / 0.5",
    "copies.residual": "root mean square of what is left of the luma after alignment, in grey levels (0 to 255) at 32 pixels or fewer",
    "copies.ratio": "that by what other training images leave",
    "copies.distance": "in the recogniser's features",
    "quantiles": "distances to the nearest training image, in the recogniser's features",
    "quantiles.percent": "which percentiles",
    "quantiles.synthetic": "those of the synthetic images",
    "quantiles.unseen": "those of the unseen real images",
    "pairs": "the closest pairs by those distances",
    "pairs.synthetic": "the synthetic image",
    "pairs.real": "the training image",
    **wording.documented("pairs.*", _PLACE),
    "pairs.distance": "in the recogniser's features",
    "pairs.unseen_nearer": "share of unseen real images that lie as near to a training image or nearer",
    "pairs.pixel_difference": "root mean square difference of the pixels, 0 to 255",
    "smallest_class": "training images of the smallest class",
    "few": "whether that is below 500",
    "reasons": "why the set departs: near (more near images than chance brings), named (more than 0.1 %), equal (equal pixels)",
    "departs": "whether there is a reason",
}
_MEMBERSHIP = {
    "auc": "how often a training image lies nearer to a synthetic one than an unseen real one does; 0.5 is chance",
    "auc.mean": "0 to 1",
    "auc.low": "lower end of DeLong's 95 % interval",
    "auc.high": "upper end",
    "rate": "share of the training images recognised where 1 % of the unseen ones are; null with fewer than 100 of those",
    **wording.documented("rate", wording.share_keys("training images nearer than the first percentile of the unseen ones")),
    "members": "training images",
    "others": "unseen real images, of the same classes",
    "synthetic": "synthetic images they were compared with",
    "departs": "whether the interval of auc lies above 0.5",
}


class Copies:
    """Synthetic images that repeat training images: nearness in features, copies confirmed by pixels, membership."""

    keys: Mapping[str, str] = {**wording.documented("copies", _COPIES), **wording.documented("copies_membership", _MEMBERSHIP), **leaks.KEYS}

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield "copies" (share nearer than 99 % of unseen real images, after van den Burg & Williams 2021), "copies membership" and "leaks".

        At most 5,000 synthetic and 5,000 unseen real images are checked against every training image; equal pixels are
        looked for in all synthetic images.
        """
        if min(len(context.real), len(context.synthetic), len(context.test)) < FEWEST:
            why = f"fewer than {FEWEST} real, unseen or synthetic images"
            yield wording.unmeasured("copies", why, of=len(context.synthetic))
            yield wording.unmeasured("copies membership", why)
            return
        known = Known(context.real.images, context.features("real", len(context.real)))
        found = {part: _part(context, known, part) for part in ("synthetic", "test")}
        details = _details(context, found["synthetic"], found["test"])
        share = details["share"]
        yield Finding("copies", share["mean"], share["low"], share["high"], _sentence(details), details)
        yield _membership(context, known)
        unseen = found["test"]
        yield leaks.finding(context, unseen.rows[unseen.scores <= PLAIN], len(unseen.rows))


@dataclass(frozen=True)
class _Part:
    """Rows of a set that were checked, distance to and row of the nearest training image in features, what explains them by pixels, and score [N]."""

    rows: np.ndarray
    distances: np.ndarray
    nearest: np.ndarray
    aligned: Aligned
    scores: np.ndarray


def _part(context: Context, known: Known, part: str) -> _Part:
    rows, features = context.rows(part, LIMIT), context.features(part, LIMIT)
    assert known.features is not None
    distances, nearest = closest(features, known.features)
    aligned = known.explain(getattr(context, part).images[rows], features)
    return _Part(rows, distances, nearest, aligned, np.maximum(aligned.residual / RESIDUAL, aligned.ratio / RATIO))


def limit(unseen: np.ndarray) -> float:
    """Return the score up to which an image is named a copy, 0.5 to 1.

    It is 1, or the largest below which at most 0.1 % of the unseen real images lie; those that are plainly copies of
    training images (score at most 0.5) are left out of that.

    Args:
        unseen: float [N], scores of unseen real images.
    """
    fresh = np.sort(unseen[unseen > PLAIN])
    allowed = int(ALARMS * len(unseen))
    first = float(fresh[allowed]) if len(fresh) > allowed else 1.0
    return min(1.0, max(PLAIN, float(np.nextafter(first, 0))))


def _details(context: Context, made: _Part, unseen: _Part) -> dict[str, Any]:
    threshold, most = float(np.quantile(unseen.distances, 0.01)), limit(unseen.scores)
    near, named = int((made.distances < threshold).sum()), int((made.scores <= most).sum())
    checked = len(made.rows)
    share, named_share = statistics.wilson(near / checked, checked), statistics.wilson(named / checked, checked)
    twins = equal(context.real.images, context.synthetic.images)
    smallest = int(np.bincount(context.real.labels, minlength=len(context.classes)).min())
    chance = statistics.wilson(0.01, len(unseen.rows))
    reasons = {"near": share.low > chance.high, "named": named_share.low > ALARMS, "equal": bool(twins)}
    order, plainest = np.argsort(made.distances, kind="stable")[:PAIRS], np.argsort(made.scores, kind="stable")[:LISTED]
    return {
        "checked": checked,
        "of": len(context.synthetic),
        "unseen": len(unseen.rows),
        "near": near,
        "threshold": threshold,
        "share": ends(share),
        "expected": round((1 + 0.01 * (len(unseen.rows) - 1)) / (len(unseen.rows) + 1), 6),
        "equal_pixels": len(twins),
        "equal": [{"synthetic": _named(context, "synthetic", s), "real": _named(context, "real", r), "mirrored": flip} for s, r, flip in twins[:LISTED]],
        "named": named,
        "named_share": ends(named_share),
        "limit": round(most, 6),
        "likely": int((made.scores <= 1).sum()),
        "unseen_likely": int((unseen.scores <= 1).sum()),
        "unseen_named": int((unseen.scores <= most).sum()),
        "unseen_copies": int((unseen.scores <= PLAIN).sum()),
        "copies": [{**_copy(context, made, int(i)), "named": bool(made.scores[i] <= most)} for i in plainest if made.scores[i] <= 1],
        "quantiles": {"percent": list(QUANTILES), "synthetic": _quantiles(made.distances), "unseen": _quantiles(unseen.distances)},
        "pairs": [_pair(context, int(made.rows[i]), int(made.nearest[i]), float(made.distances[i]), unseen.distances) for i in order],
        "smallest_class": smallest,
        "few": smallest < FEW,
        "reasons": [reason for reason, holds in reasons.items() if holds],
        "departs": any(reasons.values()),
    }


def _sentence(details: Mapping[str, Any]) -> str:
    checked = details["checked"]
    text = f"{wording.counted(details['near'], checked)} synthetic images lie nearer to a training image than 99 % of unseen real images do"
    text += f", where {100 * details['expected']:.2g} % is expected of fresh ones; copies by pixels: {wording.counted(details['named'], checked)}"
    if details["named"] < details["likely"]:
        likely = details["likely"], details["unseen_likely"], details["unseen"]
        text += ", {:,} if judged less strictly ({:,} of {:,} unseen real images are alike in that sense)".format(*likely)
    text += f"; exactly a training image's pixels: {wording.counted(details['equal_pixels'], details['of'])}."
    if details["few"]:
        text += f" The smallest class has {details['smallest_class']:,} training images: below {FEW}, generators tend to repeat what they saw."
    return text


def _membership(context: Context, known: Known) -> Finding:
    """Return how well the distance to the nearest synthetic image, in reduced pixels, tells training images from unseen ones.

    Pixels, because a recogniser's features know its own training images. Chen et al. 2020 (arXiv 1909.03935), eq. 6.
    """
    members, others = drawing.shared(context.real.labels, context.test.labels, LIMIT, context.seed)
    rows = context.rows("synthetic", 2 * LIMIT)
    if min(len(members), len(others)) < FEWEST:
        return wording.unmeasured("copies membership", f"fewer than {FEWEST} real or unseen images in shared classes", members=len(members), others=len(others))
    made = descriptors(context.synthetic.images[rows]) @ known.basis
    inside, _ = closest(known.descriptors[members], made)
    outside, _ = closest(descriptors(context.test.images[others]) @ known.basis, made)
    area, rate = membership.curve(inside, outside), membership.rate(inside, outside)
    details = {"auc": ends(area), "rate": ends(rate), "members": len(members), "others": len(others), "synthetic": len(rows), "departs": area.low > 0.5}
    found = f"; {100 * rate.mean:.1f} % of them are recognised where 1 % of the unseen are ({100 * rate.low:.1f} to {100 * rate.high:.1f})"
    sentence = (
        f"By its distance to the nearest synthetic image a training image is told from an unseen one in {100 * area.mean:.1f} % of pairs "
        f"(95 % interval {100 * area.low:.1f} to {100 * area.high:.1f}, chance is 50){found if len(others) >= 100 else ''}. "
        "This is one simple attack on pixels: a figure at chance does not prove that nothing leaks."
    )
    return Finding("copies membership", area.mean, area.low, area.high, sentence, details)


def _quantiles(distances: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(distances, QUANTILES)]


def _named(context: Context, part: str, row: int) -> dict[str, Any]:
    labelled = getattr(context, part)
    name = labelled.names[row] if labelled.names else ""
    return {"row": row, "name": name, "class": context.classes[int(labelled.labels[row])]}


def _copy(context: Context, made: _Part, place: int) -> dict[str, Any]:
    real = int(made.aligned.row[place])
    features = context.features("synthetic", LIMIT)[place] - context.features("real", len(context.real))[real]
    return {
        "synthetic": _named(context, "synthetic", int(made.rows[place])),
        "real": _named(context, "real", real),
        "transform": made.aligned.name(place),
        "score": round(float(made.scores[place]), 4),
        "residual": round(float(made.aligned.residual[place]), 3),
        "ratio": round(float(made.aligned.ratio[place]), 4),
        "distance": wording.number(float(np.sqrt((features.astype(np.float64) ** 2).sum()))),
    }


def _pair(context: Context, synthetic: int, real: int, distance: float, unseen: np.ndarray) -> dict[str, Any]:
    apart = np.asarray(context.synthetic.images[synthetic], np.float64) - np.asarray(context.real.images[real], np.float64)
    return {
        "synthetic": _named(context, "synthetic", synthetic),
        "real": _named(context, "real", real),
        "distance": distance,
        "unseen_nearer": float((unseen <= distance).mean()),
        "pixel_difference": round(float(np.sqrt((apart**2).mean())), 3),
    }


def digest(image: np.ndarray) -> bytes:
    """Return 16 bytes decided by the pixels of an image uint8 [H, W, C]."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


def equal(known: np.ndarray, images: np.ndarray) -> list[tuple[int, int, bool]]:
    """Return (row in images, row in known, whether mirrored) for each of images uint8 [N, H, W, C] with exactly the pixels of one of known [M, H, W, C]."""
    place: dict[bytes, int] = {}
    for row in range(len(known)):
        place.setdefault(digest(known[row]), row)
    found = []
    for row in range(len(images)):
        plain = place.get(digest(images[row]))
        flipped = place.get(digest(mirrored(images[row : row + 1])[0])) if plain is None else None
        if plain is not None:
            found.append((row, plain, False))
        elif flipped is not None:
            found.append((row, flipped, True))
    return found
