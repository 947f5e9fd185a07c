"""Which images the page shows: of each class at random and by confidence, the closest pairs, the named copies; with --share no real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datagen import seeds
from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.pages import pictures

EACH, COLUMNS = 12, 6
"""images of a class on each side, and how many in a row"""
LIMIT = 10_000
"""synthetic images whose confidence is asked for"""
FEW, SMALLER = 8, 64
"""with more classes shown than that, images are reduced to so many pixels"""
COPIES = 12
ENLARGED = 48
"""longest side of images that are enlarged without smoothing"""


@dataclass(frozen=True)
class Shown:
    """What images may be shown and how.

    Attributes:
        context: has the images.
        may: bool [synthetic], which synthetic images may be shown.
        share: no real pixel is shown.
        longest: pixels of the longest side, more is reduced.
    """

    context: Context
    may: np.ndarray
    share: bool = False
    longest: int = pictures.THUMBNAIL

    def cards(self, labels: Sequence[int]) -> list[dict[str, Any]]:
        """Return by class its name and sheets: real and synthetic ones at random, and the most and least confident synthetic ones."""
        found = []
        for label in labels:
            sides = {"synthetic": self.random(self.context.synthetic, label, self.may)}
            if not self.share:
                sides = {"real": self.random(self.context.real, label), **sides}
            sheets = {side: made for side, made in sides.items() if made is not None}
            found.append({"name": self.context.classes[label], "sheets": sheets, "extremes": self.extremes(label)})
        return found

    def random(self, part: Labelled, label: int, may: np.ndarray | None = None) -> dict[str, Any] | None:
        """Return a sheet of images of a class drawn at random, None where there is none."""
        members = np.flatnonzero((part.labels == label) if may is None else (part.labels == label) & may)
        picked = np.sort(seeds.stream("shown", self.context.seed, label).permutation(members)[:EACH])
        whole = int((part.labels == label).sum())
        return None if not len(picked) else {**self.sheet(part, picked, COLUMNS), "of": whole}

    def extremes(self, label: int) -> dict[str, dict[str, Any]]:
        """Return the sheets of the synthetic images of a class that the recogniser is most and least sure to be of it, with the range of its confidence."""
        found = self.context.probabilities("synthetic", LIMIT)
        if found is None:
            return {}
        rows = self.context.rows("synthetic", LIMIT)
        own = np.flatnonzero((self.context.synthetic.labels[rows] == label) & self.may[rows])
        confidence = found[own, label]
        order = np.argsort(-confidence, kind="stable")
        half = min(COLUMNS, len(own) // 2)
        picked = {"most": order[:half], "least": order[len(order) - half :][::-1]} if half else {}
        sheets = {}
        for side, places in picked.items():
            ends = float(confidence[places].min()), float(confidence[places].max())
            sheets[side] = {**self.sheet(self.context.synthetic, rows[own[places]], COLUMNS), "low": ends[0], "high": ends[1]}
        return sheets

    def sheet(self, part: Labelled, rows: np.ndarray, columns: int) -> dict[str, Any]:
        """Return one PNG of images with its size, its count and whether it is enlarged without smoothing."""
        source, width, height = pictures.sheet([pictures.thumbnail(part.images[row], self.longest) for row in rows], columns)
        return {"source": source, "width": width, "height": height, "count": len(rows), "enlarged": max(part.images.shape[1:3]) <= ENLARGED}

    def copies(self, found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return with their images the named copies, the likely ones and the closest other pairs of the finding "copies"; none where no real pixel is shown."""
        listed = found.get("copies", [])
        rows = {pair["synthetic"]["row"] for pair in listed}
        kinds = {
            "named": [pair for pair in listed if pair.get("named", True)],
            "likely": [pair for pair in listed if not pair.get("named", True)],
            "pairs": [pair for pair in found.get("pairs", []) if pair["synthetic"]["row"] not in rows],
        }
        return {kind: [] if self.share else [self._beside(pair) for pair in pairs[:COPIES]] for kind, pairs in kinds.items()}

    def _beside(self, pair: Mapping[str, Any]) -> dict[str, Any]:
        sides = {"synthetic": self.context.synthetic, "real": self.context.real}
        images = {f"{side}_image": pictures.png(pictures.thumbnail(part.images[pair[side]["row"]])) for side, part in sides.items()}
        return {**pair, **images, "enlarged": max(self.context.real.images.shape[1:3]) <= ENLARGED}


def prepare(report: Mapping[str, Any], context: Context, classes: int, *, share: bool) -> Shown:
    """Return what may be shown and how.

    Args:
        report: as `schema.build` gives it; its finding "copies" names the copies.
        context: has the images.
        classes: that are shown.
        share: no real pixel, and no synthetic image that repeats a real one.
    """
    may = shareable(report, context) if share else np.ones(len(context.synthetic), bool)
    return Shown(context, may, share, SMALLER if classes > FEW else pictures.THUMBNAIL)


def shareable(report: Mapping[str, Any], context: Context) -> np.ndarray:
    """Return bool [synthetic], the images that were looked at for copies, are none, and have no real image's pixels, mirrored or not.

    All are False where copies were not looked for, or where more were named than the report lists.
    """
    found = report["measures"].get("copies", {})
    listed = found.get("copies", [])
    may = np.zeros(len(context.synthetic), bool)
    if not found.get("checked") or found.get("named", 0) > len(listed):
        return may
    may[context.rows("synthetic", found["checked"])] = True
    may[[pair["synthetic"]["row"] for pair in listed]] = False
    known = {_pixels(image) for part in (context.real, context.test) for image in part.images}
    for row in np.flatnonzero(may):
        image = context.synthetic.images[row]
        may[row] = _pixels(image) not in known and _pixels(image[:, ::-1]) not in known
    return may


def _pixels(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
