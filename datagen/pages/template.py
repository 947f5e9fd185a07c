"""The template engine that pages are made with: all values escaped, names that are missing refused."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import jinja2
from markupsafe import Markup

from datagen.errors import printable
from datagen.pages.svg import percent
from datagen.progress import span

STYLE = Path(__file__).parent / "style.css"


def bare(path: str) -> str:
    """Return a path without its folders: FILE.py:Class of FOLDER/FILE.py:Class."""
    return path.rpartition("/")[2]


def bare_command(text: str) -> str:
    """Return a command whose words are without folders; those after "=", too."""
    return " ".join(re.sub("[^=]*/", "", word) for word in shlex.split(text))


def environment(folder: Path) -> jinja2.Environment:
    """Return an engine for the templates of a folder, with the filters shown, percent, span and count, and the pages' common style as `style`."""
    found = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    found.filters |= {"shown": printable, "percent": percent, "span": span, "count": "{:,}".format}
    found.globals["style"] = Markup(STYLE.read_text(encoding="utf-8"))
    return found
