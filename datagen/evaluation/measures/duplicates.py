"""Synthetic images that repeat each other, beside how often real training images do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import drawing, wording
from datagen.evaluation.measures.copies import digest
from datagen.evaluation.measures.downstream import ends
from datagen.recogniser.search import closest, descriptors
from datagen.records import Finding

LIMIT = 10_000
EACH = 5_000
"""images of each side that are looked at"""
PAIRS = 12
NEAR = 0.01
"""of the real training images, the share whose nearest other lies within the threshold"""
FEWEST = 50

_PLACE = {"row": "place in the set", "name": "file, or file#row, relative to the set", "class": "class"}
_KEYS = {
    "share": "share of synthetic images with another one nearer than 99 % of real training images have one, in features and in reduced pixels both",
    **wording.documented("share", wording.share_keys("near by looked at")),
    "floor": "the same of as many real training images of the same classes; at most 0.01",
    **wording.documented("floor", wording.share_keys("near by looked at")),
    "images": "looked at on each side",
    "threshold": "of the distance in the recogniser's features",
    "pixel_threshold": "of the distance in images reduced to 8x8, their mean taken out and their contrast made 1",
    "equal": "synthetic images, of all, with exactly the pixels of an earlier one",
    "of": "synthetic images in all",
    "equal_real": "the same of the real training images",
    "of_real": "real training images in all",
    "pairs": "the nearest pairs in features, at most 12",
    "pairs.one": "the earlier of the two",
    "pairs.other": "the later",
    **wording.documented("pairs.*", _PLACE),
    "pairs.distance": "in features",
    "pairs.pixel_distance": "in reduced pixels, as above",
    "departs": "whether near-duplicates, or equal images, are more frequent than among real training images by more than chance",
}


class Duplicates:
    """Near-duplicates among the synthetic images, beside those among real training images."""

    keys: Mapping[str, str] = wording.documented("duplicates", _KEYS)

    def measure(self, context: Context) -> Finding:
        """Return the share of synthetic images that nearly repeat another one; thresholds are what 1 % of real training images reach.

        At most 5,000 of each are looked at, as many of each class from both; equal pixels are counted over all.
        """
        labels = {part: getattr(context, part).labels[context.rows(part, LIMIT)] for part in ("synthetic", "real")}
        rows = dict(zip(labels, drawing.shared(labels["synthetic"], labels["real"], EACH, context.seed), strict=True))
        size = len(rows["synthetic"])
        exact = {"equal": repeated(context.synthetic.images), "of": len(context.synthetic)}
        exact |= {"equal_real": repeated(context.real.images), "of_real": len(context.real)}
        if size < FEWEST:
            return wording.unmeasured("duplicates", f"{size} images of shared classes are too few, {FEWEST} are needed", images=size, **exact)
        found = {part: _Found(context, part, part_rows) for part, part_rows in rows.items()}
        thresholds = [float(np.quantile(values, NEAR)) for values in (found["real"].distances, found["real"].pixel_distances)]
        share, floor = (statistics.wilson(float(found[part].near(thresholds).mean()), size) for part in ("synthetic", "real"))
        equal, equal_real = (statistics.wilson(exact[name] / exact[of], exact[of]) for name, of in (("equal", "of"), ("equal_real", "of_real")))
        details: dict[str, Any] = {"share": ends(share), "floor": ends(floor), "images": size, **exact}
        details |= {"threshold": wording.number(thresholds[0]), "pixel_threshold": wording.number(thresholds[1])}
        details |= {"pairs": found["synthetic"].pairs(context), "departs": bool(share.low > max(floor.high, NEAR) or equal.low > equal_real.high)}
        count = round(share.mean * size)
        sentence = (
            f"{wording.counted(count, size)} synthetic images nearly repeat another of them, where {100 * floor.mean:.2g} % of as many real training images do"
        )
        sentence += f"; exactly equal to an earlier one: {wording.counted(exact['equal'], exact['of'])}"
        sentence += f", among real ones {exact['equal_real']:,} of {exact['of_real']:,}."
        return Finding("duplicates", share.mean, share.low, share.high, sentence, details)


class _Found:
    """Nearest others of some rows of a part, in features and in reduced pixels: distances [N] and places [N]."""

    def __init__(self, context: Context, part: str, rows: np.ndarray) -> None:
        self.rows = context.rows(part, LIMIT)[rows]
        features, pixels = context.features(part, LIMIT)[rows], descriptors(getattr(context, part).images[self.rows])
        self.distances, self.nearest = closest(features, features, others=True)
        self.pixel_distances = np.sqrt(((pixels - pixels[self.nearest]).astype(np.float64) ** 2).sum(1))

    def near(self, thresholds: list[float]) -> np.ndarray:
        """Return bool [N], whether the nearest other in features lies within both thresholds."""
        within: np.ndarray = (self.distances <= thresholds[0]) & (self.pixel_distances <= thresholds[1])
        return within

    def pairs(self, context: Context) -> list[dict[str, Any]]:
        """Return the nearest pairs, each once."""
        chosen: dict[tuple[int, int], int] = {}
        for place in np.argsort(self.distances, kind="stable")[: 4 * PAIRS]:
            one, other = sorted((int(place), int(self.nearest[place])))
            chosen.setdefault((one, other), int(place))
        return [
            {
                "one": _named(context, int(self.rows[one])),
                "other": _named(context, int(self.rows[other])),
                "distance": wording.number(float(self.distances[place])),
                "pixel_distance": wording.number(float(self.pixel_distances[place])),
            }
            for (one, other), place in list(chosen.items())[:PAIRS]
        ]


def _named(context: Context, row: int) -> dict[str, Any]:
    part = context.synthetic
    return {"row": row, "name": part.names[row] if part.names else "", "class": context.classes[int(part.labels[row])]}


def repeated(images: np.ndarray) -> int:
    """Return how many of images uint8 [N, H, W, C] have exactly the pixels of an earlier one."""
    return len(images) - len({digest(images[row]) for row in range(len(images))})
