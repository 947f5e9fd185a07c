"""What `fit` chooses after training, by how well a recogniser does on the select part after training on synthetic images alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datagen import seeds
from datagen.recogniser.fit import Fitted, Settings, fit
from datagen.recogniser.stored import WIDTH, confidence

BATCH, LEARNING_RATE = 32, 0.1
SPREADS, THRESHOLDS = (1.0, 1.3), (0.0, 0.6)
"""scales of the noise and least confidences that are tried; the first ones stay unless others are plainly better"""
ACCEPTED = 0.25
"""share of every class's images that must reach a confidence for it to be tried: what `synthesize` throws away costs time"""
LONGER = 2
"""times as long as the others the filter is trained"""
MODES = ("replace", "augment")
"""what the images are for: to be trained on alone, or beside the real ones"""
ENOUGH = 150
"""steps of a recogniser below which nothing is chosen for `augment`, so that the others take longer"""
GAIN = 0.02
"""share of the select part by which a candidate must be better: recognisers of few steps learn faster from what is sure, longer ones from what varies"""
ABLE = 0.5
"""how far from chance to perfect a recogniser trained on real images must come, to choose by its like"""
FEWEST_STEPS, MOST_STEPS = 5, 600
FEWEST = 40
"""images of the select part from which something is chosen"""
FEWEST_IMAGES, MOST_IMAGES, LEAST, DRAWS = 300, 2_500, 3, 3
"""synthetic images that a recogniser trains on (of a class at least), and how many are computed for each that is wanted"""
MOST_TRAIN, MOST_SELECT = LONGER * MOST_STEPS * BATCH, 10_000
"""real images that are looked at: no training is shown more"""
Scores = Mapping[tuple[float, float], Mapping[str, float]]
Draw = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""images uint8 [N, H, W, C] of labels [N], places [N] (which keep draws apart) and a spread"""


@dataclass(frozen=True)
class Part:
    """Real images uint8 [N, H, W, C] and their labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class How:
    """How recognisers are trained: steps, synthetic images, layout ("contiguous" or "channels-last"), seed, device ("cpu", "cuda" or "mps").

    The first `modes` of MODES are chosen for.
    """

    steps: int
    images: int
    layout: str
    seed: int
    device: str
    modes: int = len(MODES)


@dataclass(frozen=True)
class Selected:
    """The filter, and what was chosen with its reasons, as the generator's card has it."""

    filter: Fitted
    chosen: Mapping[str, Any]
    sentence: str
    scores: Scores = field(default_factory=dict)
    """share of the select part right, by spread and least confidence, and by mode"""


def runs(modes: int) -> int:
    """Return the trainings: the filter's, one on real images, and for each of so many modes one for each threshold and one for each further spread."""
    return LONGER + 1 + modes * (len(THRESHOLDS) + len(SPREADS) - 1)


def planned(images: float) -> dict[str, int]:
    """Return steps of each recogniser and modes that are chosen for, where the recognisers are shown so many images all together."""
    modes = len(MODES) if images >= ENOUGH * runs(len(MODES)) * BATCH else 1
    return {"steps": max(FEWEST_STEPS, min(MOST_STEPS, int(images / (runs(modes) * BATCH)))), "modes": modes}


def drawn(images: float) -> int:
    """Return the synthetic images that a recogniser trains on where so many are drawn in all."""
    return max(FEWEST_IMAGES, min(MOST_IMAGES, int(images / (DRAWS * len(SPREADS)))))


def select(train: Part, part: Part, draw: Draw, *, classes: int, how: How, advance: Callable[[int], object] = lambda _: None) -> Selected:
    """Train the filter on the training images and choose spread and confidence threshold.

    Args:
        train: the images that the generator learnt from.
        part: the select part, which nothing was trained on.
        draw: the fitted generator.
        classes: number of classes.
        how: recognisers are trained.
        advance: called with the trainings done after each, `runs` in all.
    """

    def trained(name: str, images: np.ndarray, labels: np.ndarray, times: int = 1) -> Fitted:
        settings = Settings(steps=times * how.steps, batch=BATCH, learning_rate=LEARNING_RATE, width=WIDTH, layout=how.layout)
        found = fit(images, labels, classes=classes, settings=settings, seed=seeds.integer("selection", how.seed, name), device=how.device)
        advance(times)
        return found

    def right(judge: Fitted) -> np.ndarray:
        found: np.ndarray = judge.predict(part.images).argmax(1) == part.labels
        return found

    filter = trained("filter", train.images, train.labels, LONGER)
    if len(part.labels) < FEWEST:
        why = f"as trained: {len(part.labels)} images in the select part are too few to choose by"
        return Selected(filter, _chosen(SPREADS[0], THRESHOLDS[0], why), "")
    real = float(right(trained("real", train.images, train.labels)).mean())
    if real < 1 / classes + ABLE * (1 - 1 / classes):
        why = f"as trained: {how.steps} steps of the recogniser that chooses are too few ({100 * real:.0f} % of {len(part.labels)} right after real images)"
        return Selected(filter, _chosen(SPREADS[0], THRESHOLDS[0], why), "")
    wanted = np.minimum(max(LEAST, how.images // classes), np.bincount(train.labels, minlength=classes))
    scores: dict[tuple[float, float], dict[str, np.ndarray]] = {}
    skipped: list[str] = []
    for spread in SPREADS:
        images, labels = _drawn(draw, wanted * DRAWS, spread)
        sure = confidence(filter.predict(images), labels)
        for threshold in [max(scores, key=lambda pair: (scores[pair]["replace"].mean(), -pair[1]))[1]] if scores else THRESHOLDS:
            if (share := _least_accepted(labels, sure, threshold)) < ACCEPTED:
                skipped.append(f"spread {spread:g} and confidence {threshold:g} not tried: of some class only {100 * share:.0f} % reach that")
                continue
            rows = _accepted(labels, sure, wanted, threshold)
            alone = trained(f"{spread:g} {threshold:g}", images[rows], labels[rows])
            scores[spread, threshold] = {"replace": right(alone)}
            if how.modes > 1:
                both = np.concatenate([train.images, images[rows]]), np.concatenate([train.labels, labels[rows]])
                scores[spread, threshold]["augment"] = right(trained(f"both {spread:g} {threshold:g}", *both))
    return _decided(filter, scores, skipped, real, images=len(part.labels), steps=how.steps)


def _drawn(draw: Draw, counts: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(counts)), counts)
    places = np.concatenate([np.arange(count) for count in counts])
    pieces = [draw(labels[start : start + 256], places[start : start + 256], spread) for start in range(0, len(labels), 256)]
    return np.concatenate(pieces), labels


def _least_accepted(labels: np.ndarray, sure: np.ndarray, threshold: float) -> float:
    """Return the share of images that are sure enough in the class where fewest are."""
    good, count = np.bincount(labels, weights=sure >= threshold), np.bincount(labels)
    return float((good / np.maximum(count, 1))[count > 0].min())


def _accepted(labels: np.ndarray, sure: np.ndarray, wanted: np.ndarray, threshold: float) -> np.ndarray:
    """Return the first rows of each class that are sure enough, as many as wanted; the surest others make up for what lacks."""
    rows = []
    for label, count in enumerate(wanted):
        own = np.flatnonzero(labels == label)
        good = own[sure[own] >= threshold]
        rest = own[sure[own] < threshold]
        rows.append(np.concatenate([good, rest[np.argsort(-sure[rest], kind="stable")]])[:count])
    return np.concatenate(rows)


def _decided(
    filter: Fitted, known: Mapping[tuple[float, float], Mapping[str, np.ndarray]], skipped: list[str], real: float, *, images: int, steps: int
) -> Selected:
    """Take for each mode the best candidate where it is plainly better than the plain one; `known` says which images it named right."""
    best, why = {}, {}
    scores = {pair: {mode: float(right.mean()) for mode, right in found.items()} for pair, found in known.items()}
    for mode in next(iter(scores.values())):
        best[mode] = _best({pair: found[mode] for pair, found in known.items()})
        table = [f"spread {s:g} and confidence {t:g}: {100 * found[mode]:.1f} %" for (s, t), found in scores.items()]
        what = "synthetic only" if mode == "replace" else "real + synthetic"
        asked = f"where another must gain {100 * GAIN:g} points on the first"
        why[mode] = f"{what}, on {images:,} select images after {steps} steps, {asked}: {', '.join([*table, *skipped])}"
    right = scores[best["replace"]]["replace"]
    sentence = (
        f"to expect: a recogniser trained on synthetic images only names {100 * right:.1f} % of {images:,} unseen select images right, "
        f"one trained on the real images {100 * real:.1f} % ({steps} steps each; "
        "the better of what was tried, so a little too good: evaluate measures it on images that chose nothing)"
    )
    plain = (SPREADS[0], THRESHOLDS[0], f"as trained: {steps} steps of the recogniser that chooses are too few to choose for this, too")
    both = (*best["augment"], why["augment"]) if "augment" in best else plain
    chosen = _chosen(*best["replace"], why["replace"]) | {"augment": _chosen(*both)}
    expected = {"synthetic": round(right, 6), "real": round(real, 6), "images": images, "steps": steps}
    return Selected(filter, chosen | {"expected": expected}, sentence, scores)


def _best(known: Mapping[tuple[float, float], np.ndarray]) -> tuple[float, float]:
    """Return the candidate that names most of the same images right, the plain one unless it gains more than GAIN and than a standard error.

    That error is the root of the images that the two differ in, if there is no difference (McNemar 1947): a single image decides nothing.
    """
    usual = SPREADS[0], THRESHOLDS[0]
    best = max(known, key=lambda pair: (int(known[pair].sum()), -abs(pair[0] - 1), -pair[1]))
    gain, differing = int(known[best].sum()) - int(known[usual].sum()), int((known[best] != known[usual]).sum())
    return best if gain > max(math.sqrt(differing), GAIN * len(known[usual])) else usual


def _chosen(spread: float, threshold: float, why: str) -> dict[str, Any]:
    return {"spread": {"value": spread, "why": why}, "confidence": {"value": threshold, "why": why}}
