"""Whether the filter lets enough images through: probed before production, said after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datagen.errors import SafetyError
from datagen.records import ShardNote
from datagen.synthesis.heartbeat import beat
from datagen.synthesis.painter import Origin, Painter
from datagen.synthesis.plan import TILE

LEAST = 0.1
"""share of a class's images that must be sure enough"""
CLASSES = 100
"""classes that are probed at most"""


def require(painter: Painter, origin: Origin, classes: Sequence[str]) -> None:
    """Compute one tile of each of the classes that are wanted (of 100 at most) and look at its first attempts.

    Raises:
        SafetyError: of some class fewer than one in ten images is as sure as the least confidence asks for and no near-copy.
    """
    if origin.confidence <= 0 and not origin.reference:
        return
    for name in classes[:: max(1, -(-len(classes) // CLASSES))]:
        tile = painter.tile(name, 0, TILE)
        beat(0)
        sure = True if tile.confidence is None else tile.confidence >= origin.confidence
        share = float(np.mean((tile.attempts == 0) & sure))
        if share < LEAST:
            wants = [f"reach a confidence of {origin.confidence:g}"] if origin.confidence > 0 else []
            wants += [f"repeat no training image ({tile.near_copies:,} of {tile.tried:,} computed nearly do)"] if tile.near_copies else []
            ways = ["fit for longer", *["lower --min-confidence"] * (origin.confidence > 0), *["take copies with --keep-near-copies"] * bool(tile.near_copies)]
            what = f"of class {name!r} only {100 * share:.0f} % of the images {' and '.join(wants)}"
            raise SafetyError(what, where=origin.run, hint=", or ".join(ways))


def said(notes: Sequence[ShardNote], least: float) -> str:
    """Return how many images were computed for those that were taken, "" where none was thrown away."""
    tried, taken, forced = (sum(getattr(note, key) for note in notes) for key in ("tried", "accepted", "forced"))
    if tried <= taken:
        return ""
    copies = sum(note.near_copies for note in notes)
    text = f"{100 * (taken - forced) / tried:.0f} % of {tried:,} computed images were taken: confidence {least:g} or more (--min-confidence)"
    text += f", {copies:,} near-copies of training images thrown away (--keep-near-copies)" if copies else ""
    return text + (f"; {forced:,} were taken though no attempt was sure enough" if forced else "")
