"""`datagen export`: the same images in another format, or beside the real ones in one folder."""

from __future__ import annotations

from typing import Annotated

import typer

from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import DONE, quoted, rows
from datagen.errors import UsageError


def run(
    asked: Asked,
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="folder of shards")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="folder of the new shards")],
    merge: Annotated[
        str | None, typer.Option("--merge", metavar="REAL", help="labelled folder whose images go into the new one, too (--format folder)")
    ] = None,
) -> Outcome:
    """Write the shards anew in the format asked for, or real and synthetic images as one labelled folder."""
    if merge is not None:
        from datagen.synthesis.merge import merge as merged

        if "format" in asked.recipe.origins and asked.recipe.format != "folder":
            raise UsageError("writes a folder a class", where="--merge", hint="leave --format out")
        value = merged(shards, merge, out, progress=asked.progress)
        return Outcome(value, rows(value, ("classes", *DONE)))
    from datagen.synthesis.export import export

    value = export(shards, out, format=asked.recipe.format, progress=asked.progress)
    return Outcome(value, rows(value, DONE), f"datagen describe {quoted(out)} --verify")


VERB = Verb(
    run,
    "Write shards in another format, image for image, or into one labelled folder with the real images.",
    keys=("format",),
    usual=("format",),
    without=("recipe", "set", "dry_run"),
    example="datagen export shards --format folder --out pictures",
)
