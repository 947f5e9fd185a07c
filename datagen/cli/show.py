"""Results as lines of text for people."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from datagen.errors import printable


def quoted(text: object) -> str:
    """Return text as one word of a shell command."""
    return shlex.quote(str(text))


def columns(table: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines with aligned columns, control characters escaped."""
    cells = [[printable(cell) for cell in row] for row in table]
    widths = [max((len(row[i]) for row in cells if i < len(row)), default=0) for i in range(max(map(len, cells), default=0))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in cells)


DONE = ("finished", "continued")
"""of a verb's result: whether nothing was left to do, which the verb has said already, and a program asks for"""


def rows(value: Mapping[str, Any], but: Collection[str] = ()) -> str:
    """Return a mapping as "name  value" lines, `but` those named; nested mappings one level deep, long lists by their length."""
    table: list[tuple[str, str]] = []
    for key, item in ((key, item) for key, item in value.items() if key not in but):
        if isinstance(item, Mapping):
            table += [(f"{key}.{inner}", cell(part)) for inner, part in item.items() if part is not None and not isinstance(part, Mapping | list | tuple)]
        elif item not in (None, "", []):
            table.append((key, cell(item)))
    return columns(table)


def cell(item: Any) -> str:
    """Return one value in words: thousands separated, fractions to four digits, lists joined or counted."""
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int):
        return f"{item:,}"
    if isinstance(item, float):
        return f"{item:.4g}"
    if isinstance(item, list | tuple):
        return ", ".join(map(cell, item)) if len(item) <= 12 else f"{len(item):,} entries"
    return str(item)
