"""What to know before a verdict is believed, and what to try next, in order, from the figures of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAR, ROOM, SMALL_TEST, WIDE = 0.05, 0.02, 500, 0.01
COPIES = 0.03
UNEVEN = 0.1
"""share of the synthetic images that would have to change class, beyond that of real ones"""
PLENTY, LONGER = 5, 4
WORST = 3


def next_steps(report: Mapping[str, Any]) -> list[str]:
    """Return what to try next, most promising first, from the figures of a report (its caution, arms, differences, measures, data)."""
    found = [
        *_longer(report),
        *_again(report),
        *_shortcut(report),
        *_generator(report),
        *_diluted(report),
        *_rival(report),
        *_ratio(report),
        *_measuring(report),
    ]
    if report["verdict"]["kind"] == "helps":
        return [f"More images of each class (datagen synthesize --per-class) may help further; {_numbers(report)}", *found[:2]]
    return found or ["More images of each class (datagen synthesize --per-class), then another family (datagen fit --family)."]


def _made(report: Mapping[str, Any]) -> int:
    """Return how many images the set has that the report is about."""
    sets = report["data"]["synthetic"]
    return int(sets.get(report["verdict"]["set"], next(iter(sets.values())))["images"])


def _numbers(report: Mapping[str, Any]) -> str:
    return f"now {_made(report):,} synthetic beside {report['data']['real']['images']:,} real ones."


def _measure(report: Mapping[str, Any], name: str, key: str) -> Any:
    return report["measures"].get(name, {}).get(key)


def _mean(report: Mapping[str, Any], arm: str) -> float | None:
    return report["arms"][arm]["accuracy"]["mean"] if arm in report["arms"] else None


def caution(report: Mapping[str, Any]) -> str | None:
    """Return a sentence where the recogniser was far from trained."""
    return _weak(report)


def _weak(report: Mapping[str, Any]) -> str | None:
    """Return a sentence where the recogniser learnt nothing to speak of from real images, or was still learning.

    Nothing: its interval holds the share of the largest class. Still learning: the learning curve's last point, which has all real
    images and half of the steps, lies far below.
    """
    real, points = _mean(report, "real"), _measure(report, "exchange", "points")
    if real is not None and report["arms"]["real"]["accuracy"]["low"] <= (most := _largest(report)):
        return (
            f"The recogniser learnt hardly anything: trained on the real images it names {100 * real:.1f} % of the unseen ones right, and naming the largest "
            f"class always would get {100 * most:.1f} %. No verdict can be had from that."
        )
    if real is None or not points or points[-1]["images"] != report["data"]["real"]["images"] or real - points[-1]["accuracy"] <= FAR:
        return None
    steps, half = report["measured"]["settings"]["steps"], points[-1]["accuracy"]
    return (
        f"This verdict is about a weak recogniser, which was still learning: on real images it named {100 * half:.1f} % right after half of its "
        f"{steps:,} steps and {100 * real:.1f} % after all."
    )


def _largest(report: Mapping[str, Any]) -> float:
    """Return the share of the largest class among the unseen images."""
    counts = [row["images"] for row in report["arms"]["real"]["per_class"]]
    return max(counts) / sum(counts)


def _longer(report: Mapping[str, Any]) -> list[str]:
    if not _weak(report):
        return []
    steps = LONGER * report["measured"]["settings"]["steps"]
    return [f"Train the recogniser longer before anything else, as it was still learning: --steps {steps} into another --out, or a GPU."]


def _again(report: Mapping[str, Any]) -> list[str]:
    if report["verdict"]["kind"] != "unclear":
        return []
    return ["Train every arm more often: the same command with --repeats 3 keeps what is trained and adds what is missing."]


def _shortcut(report: Mapping[str, Any]) -> list[str]:
    if not _measure(report, "focus_shortcut", "suspected"):
        return []
    return [
        "The recogniser takes blur for the class in focus: its synthetic images are told by their look, not by what they show. "
        "Make synthetic images of the other classes too, not of this one alone, or fit longer so that they are as sharp."
    ]


def _generator(report: Mapping[str, Any]) -> list[str]:
    real, synthetic = _mean(report, "real"), _mean(report, "synthetic")
    steps = []
    gap = 0.0 if synthetic is None or real is None else real - synthetic
    if gap > FAR:
        steps += _uneven(report)
        steps.append(
            f"The generator is the limit: trained on synthetic images alone the recogniser loses {100 * gap:.1f} points. Fit longer "
            "(datagen fit --budget), or try another family (--family) before anything else."
        )
        steps.append(_worst(report))
    if (_measure(report, "copies", "low") or 0.0) > COPIES and _measure(report, "copies", "departs"):
        steps.append(
            "Many synthetic images lie very near to training images (see the closest pairs): the generator repeats what it saw, which teaches "
            "nothing new. Fit for fewer images (--images), or to more real ones."
        )
    taught = not _weak(report) and _measure(report, "exchange", "bound") != "below"
    if 0 < gap <= FAR and taught and report["verdict"]["kind"] != "harms" and _made(report) < PLENTY * report["data"]["real"]["images"]:
        steps.append(f"The synthetic images are nearly as good as real ones. Make more of them (datagen synthesize --per-class); {_numbers(report)}")
    return steps


def _uneven(report: Mapping[str, Any]) -> list[str]:
    """Say so where real and unseen images are shared out alike among the classes, and synthetic ones otherwise."""
    apart, floor = _measure(report, "balance", "apart_test"), _measure(report, "balance", "floor")
    if apart is None or floor is None or apart - floor <= UNEVEN:
        return []
    return [
        f"Share the synthetic images out among the classes as the real ones are (datagen synthesize --count {report['data']['real']['images']} --proportions "
        f"real): {100 * apart:.0f} % of them would have to be of other classes to match the unseen images, which costs a recogniser trained on them alone."
    ]


def _diluted(report: Mapping[str, Any]) -> list[str]:
    """Say what to do where synthetic images, though they teach something, take the place of better real ones."""
    if report["verdict"]["kind"] != "harms":
        return []
    return [
        f"Beside {report['data']['real']['images']:,} real images the synthetic ones take the place of better ones in every batch. Use fewer of them "
        "(datagen evaluate --full tries 0.25 to 10 for each real one), or only for classes of few images (datagen synthesize --balance-with FOLDER)."
    ]


def _worst(report: Mapping[str, Any]) -> str:
    """Return a sentence on the classes whose recall suffers most when only synthetic images are trained on."""
    rows = zip(report["arms"]["real"]["per_class"], report["arms"]["synthetic"]["per_class"], strict=True)
    lost = sorted(((a["recall"] - b["recall"], a["class"]) for a, b in rows if a["recall"] is not None), reverse=True)[:WORST]
    named = ", ".join(f"{_short(name)} (−{100 * loss:.0f} points)" for loss, name in lost if loss > 0)
    return f"Look at the classes that lose most, {named}: their synthetic images below show what the generator misses."


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:39] + "…"


def _rival(report: Mapping[str, Any]) -> list[str]:
    """Say so where synthetic images help real ones alone, but not beyond what costs nothing."""
    base, plain = report["verdict"]["base"], report["differences"].get("both-real")
    if base == "real" or report["verdict"]["kind"] == "helps" or plain is None or plain["low"] <= 0:
        return []
    cheap = {"classical": "classically augmented copies", "weighted": "class weights", "oversampled": "oversampling of the rarer classes"}.get(base, base)
    return [
        f"Synthetic images help the real ones alone, but {cheap} give as much and cost nothing: use these, and see whether synthetic images of the rarest "
        "classes (datagen synthesize --classes) add to them."
    ]


def _ratio(report: Mapping[str, Any]) -> list[str]:
    points, both = _measure(report, "sweep_ratio", "points") or [], _mean(report, "both")
    best = max(points, key=lambda point: point["mean"], default=None)
    if best is None or both is None or best["low"] <= both:
        return []
    return [
        f"Another share of synthetic images did better: {best['at']:g} for each real one gave {100 * best['mean']:.1f} %. Confirm it on fresh images, since "
        "this sweep was scored on the unseen ones."
    ]


def _measuring(report: Mapping[str, Any]) -> list[str]:
    real, test = _mean(report, "real"), report["data"]["test"]["images"]
    difference = report["differences"].get(f"both-{report['verdict']['base']}", report["differences"]["both-real"])
    half = (difference["high"] - difference["low"]) / 2
    steps = []
    if real is not None and 1 - real < ROOM:
        steps.append(
            f"There is little to gain: real images alone reach {100 * real:.1f} %. Synthetic images matter more where real ones are few; "
            "measure on a harder test, or with fewer real images."
        )
    if half > WIDE:
        remedy = "more unseen real images" if test < SMALL_TEST else f"more repeats (--repeats {max(5, 2 * report['measured']['repeats'])})"
        steps.append(f"The interval is wide, ±{100 * half:.1f} points: {remedy} would show smaller differences.")
    if report["measured"]["limited"] and not _weak(report) and report["measured"]["command"] is None:
        steps.append("The recogniser trained for fewer steps than planned because this machine is slow; --steps or a GPU gives it longer.")
    return steps
