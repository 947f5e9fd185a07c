"""How many real images the synthetic set equals, read off the recogniser's learning curve over real images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from datagen.evaluation import curve
from datagen.evaluation.curve import Equal
from datagen.evaluation.experiment import CURVE, Context
from datagen.evaluation.measures.downstream import rounded
from datagen.records import Finding

FEWEST = 0.002
"""standard deviation of one training's accuracy where repeats do not tell, at least"""


class Exchange:
    """How many real images the synthetic set equals."""

    keys: ClassVar[Mapping[str, str]] = {
        "exchange.points": "the recogniser's learning curve over real images, ascending, every point trained for the same steps",
        "exchange.points.images": "real training images",
        "exchange.points.accuracy": "share of unseen real images named right, mean over the repeats",
        "exchange.points.fitted": "the same after the monotone fit",
        "exchange.synthetic": "the same of a recogniser trained on synthetic images only, for as many steps; null, and no more said, where they lack classes",
        "exchange.images": "real images that give the accuracy of the synthetic ones; null where the curve does not reach it",
        "exchange.low": "lower end of its 95 % interval; null where no draw of the bootstrap is on the curve",
        "exchange.high": "upper end; null where it lies above the curve's top",
        "exchange.bound": "above: the synthetic images equal at least as many as there are; below: fewer than the smallest subsample; flat: untold; empty else",
        "exchange.rate": "what 1,000 synthetic images are worth in real ones; null where no number could be read",
        "exchange.rate_low": "lower end of its interval",
        "exchange.rate_high": "upper end",
        "exchange.deviation": "standard deviation of the accuracy of one training, that the interval allows for",
        "exchange.steps": "of every point",
        "exchange.repeats": "of every point",
    }

    def measure(self, context: Context) -> Finding:
        """Return the number of real images that a recogniser would need to do as well as on the synthetic ones alone."""
        points = sorted(int(name.split()[1]) for name in context.names() if name.startswith(f"{CURVE} ") and name.split()[1].isdigit())
        own = f"{CURVE} synthetic"
        if not points or own not in context.names():
            why = "they lack classes, so that nothing is trained on them alone" if points else "there is no learning curve"
            sentence = f"How many real images the synthetic ones equal was not measured: {why}."
            return Finding("exchange", math.nan, math.nan, math.nan, sentence, {"points": _points(context, points), "synthetic": None} if points else {})
        correct = [context.correct(f"{CURVE} {count}") for count in points]
        found = curve.equal(points, correct, context.correct(own), deviation=_deviation(context), seed=context.seed, groups=context.groups)
        details = _details(context, points, found)
        return Finding("exchange", _known(found.images), _known(found.low), _known(found.high), _sentence(context, points, found), details)


def _deviation(context: Context) -> float:
    """Return the standard deviation of one training's accuracy, from the repeats of the arms."""
    spreads = [context.correct(arm).mean(axis=1) for arm in ("real", "synthetic") if len(context.results(arm)) > 1]
    return max([FEWEST, *(float(values.std(ddof=1)) for values in spreads)])


def _known(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _points(context: Context, points: list[int]) -> list[dict[str, Any]]:
    accuracies = np.array([context.correct(f"{CURVE} {count}").mean() for count in points])
    return [{"images": n, "accuracy": rounded(a), "fitted": rounded(f)} for n, a, f in zip(points, accuracies, curve.monotone(accuracies), strict=True)]


def _details(context: Context, points: list[int], found: Equal) -> dict[str, Any]:
    scale = 1000 / len(context.synthetic)
    own = context.results(f"{CURVE} synthetic")
    numbers = {"images": math.nan if found.bound else found.images, "low": math.nan if found.bound == "flat" else found.low, "high": found.high}
    rates = {f"rate{end}": numbers[name] * scale for end, name in {"": "images", "_low": "low", "_high": "high"}.items()}
    return {
        "points": _points(context, points),
        "synthetic": rounded(float(context.correct(f"{CURVE} synthetic").mean())),
        **{key: None if math.isinf(value) or math.isnan(value) else round(value, 1) for key, value in (numbers | rates).items()},
        "bound": found.bound,
        "deviation": rounded(_deviation(context)),
        "steps": own[0].steps,
        "repeats": len(own),
    }


def _sentence(context: Context, points: list[int], found: Equal) -> str:
    soft = ", learnt by soft labels," if context.labelled("synthetic") == "soft" else ""
    made = f"These {len(context.synthetic):,} synthetic images alone{soft}"
    if found.bound == "flat":
        return (
            f"How many real images {made[0].lower()}{made[1:]} are worth cannot be told: with {points[0]:,} or {points[-1]:,} real ones "
            "the recogniser does equally well, as far as these unseen images show."
        )
    if found.bound == "above":
        least = f"; 95 % sure of {found.low:,.0f} at least" if not math.isinf(found.low) and found.low < points[-1] else ""
        return f"{made} teach the recogniser as much as at least {points[-1]:,} real ones, all there are{least}."
    if found.bound == "below":
        return f"{made} teach the recogniser less than {points[0]:,} real ones do."
    high = "more than there are" if math.isinf(found.high) else f"{found.high:,.0f}"
    rate = 1000 * found.images / len(context.synthetic)
    equal = f"as much as about {found.images:,.0f} real ones (95 % interval {found.low:,.0f} to {high})"
    return f"{made} teach the recogniser {equal}: 1,000 of them are worth about {rate:,.0f} real ones."
