"""`datagen export`: the same images in another format."""

from __future__ import annotations

from typing import Annotated

import typer

from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import quoted, rows


def run(
    asked: Asked,
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="folder of shards")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="folder of the new shards")],
) -> Outcome:
    """Write the shards anew in the format asked for."""
    from datagen.synthesis.export import export

    value = export(shards, out, format=asked.recipe.format, progress=asked.progress)
    return Outcome(value, rows(value), f"datagen describe {quoted(out)} --verify")


VERB = Verb(run, "Write shards in another format, image for image.", keys=("format",), without=("recipe", "set", "dry_run"))
