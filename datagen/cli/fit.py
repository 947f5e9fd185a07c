"""`datagen fit`: labelled real images in, a fitted generator out."""

from __future__ import annotations

from typing import Annotated

import typer

from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import quoted, rows
from datagen.records import ANY, FIT, READ


def run(
    asked: Asked,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="one sub-folder a class (or train/ and test/), a CSV of path and label, or labelled Parquet")],
    out: Annotated[str, typer.Option("--out", metavar="RUN", help="folder of the fitted generator")] = "run",
) -> Outcome:
    """Fit a generator and say what to expect of it."""
    from datagen.training.run import fit

    value = fit(folder, out, asked.recipe, progress=asked.progress, dry_run=asked.dry_run)
    follow = "" if asked.dry_run else f"datagen synthesize {quoted(out)} --per-class 1000 --out shards"
    return Outcome(value, rows(value), follow)


VERB = Verb(run, "Fit a class-conditional generator to labelled images.", (ANY, READ, FIT))
