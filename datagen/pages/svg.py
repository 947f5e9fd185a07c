"""Drawings as SVG by hand: places in per cent of the width, so that they fit any width with text of one size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in per cent without the sign, such as 97.6; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def element(name: str, content: object = "", **attributes: object) -> Markup:
    """Return an SVG element; attribute names take - for _, and every value is escaped."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{escape(content)}</{name}>")


def drawing(parts: Sequence[Markup], height: float, label: str, **attributes: object) -> Markup:
    """Return an SVG as wide as its place and `height` pixels high, with a label for those who do not see it."""
    return element("svg", Markup("").join(parts), height=f"{height:g}", width="100%", role="img", aria_label=label, **attributes)


def rule(x: float, top: float, bottom: float, kind: str) -> Markup:
    """Return an upright line at x per cent of the width, from `top` to `bottom` in pixels."""
    return element("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1=f"{top:g}", y2=f"{bottom:g}", class_=kind)


def bar(left: float, right: float, y: float, kind: str) -> Markup:
    """Return a level line between two places in per cent of the width, y in pixels."""
    return element("line", x1=f"{left:.2f}%", x2=f"{right:.2f}%", y1=f"{y:g}", y2=f"{y:g}", class_=kind)


def words(text: str, x: float, y: float, kind: str, *, anchor: str = "") -> Markup:
    """Return a text at x per cent of the width and y pixels; it keeps inside the drawing unless an anchor is given."""
    anchor = anchor or ("start" if x < 8 else "end" if x > 92 else "middle")
    return element("text", text, x=f"{x:.2f}%", y=f"{y:g}", text_anchor=anchor, class_=kind)


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

    def share(self, value: float) -> float:
        """Return where a value lies between the ends, 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def place(self, value: float) -> float:
        """Return per cent of the width, 1 to 99."""
        return 1 + 98 * self.share(value)

    def ticks(self) -> list[float]:
        """Return the values that get a line and a number."""
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        return [self.step * i for i in range(first, last + 1)]

    def named(self, value: float) -> str:
        """Return a tick's value in per cent."""
        return f"{percent(value, 0 if self.step >= 0.01 else 1)} %"
