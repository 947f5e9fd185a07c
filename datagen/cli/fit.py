"""`datagen fit`: labelled real images in, a fitted generator out."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import DONE, quoted, rows
from datagen.records import ANY, FIT, NETS, READ


def run(
    asked: Asked,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="one sub-folder a class (or train/ and test/), a CSV of path and label, or labelled Parquet")],
    out: Annotated[str | None, typer.Option("--out", metavar="RUN", help="folder of the fitted generator; default FOLDER's name and -run")] = None,
) -> Outcome:
    """Fit a generator and say what to expect of it."""
    if asked.dry_run:
        return _plan(asked, folder)
    from datagen.training.run import fit

    value = fit(folder, out, asked.recipe, progress=asked.progress)
    own = f" --family {quoted(asked.recipe.family)}" if ".py:" in asked.recipe.family else ""
    return Outcome(value, rows(value, DONE), f"datagen synthesize {quoted(value['run'])}{own} --per-class 1000 --out shards")


def _plan(asked: Asked, folder: str) -> Outcome:
    """Scan and decide as `fit` does, and stop there; no folder is made."""
    from datagen.sources import cache, scan, shape, split
    from datagen.training import plan
    from datagen.training.batches import Batches

    begun, recipe = time.monotonic(), asked.recipe
    data = scan.scan(folder, recipe, test=recipe.test, progress=asked.progress)
    wanted, sentence = shape.plan_shape(data, recipe)
    parts = split.split(data, holdout=recipe.holdout, key=split.KEY)
    train = parts.train
    counts = plan.counts_of(data.labels[train], len(data.classes))
    pixels = cache.pixels(data, wanted, recipe, progress=asked.progress)
    batches = Batches(pixels, data.labels, train, balanced=recipe.sampling == "balanced", seed=recipe.seed)
    recipe, family = plan.suited(recipe, wanted, counts)
    ready = plan.complete(plan.prepare(recipe, family, wanted, counts), family, batches, begun=begun)
    lines = plan.describe(ready, dict(zip(data.classes, counts, strict=True)), (*data.notes, *parts.notes, sentence))
    return Outcome({"settings": ready.recipe.settings(), "origins": dict(ready.recipe.origins), "plan": lines}, "\n".join(lines))


VERB = Verb(
    run,
    "Fit a class-conditional generator to labelled images.",
    (READ, FIT, NETS, ANY),
    usual=("budget", "images", "size", "test", "group", "family", "device"),
    example="datagen fit photos --out run --budget 10m",
)
