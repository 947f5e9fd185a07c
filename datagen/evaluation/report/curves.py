"""The report's curves as SVG: the recogniser's learning curve over real images, and the sweeps of ratio and amount."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from datagen.pages.svg import Axis, bar, drawing, element, percent, rule, words

LEFT, RIGHT = 13.0, 97.0
TOP, BOTTOM = 14.0, 226.0


class Frame:
    """The area of a curve: numbers over a log scale to the right, shares upwards.

    Args:
        at: positive numbers that get a tick, ascending.
        shares: fractions that must be inside.
    """

    def __init__(self, at: Sequence[float], shares: Sequence[float]) -> None:
        self.at, self.axis = at, Axis(min(shares), max(shares))
        self.low, self.high = math.log(at[0]), math.log(at[-1])

    def x(self, value: float) -> float:
        """Return per cent of the width; numbers beyond the ends are cut there."""
        if self.high == self.low:
            return (LEFT + RIGHT) / 2
        share = (math.log(max(value, 1e-9)) - self.low) / (self.high - self.low)
        return LEFT + 3 + (RIGHT - LEFT - 6) * max(0.0, min(1.0, share))

    def y(self, share: float) -> float:
        """Return pixels from the top."""
        return BOTTOM - (BOTTOM - TOP) * self.axis.share(share)

    def grid(self, below: str) -> list[Markup]:
        """Draw the lines and numbers of both scales, and what the lower one counts."""
        parts = []
        for tick in self.axis.ticks():
            parts += [bar(LEFT, RIGHT, self.y(tick), "grid"), words(self.axis.named(tick), LEFT - 1.5, self.y(tick) + 4, "tick", anchor="end")]
        parts += [words(f"{value:,g}" if value < 1e6 else f"{value:.3g}", self.x(value), BOTTOM + 18, "tick", anchor="middle") for value in self.at]
        return [*parts, words(below, (LEFT + RIGHT) / 2, BOTTOM + 36, "tick", anchor="middle")]

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> list[Markup]:
        """Draw straight pieces between (number, share)."""
        ends = [(self.x(at), self.y(share)) for at, share in points]
        pairs = itertools.pairwise(ends)
        return [element("line", x1=f"{a:.2f}%", y1=f"{b:.1f}", x2=f"{c:.2f}%", y2=f"{d:.1f}", class_=f"fit {kind}") for (a, b), (c, d) in pairs]

    def dot(self, at: float, share: float, kind: str) -> Markup:
        """Draw a point."""
        return element("circle", cx=f"{self.x(at):.2f}%", cy=f"{self.y(share):.1f}", r=4.5, class_=f"dot {kind}")


def learning(found: Mapping[str, Any]) -> Markup | None:
    """Draw the learning curve with the accuracy of the synthetic images; where the two meet is what these are worth.

    Args:
        found: report.json's `measures.exchange`; None comes out where it has no points, or no accuracy of synthetic images alone.
    """
    points, level = found.get("points"), found.get("synthetic")
    if not points or level is None:
        return None
    frame = Frame([p["images"] for p in points], [level, *(p["accuracy"] for p in points), *(p["fitted"] for p in points)])
    parts = frame.grid("real training images")
    y = frame.y(level)
    parts += _worth(frame, found, y)
    parts.append(bar(LEFT, RIGHT, y, "level synthetic"))
    parts += frame.line([(p["images"], p["fitted"]) for p in points], "real")
    parts += [frame.dot(p["images"], p["accuracy"], "real") for p in points]
    if found["images"] is not None:
        parts.append(element("circle", cx=f"{frame.x(found['images']):.2f}%", cy=f"{y:.1f}", r=6, class_="meet"))
    right = level < points[0]["fitted"] or (points[0]["fitted"] + points[-1]["fitted"]) / 2 > level
    anchor, x = ("end", RIGHT) if right else ("start", LEFT + 1)
    parts.append(words(f"synthetic only {percent(level)} %", x, y + (16 if right and y < BOTTOM - 20 else -7), "name halo synthetic", anchor=anchor))
    return drawing(parts, BOTTOM + 62, f"learning curve over real images, {_bound(found)}", class_="curve")


def _worth(frame: Frame, found: Mapping[str, Any], y: float) -> list[Markup]:
    """Draw where the synthetic accuracy meets the curve, with its interval along the lower scale, and say it below."""
    parts: list[Markup] = []
    low, high, base = found.get("low"), found.get("high"), BOTTOM
    if low is not None or high is not None:
        left, right = frame.x(low if low else frame.at[0]), frame.x(high if high is not None else frame.at[-1])
        parts.append(element("rect", x=f"{left:.2f}%", width=f"{max(0.5, right - left):.2f}%", y=f"{TOP:g}", height=f"{base - TOP:g}", class_="band"))
    if found["images"] is not None:
        parts.append(rule(frame.x(found["images"]), y, base, "drop"))
    return [*parts, words(_bound(found), (LEFT + RIGHT) / 2, base + 56, "name synthetic", anchor="middle")]


def _bound(found: Mapping[str, Any]) -> str:
    """Return in a few words how many real images the synthetic ones equal."""
    points = found["points"]
    if found["bound"] == "above":
        return f"above the curve: worth all {points[-1]['images']:,} real images or more"
    if found["bound"] == "flat":
        return "the curve is too flat to tell how many real images they are worth"
    if found["bound"] == "below":
        return f"below the curve: worth fewer than {points[0]['images']:,} real images"
    return "no number could be read" if found["images"] is None else f"worth about {found['images']:,.0f} real images"


def sweep(points: Sequence[Mapping[str, Any]], kind: str, below: str, level: tuple[str, float] | None = None) -> Markup:
    """Draw accuracies with their intervals by what was swept.

    Args:
        points: report.json's `measures.sweep_*.points`, at least one.
        kind: of the arm, which decides the colour.
        below: what the lower scale counts.
        level: words and accuracy of another arm, drawn as a level line.
    """
    points = sorted(points, key=lambda point: point["at"])
    inside = [value for p in points for value in (p["low"], p["high"])] + ([level[1]] if level else [])
    frame = Frame([p["at"] for p in points], inside)
    parts = frame.grid(below)
    if level:
        parts.append(bar(LEFT, RIGHT, frame.y(level[1]), "level real"))
        parts.append(words(f"dashed: {level[0]} {percent(level[1])} %", (LEFT + RIGHT) / 2, BOTTOM + 53, "tick", anchor="middle"))
    parts += frame.line([(p["at"], p["mean"]) for p in points], kind)
    parts += [rule(frame.x(p["at"]), frame.y(p["high"]), frame.y(p["low"]), f"span {kind}") for p in points]
    parts += [frame.dot(p["at"], p["mean"], kind) for p in points]
    return drawing(parts, BOTTOM + 58, f"accuracy by {below}", class_="curve")
