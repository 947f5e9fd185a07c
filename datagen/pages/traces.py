"""Small curves of numbers over counts, such as losses over images seen, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from datagen.pages.svg import bar, drawing, element, words

TOP, BOTTOM = 8.0, 118.0
LEFT = 15.0
POINTS = 240


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """Return at most so many points (count, number), each the mean of neighbours; numbers that are not finite are left out."""
    kept = [point for point in points if all(map(math.isfinite, point))]
    size = max(1, -(-len(kept) // most))
    groups = [kept[start : start + size] for start in range(0, len(kept), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def named(value: float) -> str:
    """Return a number of a scale with three digits at most, such as 1.2k."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{suffix}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def trace(points: Sequence[tuple[float, float]], label: str, kind: str) -> Markup:
    """Draw a curve with its least and greatest number and the counts at both ends.

    Args:
        points: (count, number), ascending in count.
        label: what is drawn, for those who do not see it.
        kind: of the curve, which decides the colour.
    """
    shown = thinned(points)
    if not shown:
        return words("no numbers yet", 50, 40, "tick")
    (first, last), numbers = (shown[0][0], shown[-1][0]), [y for _, y in shown]
    low, high = min(numbers), max(numbers)
    span = (high - low) or abs(high) or 1.0
    parts = [bar(LEFT, 99, y, "grid") for y in (TOP, BOTTOM)]
    parts += [words(named(value), LEFT - 1.5, y + 4, "tick", anchor="end") for value, y in ((high, TOP), (low, BOTTOM))]
    parts += [words(named(value), at, BOTTOM + 18, "tick", anchor=anchor) for value, at, anchor in ((first, LEFT, "start"), (last, 99, "end"))]
    path = "M" + "L".join(f"{100 * (x - first) / ((last - first) or 1):.2f} {100 - 100 * (y - low) / span:.2f}" for x, y in shown)
    curve = element("path", d=path, class_=f"trace {kind}", vector_effect="non-scaling-stroke")
    inside = element("svg", curve, x=f"{LEFT}%", y=TOP, width=f"{99 - LEFT}%", height=BOTTOM - TOP, viewBox="0 0 100 100", preserveAspectRatio="none")
    return drawing([*parts, inside], BOTTOM + 22, label)
