"""Whether the images of each class of a fitted generator are of their class, and differ from each other as real ones do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datagen.errors import printable
from datagen.recogniser.fit import Fitted
from datagen.training.selection import ABLE, Draw, Part

EACH, MOST = 16, 2_000
"""synthetic images of a class that are looked at, and of all classes together"""
KNOWN, HEEDED, VARIED = 0.5, 0.3, 0.3
"""share of its training images that a class must be known by, share of that which synthetic ones must reach, and least diversity"""
NAMED = 5


@dataclass(frozen=True)
class Health:
    """One class: its label, the shares of training and of synthetic images that the filter knows it by, and its diversity.

    Diversity is the deviation of the filter's features over synthetic images by that over training images: 1 is as varied, 0 all the same.
    """

    label: int
    known: float
    heeded: float
    diversity: float


def look(filter: Fitted, train: Part, draw: Draw, *, classes: int, spread: float) -> list[Health]:
    """Return how each class does; with very many classes, of some at equal distances.

    Args:
        filter: a recogniser of the training images.
        train: real images and labels.
        draw: the fitted generator.
        classes: number of classes.
        spread: of the noise.
    """
    shown = range(0, classes, max(1, -(-classes * EACH // MOST)))
    labels = np.repeat(np.array(shown), EACH)
    places = np.tile(np.arange(EACH), len(shown))
    images = np.concatenate([draw(labels[i : i + 256], places[i : i + 256], spread) for i in range(0, len(labels), 256)])
    said, features = filter.predict(images).argmax(1), filter.features(images)
    found = []
    for label in (label for label in shown if (train.labels == label).any()):
        own, real = labels == label, train.images[train.labels == label][: 4 * EACH]
        varied = _deviation(filter.features(real))
        diversity = _deviation(features[own]) / varied if varied > 0 else 1.0
        known = float((filter.predict(real).argmax(1) == label).mean())
        found.append(Health(label, round(known, 4), round(float((said[own] == label).mean()), 4), round(diversity, 4)))
    return found


def _deviation(features: np.ndarray) -> float:
    """Return the root of the summed variances, unbiased, of features [N, F]; 0 of a single one."""
    return float(np.sqrt(features.astype(np.float64).var(axis=0, ddof=1).sum())) if len(features) > 1 else 0.0


def learnt(known: Sequence[float], classes: int) -> bool:
    """Return whether the filter comes at least half the way from chance to naming all training images right, from its share of each class."""
    chance = 1 / classes
    return not known or sum(known) / len(known) >= chance + ABLE * (1 - chance)


def warnings(found: Sequence[Health], names: Sequence[str]) -> list[str]:
    """Return a sentence with the remedy for the classes that ignore their label and one for those that collapsed, where there are any.

    Of a filter that has hardly learnt the classes itself only that is said.
    """
    if not learnt(shares := [each.known for each in found], len(names)):
        return [
            f"the filter had too little time: it names only {100 * sum(shares) / len(shares):.0f} % of its own training images right, so its probabilities "
            "(soft labels, --min-confidence) tell little and nothing is said of the classes: fit longer (--budget)"
        ]
    ignoring = [each for each in found if each.known >= KNOWN and each.heeded < HEEDED * each.known]
    collapsed = [each for each in found if each.diversity < VARIED]
    said = []
    if ignoring:
        said.append(
            f"synthetic images of {_named(ignoring, names)} are mostly taken for other classes by a recogniser of the real ones: "
            "fit longer (--budget), or try another --family; synthesize throws the doubtful ones away with --min-confidence 0.6"
        )
    if collapsed:
        least = min(each.diversity for each in collapsed)
        said.append(
            f"synthetic images of {_named(collapsed, names)} are nearly alike (diversity {least:.2f} of the real ones' 1 at the least): "
            "fit longer (--budget), try another --family, give the class more images, or synthesize with --spread 1.3"
        )
    return said


def _named(found: Sequence[Health], names: Sequence[str]) -> str:
    first = ", ".join(repr(printable(names[each.label])) for each in found[:NAMED])
    more = f" and {len(found) - NAMED} more classes" if len(found) > NAMED else ""
    return ("class " if len(found) == 1 else "classes ") + first + more
