"""Text from outside in Markdown and tables: no tags, links or marks, and no formula where a spreadsheet opens it."""

from __future__ import annotations

import re

from datagen.errors import printable

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def plain(text: object) -> str:
    """Return text that Markdown shows as it is: no tags, links, tables or marks."""
    shown = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", shown)


def cell(text: object) -> str:
    """Return text for a cell of a table; what a spreadsheet would take for a formula gets a ' before it."""
    text = str(text)
    return plain("'" + text if text.startswith(FORMULA) else text)
