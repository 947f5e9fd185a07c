"""The report's plots of intervals, distances and pairs of numbers as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from datagen.pages.svg import Axis, bar, drawing, element, percent, rule, words

CROWDED = 5
"""numbers of a scale, above which every second one is left out in a narrow window"""


@dataclass(frozen=True)
class Row:
    """One line of a plot of intervals.

    Attributes:
        kind: name of the arm, which decides the colour.
        title: in words.
        mean, low, high: fractions.
        repeats: single values beside the mean.
        base: whether this is the one to beat.
    """

    kind: str
    title: str
    mean: float
    low: float
    high: float
    repeats: Sequence[float] = ()
    base: bool = False


def intervals(rows: Sequence[Row], label: str) -> Markup:
    """Draw shares as dots with their intervals, one row each; the one to beat has a ring and a line through all rows."""
    axis, row = Axis(min(r.low for r in rows), max(r.high for r in rows)), 54
    head = 16 if any(r.base for r in rows) else 0
    bottom = head + row * len(rows) + 4
    parts: list[Markup] = []
    for index, tick in enumerate(ticks := axis.ticks()):
        kind = "tick spare" if index % 2 and len(ticks) > CROWDED else "tick"
        parts += [rule(axis.place(tick), head, bottom, "grid"), words(axis.named(tick), axis.place(tick), bottom + 18, kind)]
    for each in rows:
        if each.base:
            parts += [rule(axis.place(each.mean), head, bottom, "beat"), words("to beat", axis.place(each.mean), 11, "tick")]
    for index, each in enumerate(rows):
        parts += _row(each, axis, head + index * row)
    return drawing(parts, bottom + 24, label, class_="arms")


def _row(row: Row, axis: Axis, top: float) -> list[Markup]:
    middle = top + 36
    low, mean, high = (axis.place(value) for value in (row.low, row.mean, row.high))
    parts = [
        words(row.title, 1, top + 19, "name halo", anchor="start"),
        words(f"{percent(row.mean)} % ({percent(row.low)} to {percent(row.high)})", 99, top + 19, "value halo", anchor="end"),
        bar(low, high, middle, f"span {row.kind}"),
        *(rule(x, middle - 6, middle + 6, f"end {row.kind}") for x in (low, high)),
    ]
    parts += [element("circle", cx=f"{axis.place(value):.2f}%", cy=middle, r=2.5, class_=f"repeat {row.kind}") for value in row.repeats]
    ring = [element("circle", cx=f"{mean:.2f}%", cy=middle, r=10.5, class_="ring")] if row.base else []
    return [*parts, *ring, element("circle", cx=f"{mean:.2f}%", cy=middle, r=6.5, class_=f"dot {row.kind}")]


class Around:
    """A scale about zero that several small drawings share.

    Args:
        reach: the largest difference to show, a fraction above 0; more is cut.
    """

    def __init__(self, reach: float) -> None:
        reach = min(1.0, max(reach, 1e-3))
        power = 10 ** math.floor(math.log10(reach))
        self.reach = next(power * m for m in (1, 2, 5, 10) if power * m >= reach * 0.999)

    def place(self, value: float) -> float:
        """Return per cent of the width, 2 to 98, zero in the middle."""
        return 50 + 48 * max(-1.0, min(1.0, value / self.reach))

    def scale(self) -> Markup:
        """Draw the numbers of the scale in points, for the head of a column."""
        named = {value: f"{100 * value:+.3g}".replace("-", "−") for value in (-self.reach, self.reach)} | {0.0: "0"}
        return drawing([words(text, self.place(value), 12, "tick") for value, text in named.items()], 16, "scale in points")

    def draw(self, mean: float, low: float, high: float, kind: str) -> Markup:
        """Draw a difference with its interval; the kind (gain, loss or even) decides the colour."""
        parts = [rule(50, 0, 20, "zero"), bar(self.place(low), self.place(high), 10, f"span {kind}")]
        parts.append(element("circle", cx=f"{self.place(mean):.2f}%", cy=10, r=4.5, class_=f"dot {kind}"))
        return drawing(parts, 20, f"{100 * mean:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}")


def boxes(quantiles: Mapping[str, Sequence[float]]) -> Markup:
    """Draw the distances to the nearest training image, of synthetic and of unseen real images: 1-95, 25-75 per cent and median.

    Args:
        quantiles: of the finding "copies": percent, and by kind of image the distances at those percentiles.
    """
    at = {int(p): i for i, p in enumerate(quantiles["percent"])}
    shown = {"synthetic": "synthetic images", "unseen": "unseen real images"}
    top_value = max(quantiles[name][at[95]] for name in shown) * 1.15 or 1.0
    parts: list[Markup] = []
    for index, (name, title) in enumerate(shown.items()):
        x = {p: min(98.0, 1 + 97 * quantiles[name][i] / top_value) for p, i in at.items()}
        y, kind = index * 50, "synthetic" if name == "synthetic" else "real"
        parts += [words(title, 1, y + 16, "name", anchor="start"), bar(x[1], x[95], y + 32, f"span {kind}")]
        parts.append(element("rect", x=f"{x[25]:.2f}%", width=f"{max(0.4, x[75] - x[25]):.2f}%", y=y + 24, height=16, rx=3, class_=f"box {kind}"))
        parts.append(rule(x[50], y + 22, y + 42, "median"))
    return drawing(parts, 96, "distances to the nearest training image", class_="boxes")


def pair(value: float, floor: float) -> Markup:
    """Draw a distance above its floor as two bars on one scale."""
    top = max(value, floor, 1e-12) * 1.02
    parts = []
    for index, (kind, number) in enumerate({"synthetic": value, "real": floor}.items()):
        width = max(0.4, 100 * max(0.0, number) / top)
        parts.append(element("rect", x=0, y=index * 12, width="100%", height=8, class_="track", rx=2))
        parts.append(element("rect", x=0, y=index * 12, width=f"{width:.2f}%", height=8, class_=f"bar {kind}", rx=2))
    return drawing(parts, 20, "synthetic images, and real images among themselves")
