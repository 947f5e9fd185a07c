"""`datagen recipes`: the recipes that come with datagen."""

from __future__ import annotations

from typing import Annotated

import typer

from datagen import recipe
from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import columns


def run(asked: Asked, name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="print this recipe, ready to be changed")] = None) -> Outcome:
    """List the recipes, or print one of them."""
    if name is not None:
        settings, about = recipe.read(name)
        return Outcome({"name": name, "settings": settings, "about": about}, recipe.text(name).rstrip())
    found = {title: recipe.read(title) for title in recipe.builtin()}
    value = {title: {"settings": settings, "about": about} for title, (settings, about) in found.items()}
    lines = columns([(title, str(about.get("title", ""))) for title, (_, about) in found.items()])
    return Outcome(value, lines, "datagen recipes NAME")


VERB = Verb(run, "List the recipes, or print one.", without=("recipe", "set", "dry_run"), example="datagen recipes digits")
