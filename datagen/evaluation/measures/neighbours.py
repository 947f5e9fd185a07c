"""The nearest real training image of each synthetic one, beside how near unseen real images come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.records import Finding

LIMIT = 5_000
PAIRS = 12
QUANTILES = (0, 1, 5, 25, 50, 75, 95, 100)
BLOCK = 512


class Neighbours:
    """The nearest real training image of each synthetic one in a recogniser's features, beside unseen real images."""

    def measure(self, context: Context) -> Finding:
        """Return the share of synthetic images nearer to a training image than 99 % of unseen real images are.

        At most 5,000 synthetic and 5,000 unseen real images are checked, against every training image. Equal pixels are counted
        apart from that, over all synthetic images.
        """
        real = context.features("real", len(context.real))
        rows = context.rows("synthetic", LIMIT)
        distances, nearest = closest(context.features("synthetic", LIMIT), real)
        unseen, _ = closest(context.features("test", LIMIT), real)
        threshold = float(np.quantile(unseen, 0.01))
        near = statistics.wilson(float((distances < threshold).mean()), len(rows))
        twins = equal(context.real.images, context.synthetic.images)
        order = np.argsort(distances, kind="stable")[:PAIRS]
        details: dict[str, Any] = {
            "checked": len(rows),
            "of": len(context.synthetic),
            "near": int((distances < threshold).sum()),
            "threshold": threshold,
            "equal_pixels": len(twins),
            "equal": [{"synthetic": _named(context, "synthetic", s), "real": _named(context, "real", r)} for s, r in twins[:100]],
            "quantiles": {"percent": list(QUANTILES), "synthetic": _quantiles(distances), "unseen": _quantiles(unseen)},
            "pairs": [_pair(context, int(rows[i]), int(nearest[i]), float(distances[i]), unseen) for i in order],
        }
        return Finding("neighbours", near.mean, near.low, near.high, _sentence(near, details), details)


def _sentence(near: statistics.Interval, details: dict[str, Any]) -> str:
    count, checked, same = details["near"], details["checked"], details["equal_pixels"]
    bound = f"at most {100 * near.high:.2g} %" if count == 0 else f"{100 * near.mean:.1f} %, 95 % interval {100 * near.low:.1f} to {100 * near.high:.1f}"
    text = f"{count:,} of {checked:,} synthetic images checked ({bound}) lie nearer to a training image than 99 % of unseen real images do"
    word = "none has" if same == 0 else f"{same:,} {'has' if same == 1 else 'have'}"
    return f"{text}, where 1 % would be expected of fresh images; of all {details['of']:,}, {word} exactly a training image's pixels."


def _quantiles(distances: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(distances, QUANTILES)]


def _named(context: Context, part: str, row: int) -> dict[str, Any]:
    labelled = getattr(context, part)
    name = labelled.names[row] if labelled.names else ""
    return {"row": row, "name": name, "class": context.classes[int(labelled.labels[row])]}


def _pair(context: Context, synthetic: int, real: int, distance: float, unseen: np.ndarray) -> dict[str, Any]:
    apart = np.asarray(context.synthetic.images[synthetic], np.float64) - np.asarray(context.real.images[real], np.float64)
    return {
        "synthetic": _named(context, "synthetic", synthetic),
        "real": _named(context, "real", real),
        "distance": distance,
        "unseen_nearer": float((unseen <= distance).mean()),
        "pixel_difference": round(math.sqrt(float((apart**2).mean())), 3),
    }


def closest(queries: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of queries float [N, F] the Euclidean distance float64 [N] to, and the row int64 [N] of, the nearest of known float [M, F].

    The nearest are found by |q|^2 + |k|^2 - 2 q.k in blocks; the distance itself is then computed from the difference, so that it
    is zero for equal features.
    """
    rows = np.empty(len(queries), np.int64)
    known = known.astype(np.float64)
    norms = (known**2).sum(axis=1)
    for start in range(0, len(queries), BLOCK):
        piece = queries[start : start + BLOCK].astype(np.float64)
        rows[start : start + BLOCK] = (norms - 2 * piece @ known.T).argmin(axis=1)
    return np.sqrt(((queries.astype(np.float64) - known[rows]) ** 2).sum(axis=1)), rows


def equal(known: np.ndarray, images: np.ndarray) -> list[tuple[int, int]]:
    """Return (row in images, row in known) for each of images uint8 [N, H, W, C] whose pixels equal those of one of known."""
    place: dict[bytes, int] = {}
    for row in range(len(known)):
        place.setdefault(known[row].tobytes(), row)
    return [(row, place[raw]) for row in range(len(images)) if (raw := images[row].tobytes()) in place]
