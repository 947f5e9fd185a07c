"""Matrices of confusions as SVG: rows are true classes, columns what the recogniser said."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from datagen.errors import printable
from datagen.pages.svg import element, percent

CELL_TEXT, LABELLED, DRAWN = 12, 24, 60
"""matrices have numbers and names up to so many classes, and are drawn up to so many"""


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup | None:
    """Draw a matrix of confusions, rows true and columns predicted, as shares of the row; None with more than 60 classes."""
    size = len(classes)
    if size > DRAWN:
        return None
    names = [short(name, 9) for name in classes]
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


def short(name: str, length: int) -> str:
    """Return a name of at most so many characters, safe to show."""
    name = printable(name)
    return name if len(name) <= length else name[: length - 1] + "…"


def _cell(row: int, column: int, share: float, size: int, title: str) -> list[Markup]:
    kind = "hit" if row == column else "miss"
    shade = f"{min(1.0, 0.12 + 0.88 * share if kind == 'hit' else 0.15 + 1.7 * share):.2f}"
    box = element("title", f"{title}: {percent(share)} %")
    parts = [element("rect", box, x=column * 10, y=row * 10, width=9.4, height=9.4, rx=1, class_=kind, fill_opacity=shade)]
    if size <= CELL_TEXT and round(100 * share):
        dark = " strong" if float(shade) > 0.55 else ""
        parts.append(element("text", f"{100 * share:.0f}", x=column * 10 + 4.7, y=row * 10 + 6.1, text_anchor="middle", class_=f"number{dark}"))
    return parts
