"""From a fitted generator or a rule to a finished set of shards: the one call behind `datagen synthesize`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen import machine, registry, storage
from datagen import recipe as recipes
from datagen.contracts import Format
from datagen.errors import DatagenError, OutputError
from datagen.formats import encode
from datagen.progress import Progress, span
from datagen.reading.manifest import MANIFEST
from datagen.records import SCHEMA, Recipe, ShardNote, ShardTask
from datagen.synthesis import acceptance, again, commit, forecast, quota
from datagen.synthesis.heartbeat import listening
from datagen.synthesis.painter import RULE, Origin, look, production
from datagen.synthesis.plan import TILE, Plan, shard_size
from datagen.synthesis.stopping import Stopping
from datagen.synthesis.worker import ShardMaker

GPU_WORKERS = 8


@dataclass(frozen=True)
class Order:
    """All that is fixed before the first image: where to, what from, which images, in which format."""

    out: Path
    origin: Origin
    plan: Plan
    recipe: Recipe
    format: Format

    @property
    def mark(self) -> str:
        """How every image says that it is synthetic, "" where it is not to."""
        return encode.MARKS[self.origin.source] if self.recipe.mark else ""

    def tasks(self) -> list[ShardTask]:
        """Return every shard of the plan."""
        return [self.plan.task(id, self.format) for id in range(self.plan.shards)]

    def maker(self) -> ShardMaker:
        """Return what makes a shard."""
        return ShardMaker(str(self.out), self.origin, dataclasses.replace(self.plan), self.recipe.format, self.recipe.encoder, self.mark)

    def written(self) -> dict[str, Any]:
        """Return the plan as it stands in plan.json; nothing in it tells one run of the same command from another."""
        id, ingredients = production(self.origin, encode.described(self.recipe.encoder, self.mark))
        return {
            "schema": SCHEMA,
            "production": id,
            "ingredients": ingredients,
            "source": self.origin.source,
            "near_copies": f"not looked for: {self.origin.unchecked}" if self.origin.unchecked else "thrown away" if self.origin.reference else "none",
            "mode": self.recipe.mode,
            "seed": self.plan.seed,
            "counts": dict(zip(self.plan.classes, self.plan.counts, strict=True)),
            "classes": list(self.plan.classes),
            "shape": list(self.origin.shape),
            "format": self.recipe.format,
            "mark": self.mark,
            "suffix": encode.SUFFIXES[self.recipe.encoder],
            "shard_images": self.plan.shard_images,
            "shards": self.plan.shards,
            "tile": TILE,
            **{key: value for key in ("license", "origin") if (value := getattr(self.recipe, key))},
        }


def synthesize(
    run: str | Path,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
    only: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Make labelled images into shards; the same call again continues where it stopped, and does nothing once all is there.

    Args:
        run: the folder that `fit` wrote, its generator folder alone, or "rule:NAME".
        out: folder of the shards; new, empty, or begun by the same call.
        recipe: settings; None takes defaults, the environment and `settings`.
        progress: where to say what is going on; None is quiet.
        dry_run: return the plan and touch nothing.
        only: SHARD:ROW, both counted from 0: make that image alone again, as a file in `out`, and return what `again.make` says.
        settings: by key, such as per_class=5000; they win over the recipe. A generator of a family from your own file needs
            family="PATH/mine.py:Mine", your copy of that file.

    Returns:
        out, classes, images, shards, bytes, seconds, images_per_second, continued, finished (there was nothing left to do),
        format, production, id (SHA-256 of the manifest, by which `describe --verify --expect` knows the set again); with `dry_run` what
        would be made.

    Raises:
        UsageError: a setting is wrong, missing, or contradicts what the folder was begun with.
        ArtefactError: the generator is damaged or too new, or its family's own file is not named or another one.
        OutputError: the folder holds something else, is locked, or there is too little room.
        ResourceError: a device is missing, or workers die.
        Stopped: by Ctrl-C or SIGTERM.
    """
    recipe = recipes.gather(None, [], **settings) if recipe is None else recipe.changed("flag", **settings) if settings else recipe
    progress = progress or Progress(quiet=True)
    progress.folder = None
    order = _order(str(run), Path(out), recipe, progress)
    _separate(str(run), order.out)
    if only is not None:
        return again.make(order.maker(), order.tasks(), only, order.out)
    commit.refuse_strangers(order.out)
    if dry_run:
        return _planned(order)
    storage.make_folder(order.out)
    with storage.lock(order.out):
        begun = commit.claim(order.out, order.written())
        progress.folder = order.out
        try:
            value = _produce(order, progress, begun)
        except DatagenError as error:
            progress.status(exit_code=error.code)
            raise
        progress.status(exit_code=0)
    return value


def _order(run: str, out: Path, recipe: Recipe, progress: Progress) -> Order:
    format: Format = registry.load("formats", recipe.format)()
    origin = look(run, recipe)
    explicit = recipe.origins.get("shard_images", "default") not in {"default", "plan"}
    counts = quota.counts(recipe, origin.classes, origin.real, progress)
    plan = Plan(origin.classes, counts, recipe.seed, shard_size(recipe.shard_images, origin.shape, explicit))
    most = machine.processors() if origin.device == "cpu" else min(GPU_WORKERS, machine.processors())
    return Order(out, origin, plan, recipe.planned(workers=max(1, min(most, plan.shards))), format)


def _separate(run: str, out: Path) -> None:
    """Raise OutputError where the shards would be written into the folder that is read."""
    if run.startswith(RULE):
        return
    source, target = Path(run).resolve(), out.resolve()
    if target == source or source in target.parents:
        raise OutputError("lies inside the run that is read", where=out, hint="give a folder outside of it to --out")


def _planned(order: Order) -> dict[str, Any]:
    plan, origin = order.plan, order.origin
    chosen = {"spread": origin.spread, "guidance": origin.guidance, "min_confidence": origin.confidence} if origin.source == "synthetic" else {}
    return {
        "out": str(order.out),
        "classes": len(plan.classes),
        "counts": dict(zip(plan.classes, plan.counts, strict=True)),
        "images": plan.images,
        "shards": plan.shards,
        "format": order.recipe.format,
        "encoder": order.recipe.encoder,
        "device": origin.device,
        "workers": order.recipe.workers,
        **chosen,
    }


def _counted(plan: Plan) -> str:
    some = [count for count in plan.counts if count]
    least, most = min(some), max(some)
    of = f"{len(some):,}" if len(some) == len(plan.counts) else f"{len(some):,} of {len(plan.counts):,}"
    return f"{least:,} of each of {of} classes" if least == most else f"{least:,} to {most:,} of {of} classes"


def _say(order: Order, progress: Progress) -> None:
    plan, recipe = order.plan, order.recipe
    progress.say(
        f"{plan.images:,} images: {_counted(plan)}, as {recipe.format} (--format), "
        f"{recipe.encoder} (--encoder)\n{plan.shards:,} shards (--shard-images {plan.shard_images}), made by {recipe.workers} workers (--workers) "
        f"on {order.origin.device} (--device) into {order.out}"
    )


def _produce(order: Order, progress: Progress, begun: bool) -> dict[str, Any]:
    started = time.monotonic()
    storage.sweep(order.out)
    tasks = order.tasks()
    notes = commit.kept(order.out, order.format, tasks) if begun else {}
    missing = [task for task in tasks if task.id not in notes]
    there = sum(note.accepted for note in notes.values())
    whole = (order.out / MANIFEST).exists() and not missing
    if missing:
        _say(order, progress)
        if begun:
            progress.say(f"continues: {len(notes):,} of {len(tasks):,} shards are there and whole")
        maker = order.maker()
        acceptance.require(order.origin, [name for name, count in zip(order.plan.classes, order.plan.counts, strict=True) if count], order.plan.seed)
        forecast.require(order.out, order.format, maker, missing)
        for note in _made(order, maker, missing, progress, there):
            notes[note.id] = note
    if missing and (text := acceptance.said(list(notes.values()), order.origin.confidence)):
        progress.say(text)
    manifest = commit.finish(order.out, order.written(), list(notes.values()))
    seconds = time.monotonic() - started
    made = order.plan.images - there
    if whole:
        progress.say(f"finished already: {manifest['images']:,} images in {len(tasks):,} shards in {order.out}; nothing was done")
    return _summary(order, manifest, begun and not whole, whole, seconds, made / seconds if made else 0.0)


def _made(order: Order, maker: ShardMaker, missing: list[ShardTask], progress: Progress, there: int) -> list[ShardNote]:
    engine = registry.load("engines", "local")()
    began, done = time.monotonic(), 0

    def heard(images: int) -> None:
        nonlocal done
        stopping.check(order.out)
        done += images
        if images:
            progress.advance(images, f"{done / max(time.monotonic() - began, 1e-9):,.0f} images/s")

    with Stopping() as stopping, progress.stage("images", order.plan.images, there), listening(heard):
        try:
            notes = list(engine.run(missing, maker, order.recipe))
        except BaseException:
            storage.sweep(order.out)
            raise
    progress.say(f"{done:,} images in {span(time.monotonic() - began)}")
    return notes


def _summary(order: Order, manifest: Mapping[str, Any], continued: bool, finished: bool, seconds: float, rate: float) -> dict[str, Any]:
    return {
        "out": str(order.out),
        "classes": len(order.plan.classes),
        "images": manifest["images"],
        "shards": len(manifest["shards"]),
        "bytes": sum(note["bytes"] for note in manifest["shards"]),
        "seconds": round(seconds, 3),
        "images_per_second": round(rate, 1),
        "continued": continued,
        "finished": finished,
        "format": order.recipe.format,
        "production": manifest["production"],
        "id": storage.hash_file(order.out / MANIFEST),
    }
