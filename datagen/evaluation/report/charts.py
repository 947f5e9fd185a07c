"""The report's charts as SVG drawn by hand: places in per cent, so that they fit any width with text of one size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from datagen.errors import printable

ARM_NAMES = {"real": "real", "synthetic": "synthetic only", "both": "real + synthetic"}
CELL_TEXT, LABELLED, DRAWN = 12, 24, 60
"""confusion matrices have numbers and names up to so many classes, and are drawn up to so many"""


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in per cent without the sign, such as 97.6; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def element(name: str, content: object = "", **attributes: Any) -> Markup:
    """Return an SVG element; attribute names take - for _, and every value is escaped."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{escape(content)}</{name}>")


def _svg(parts: Sequence[Markup], height: float, label: str, **attributes: Any) -> Markup:
    return element("svg", Markup("").join(parts), height=f"{height:g}", width="100%", role="img", aria_label=label, **attributes)


class Axis:
    """Maps values to per cent of the width; the ends are rounded outwards to whole ticks.

    Args:
        low: smallest value to show.
        high: largest value to show.
        limits: the axis never goes beyond.
    """

    def __init__(self, low: float, high: float, limits: tuple[float, float] = (0.0, 1.0)) -> None:
        span = max(high - low, 1e-3)
        rough = span / 4
        power = 10 ** math.floor(math.log10(rough))
        self.step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
        self.low = max(limits[0], math.floor(low / self.step - 0.2) * self.step)
        self.high = min(limits[1], math.ceil(high / self.step + 0.2) * self.step)

    def place(self, value: float) -> float:
        """Return per cent of the width, 1 to 99."""
        return 1 + 98 * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return the values that get a line and a number."""
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        return [self.step * i for i in range(first, last + 1)]


def arms(values: Mapping[str, Any]) -> Markup:
    """Draw each arm's accuracy as a dot with its interval; values are report.json's `arms`."""
    ends = [v["accuracy"][end] for v in values.values() for end in ("low", "high")]
    axis, row = Axis(min(ends), max(ends)), 58
    bottom = row * len(values) + 4
    parts: list[Markup] = []
    digits = 0 if axis.step >= 0.01 else 1
    for tick in axis.ticks():
        x = axis.place(tick)
        anchor = "start" if x < 6 else "end" if x > 94 else "middle"
        parts.append(element("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1=0, y2=bottom, class_="grid"))
        parts.append(element("text", f"{percent(tick, digits)} %", x=f"{x:.2f}%", y=bottom + 18, text_anchor=anchor, class_="tick"))
    for index, (arm, value) in enumerate(values.items()):
        parts += _arm(arm, value["accuracy"], value["repeats"], axis, index * row)
    return _svg(parts, bottom + 24, "accuracy of each arm with its interval", class_="arms")


def _arm(arm: str, accuracy: Mapping[str, float], repeats: Sequence[float], axis: Axis, top: float) -> list[Markup]:
    middle = top + 38
    low, mean, high = (axis.place(accuracy[end]) for end in ("low", "mean", "high"))
    words = f"{percent(accuracy['mean'])} %  ({percent(accuracy['low'])} to {percent(accuracy['high'])})"
    parts = [
        element("text", ARM_NAMES.get(arm, arm), x="1%", y=top + 20, class_="name"),
        element("text", words, x="99%", y=top + 20, text_anchor="end", class_="value"),
        element("line", x1=f"{low:.2f}%", x2=f"{high:.2f}%", y1=middle, y2=middle, class_=f"span {arm}"),
    ]
    parts += [element("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1=middle - 6, y2=middle + 6, class_=f"end {arm}") for x in (low, high)]
    parts += [element("circle", cx=f"{axis.place(value):.2f}%", cy=middle, r=2.5, class_=f"repeat {arm}") for value in repeats]
    return [*parts, element("circle", cx=f"{mean:.2f}%", cy=middle, r=7, class_=f"dot {arm}")]


def recalls(rows: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Draw one class's recall in each arm as bars from 0 to 1 with intervals; rows are `arms.*.per_class` of the class by arm."""
    parts, height = [], 11
    for index, (arm, row) in enumerate(rows.items()):
        top, width = index * height, 100 * (row["recall"] or 0.0)
        parts.append(element("rect", x=0, y=top, width="100%", height=height - 3, class_="track", rx=2))
        parts.append(element("rect", x=0, y=top, width=f"{width:.2f}%", height=height - 3, class_=f"bar {arm}", rx=2))
        if row["low"] is not None:
            ends = {"x1": f"{100 * row['low']:.2f}%", "x2": f"{100 * row['high']:.2f}%"}
            parts.append(element("line", **ends, y1=top + (height - 3) / 2, y2=top + (height - 3) / 2, class_="whisker"))
    words = ", ".join(f"{ARM_NAMES.get(arm, arm)} {percent(row['recall'])} %" for arm, row in rows.items())
    return _svg(parts, height * len(rows), f"recall: {words}")


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup | None:
    """Draw a matrix of confusions, rows true and columns predicted, as shares of the row; None with more than 60 classes."""
    size = len(classes)
    if size > DRAWN:
        return None
    names = [_short(name) for name in classes]
    margin = 3 + 2.6 * max(map(len, names)) if size <= LABELLED else 0.0
    parts = [element("rect", x=0, y=0, width=10 * size, height=10 * size, class_="paper")]
    if margin:
        parts += [element("text", name, x=-2, y=10 * i + 6.1, text_anchor="end", class_="label") for i, name in enumerate(names)]
        parts += [element("text", name, transform=f"translate({10 * i + 6.1:g} -2) rotate(-90)", class_="label") for i, name in enumerate(names)]
    for row, line in enumerate(counts):
        total = max(1, sum(line))
        for column, count in enumerate(line):
            if count:
                parts += _cell(row, column, count / total, size, f"{printable(classes[row])} taken for {printable(classes[column])}")
    side = margin + 10 * size
    label = "matrix of confusions, rows are true classes"
    box = f"{-margin:g} {-margin:g} {side:g} {side:g}"
    return element("svg", Markup("").join(parts), viewBox=box, role="img", aria_label=label, class_="matrix")


def _short(name: str) -> str:
    """Return a class name of at most nine characters, safe to show."""
    name = printable(name)
    return name if len(name) <= 9 else name[:8] + "…"


def _cell(row: int, column: int, share: float, size: int, title: str) -> list[Markup]:
    kind = "hit" if row == column else "miss"
    shade = f"{min(1.0, 0.12 + 0.88 * share if kind == 'hit' else 0.15 + 1.7 * share):.2f}"
    box = element("title", f"{title}: {percent(share)} %")
    parts = [element("rect", box, x=column * 10, y=row * 10, width=9.4, height=9.4, rx=1, class_=kind, fill_opacity=shade)]
    if size <= CELL_TEXT and round(100 * share):
        dark = " strong" if float(shade) > 0.55 else ""
        parts.append(element("text", f"{100 * share:.0f}", x=column * 10 + 4.7, y=row * 10 + 6.1, text_anchor="middle", class_=f"number{dark}"))
    return parts


def boxes(quantiles: Mapping[str, Sequence[float]]) -> Markup:
    """Draw the distances to the nearest training image, of synthetic and of unseen real images: 1-99, 25-75 per cent and median.

    Args:
        quantiles: report.json's `neighbours.quantiles`.
    """
    at = {int(p): i for i, p in enumerate(quantiles["percent"])}
    shown = {"synthetic": "synthetic images", "unseen": "unseen real images"}
    top_value = max(quantiles[name][at[95]] for name in shown) * 1.15 or 1.0
    parts: list[Markup] = []
    for index, (name, title) in enumerate(shown.items()):
        x = {p: min(98.0, 1 + 97 * quantiles[name][i] / top_value) for p, i in at.items()}
        y, kind = index * 50, "synthetic" if name == "synthetic" else "real"
        parts.append(element("text", title, x="1%", y=y + 16, class_="name"))
        parts.append(element("line", x1=f"{x[1]:.2f}%", x2=f"{x[95]:.2f}%", y1=y + 32, y2=y + 32, class_=f"span {kind}"))
        parts.append(element("rect", x=f"{x[25]:.2f}%", width=f"{max(0.4, x[75] - x[25]):.2f}%", y=y + 24, height=16, rx=3, class_=f"box {kind}"))
        parts.append(element("line", x1=f"{x[50]:.2f}%", x2=f"{x[50]:.2f}%", y1=y + 22, y2=y + 42, class_="median"))
    return _svg(parts, 96, "distances to the nearest training image", class_="boxes")


def pair(value: float, floor: float) -> Markup:
    """Draw a distance above its floor as two bars on one scale."""
    top = max(value, floor, 1e-12) * 1.02
    parts = []
    for index, (kind, number) in enumerate({"synthetic": value, "real": floor}.items()):
        width = max(0.4, 100 * max(0.0, number) / top)
        parts.append(element("rect", x=0, y=index * 14, width="100%", height=10, class_="track", rx=2))
        parts.append(element("rect", x=0, y=index * 14, width=f"{width:.2f}%", height=10, class_=f"bar {kind}", rx=2))
    return _svg(parts, 26, "distance of synthetic images, and of real images among themselves")
