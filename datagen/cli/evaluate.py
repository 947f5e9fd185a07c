"""`datagen evaluate`: how useful synthetic images are, measured on unseen real ones."""

from __future__ import annotations

from typing import Annotated

import typer

from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import rows
from datagen.records import ANY, JUDGE, READ


def run(
    asked: Asked,
    shards: Annotated[list[str], typer.Argument(metavar="SHARDS...", help="folders of shards, or any labelled folder of synthetic images")],
    real: Annotated[str | None, typer.Option("--real", metavar="FOLDER", help="labelled real images to train on")] = None,
    test: Annotated[str | None, typer.Option("--test", metavar="FOLDER", help="labelled real images nobody has trained on")] = None,
    source: Annotated[str | None, typer.Option("--run", metavar="RUN", help="take the run's own images and its hold-out")] = None,
    out: Annotated[str, typer.Option("--out", metavar="REPORT", help="folder of the report")] = "report",
) -> Outcome:
    """Train the same recogniser on real, synthetic and both, and compare."""
    from datagen.evaluation.run import evaluate

    value = evaluate(shards, real=real, test=test, run=source, out=out, recipe=asked.recipe, progress=asked.progress, dry_run=asked.dry_run)
    return Outcome(value, rows(value), "")


VERB = Verb(run, "Measure how useful synthetic images are on unseen real ones.", (ANY, READ, JUDGE))
