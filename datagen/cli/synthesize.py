"""`datagen synthesize`: a fitted generator or a rule in, labelled shards out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import DONE, quoted, rows
from datagen.records import ANY, MAKE, NETS


def run(
    asked: Asked,
    source: Annotated[str, typer.Argument(metavar="RUN", help="folder that fit made, its generator/ alone, or rule:NAME")],
    out: Annotated[str, typer.Option("--out", metavar="SHARDS", help="folder of the shards, or s3://BUCKET/PREFIX")] = "shards",
    family: Annotated[str | None, typer.Option("--family", metavar="FILE.py:Class", help="your copy of the file, where RUN's family is from one")] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="SHARD:ROW", help="make this image of the same order again, alone, into --out")] = None,
) -> Outcome:
    """Make the images and say where they are."""
    from datagen.synthesis.run import synthesize

    recipe = asked.recipe if family is None else asked.recipe.changed("flag", family=family)
    value = synthesize(source, out, recipe, progress=asked.progress, dry_run=asked.dry_run, only=only)
    if only is not None:
        return Outcome(value, rows(value, DONE))
    knows = not source.startswith("rule:") and (Path(source) / "data.json").is_file()
    runs = f"--run {quoted(source)}" if knows else "--real FOLDER --test FOLDER"
    return Outcome(value, rows(value, DONE), "" if asked.dry_run else f"datagen evaluate {quoted(out)} {runs} --out report")


VERB = Verb(
    run,
    "Make labelled images into shards, exactly as many as asked for.",
    (MAKE, NETS, ANY),
    usual=("per_class", "count", "balance_with", "quota", "classes", "mode", "format"),
    example="datagen synthesize run --per-class 5000 --out shards",
)
