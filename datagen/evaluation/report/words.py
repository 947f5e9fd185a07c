"""The report's sentences: which recogniser saw which images, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datagen.evaluation.experiment import Context
from datagen.evaluation.inputs import Inputs
from datagen.evaluation.plan import Plan

FAR, ROOM, SMALL_TEST, WIDE = 0.05, 0.02, 500, 0.01
COPIES = 0.03
PLENTY = 5
WORST = 3


def saw(context: Context, found: Inputs, planned: Plan) -> list[str]:
    """Return sentences that a reviewer can check: what was trained on what, and who saw the unseen images."""
    s, data = planned.settings, found.described
    channels, height, width = found.shape
    augmented = f"changed at random by {s.augment.replace(',', ' and ')}, never mirrored" if s.augment != "none" else "not augmented"
    sentences = [
        f"Every arm trains the same recogniser ({s.recogniser}) from scratch for {s.steps:,} steps of {s.batch} images, {augmented}. "
        f"Equal repeats of all arms begin with the same weights; {planned.repeats} {'repeat' if planned.repeats == 1 else 'repeats'} an arm.",
        f"Real trains on {len(context.real):,} real images, synthetic on {len(context.synthetic):,} synthetic ones, real + synthetic on both, "
        "half of every batch from each, so that it sees each real image half as often in the same number of steps.",
        f"All are tested on the same {len(context.test):,} unseen real images, after the last step. No step, setting or checkpoint was chosen by them.",
        f"Real images were brought to the shape of the synthetic ones, {height}x{width} {'grey' if channels == 1 else 'RGB'} ({data['resize']}).",
        "No unseen image has exactly the pixels of a training image or of a synthetic one; that was checked before training.",
        "Distances and neighbours use the features of one more recogniser of the same kind, trained on the real training images with a seed of its own.",
    ]
    return [*sentences, _generator(found)]


def _generator(found: Inputs) -> str:
    data = found.described
    if data["run"] is not None:
        kept = "held out by the run's own key" if data["test"]["held_out"] else "the run's own test images"
        return f"The unseen images are {kept}: the generator of {data['run']} was not fitted to them."
    if data["test"]["held_out"]:
        return "The unseen images were held out here. Only with --run RUN does this report know that the generator was fitted without them."
    return "The unseen images are a folder of their own. Whether the generator was fitted without them, this report cannot know."


def next_steps(report: Mapping[str, Any]) -> list[str]:
    """Return what to try next, most promising first, from the figures of a report (its arms, differences, neighbours, data)."""
    kind, arms = report["verdict"]["kind"], report["arms"]
    real, synthetic = (arms[name]["accuracy"]["mean"] for name in ("real", "synthetic"))
    found = [*_generator_steps(report, real, synthetic), *_measuring_steps(report, real)]
    if kind == "helps":
        return [f"More images of each class (datagen synthesize --per-class) may help further; {_ratio(report)}", *found[:2]]
    return found or ["More images of each class (datagen synthesize --per-class), then another family (datagen fit --family)."]


def _ratio(report: Mapping[str, Any]) -> str:
    data = report["data"]
    return f"now {data['synthetic']['images']:,} synthetic beside {data['real']['images']:,} real ones."


def _generator_steps(report: Mapping[str, Any], real: float, synthetic: float) -> list[str]:
    gap = real - synthetic
    steps = []
    if gap > FAR:
        steps.append(
            f"The generator is the limit: trained on synthetic images alone the recogniser loses {100 * gap:.1f} points. Fit longer "
            "(datagen fit --budget), or try another family (--family) before anything else."
        )
        steps.append(_worst(report))
    share = (report["neighbours"] or {}).get("share", {}).get("low") or 0.0
    if share > COPIES:
        steps.append(
            "Many synthetic images lie very near to training images (see the closest pairs): the generator repeats what it saw, which teaches "
            "nothing new. Fit for fewer images (--images), or to more real ones."
        )
    if 0 < gap <= FAR and report["data"]["synthetic"]["images"] < PLENTY * report["data"]["real"]["images"]:
        steps.append(f"The synthetic images are nearly as good as real ones. Make more of them (datagen synthesize --per-class); {_ratio(report)}")
    return steps


def _worst(report: Mapping[str, Any]) -> str:
    """Return a sentence on the classes whose recall suffers most when only synthetic images are trained on."""
    rows = zip(report["arms"]["real"]["per_class"], report["arms"]["synthetic"]["per_class"], strict=True)
    lost = sorted(((a["recall"] - b["recall"], a["class"]) for a, b in rows if a["recall"] is not None), reverse=True)[:WORST]
    named = ", ".join(f"{_short(name)} (−{100 * loss:.0f} points)" for loss, name in lost if loss > 0)
    return f"Look at the classes that lose most, {named}: their synthetic images below show what the generator misses."


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:39] + "…"


def _measuring_steps(report: Mapping[str, Any], real: float) -> list[str]:
    difference, test = report["differences"]["both-real"], report["data"]["test"]["images"]
    half = (difference["high"] - difference["low"]) / 2
    steps = []
    if 1 - real < ROOM:
        steps.append(
            f"There is little to gain: real images alone reach {100 * real:.1f} %. Synthetic images matter more where real ones are few; "
            "measure on a harder test, or with fewer real images."
        )
    if half > WIDE:
        remedy = "more unseen real images" if test < SMALL_TEST else "more repeats (--repeats 5)"
        steps.append(f"The interval is wide, ±{100 * half:.1f} points: {remedy} would show smaller differences.")
    if report["measured"]["limited"]:
        steps.append("The recogniser trained for fewer steps than planned because this machine is slow; --steps or a GPU gives it longer.")
    return steps
