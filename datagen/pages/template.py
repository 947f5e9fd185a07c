"""The template engine that pages are made with: all values escaped, names that are missing refused."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from datagen.errors import printable
from datagen.pages.svg import percent
from datagen.progress import span

STYLE = Path(__file__).parent / "style.css"


def environment(folder: Path) -> jinja2.Environment:
    """Return an engine for the templates of a folder, with the filters shown, percent, span and count, and the pages' common style as `style`."""
    found = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    found.filters |= {"shown": printable, "percent": percent, "span": span, "count": "{:,}".format}
    found.globals["style"] = Markup(STYLE.read_text(encoding="utf-8"))
    return found
