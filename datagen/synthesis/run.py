"""From a fitted generator or a rule to a finished set of shards: the one call behind `datagen synthesize`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen import machine, places, ranks, registry, storage
from datagen import recipe as recipes
from datagen.contracts import Engine, Format
from datagen.errors import DatagenError
from datagen.formats import encode
from datagen.places import Place
from datagen.progress import Progress, many, span
from datagen.reading.manifest import MANIFEST, set_id
from datagen.records import SCHEMA, Recipe, ShardNote, ShardTask
from datagen.synthesis import acceptance, again, commit, forecast, quota, sharing, verdict
from datagen.synthesis.heartbeat import listening
from datagen.synthesis.painter import RULE, Origin, look, production
from datagen.synthesis.plan import TILE, Plan, shard_size
from datagen.synthesis.stopping import Stopping
from datagen.synthesis.worker import ShardMaker

GPU_WORKERS = 8
ALLOWED = ("on_conflict", "drop_small", "allow_synthetic", "max_pixels")
"""settings for reading images that decide whether a folder is refused"""


@dataclass(frozen=True)
class Order:
    """All that is fixed before the first image: where to, what from, which images, in which format, and who makes them."""

    out: Place
    origin: Origin
    plan: Plan
    recipe: Recipe
    format: Format
    engine: Engine
    rank: tuple[int, int]

    @property
    def mark(self) -> str:
        """How every image says that it is synthetic, "" where it is not to."""
        return encode.MARKS[self.origin.source] if self.recipe.mark else ""

    @property
    def alone(self) -> bool:
        """Whether no other process makes shards of the same plan."""
        return self.rank[1] == 1

    def tasks(self) -> list[ShardTask]:
        """Return every shard of the plan."""
        return [self.plan.task(id, self.format) for id in range(self.plan.shards)]

    def share(self) -> list[ShardTask]:
        """Return the shards that are this process's to make."""
        return [task for task in self.tasks() if task.id % self.rank[1] == self.rank[0]]

    def maker(self) -> ShardMaker:
        """Return what makes a shard."""
        return ShardMaker(self.out, self.origin, dataclasses.replace(self.plan), self.recipe.format, self.recipe.encoder, self.mark)

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
            **({"verdict": verdict.said(self.recipe.report, id)} if self.recipe.report else {}),
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
        out: folder of the shards; new, empty, or begun by the same call. Or s3://BUCKET/PREFIX as text, where nothing is ever overwritten.
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
        OutputError: the folder holds something else, is locked, there is too little room, or the store refuses.
        ResourceError: a device is missing, or workers die.
        Stopped: by Ctrl-C or SIGTERM.
    """
    recipe = recipes.gather(None, [], **settings) if recipe is None else recipe.changed("flag", **settings) if settings else recipe
    progress = progress or Progress(quiet=True)
    progress.folder = None
    order = _order(str(run), places.at(out), recipe, progress)
    _separate(str(run), order)
    if only is not None:
        return again.make(order.maker(), order.tasks(), only, order.out)
    commit.refuse_strangers(order.out)
    if dry_run:
        return _planned(order)
    with sharing.held(order.out, order.written(), order.rank) as begun:
        progress.folder = order.out.folder if order.rank[0] == 0 else None
        try:
            value = _produce(order, progress, begun)
        except DatagenError as error:
            progress.status(exit_code=error.code)
            raise
        progress.status(exit_code=0)
    return value


def _order(run: str, out: Place, recipe: Recipe, progress: Progress) -> Order:
    recipe = recipe.planned(engine="ranks" if ranks.count() > 1 else "local", precision=commit.precision(out))
    format: Format = registry.load("formats", recipe.format)()
    engine: Engine = registry.load("engines", recipe.engine)()
    commit.refuse_many(out, format)
    origin = look(run, recipe)
    explicit = recipe.origins.get("shard_images", "default") not in {"default", "plan"}
    counts = quota.counts(_reading(run, recipe), origin.classes, origin.real, progress)
    plan = Plan(origin.classes, counts, recipe.seed, shard_size(recipe.shard_images, origin.shape, explicit, sum(counts)))
    most = machine.processors() if origin.device == "cpu" else min(GPU_WORKERS, machine.processors())
    return Order(out, origin, plan, recipe.planned(workers=max(1, min(most, plan.shards))), format, engine, engine.rank())


def _reading(run: str, recipe: Recipe) -> Recipe:
    """Return the recipe with what the run's fit allowed in images, where nothing else is said: a folder that it took is taken to balance with, too."""
    data = Path(run) / "data.json"
    if run.startswith(RULE) or recipe.balance_with is None or not data.is_file():
        return recipe
    fitted = storage.read_json(data, limit=1 << 28).get("settings", {})
    return recipe.changed("run", **{key: fitted[key] for key in ALLOWED if key in fitted and key not in recipe.origins})


def _separate(run: str, order: Order) -> None:
    """Raise OutputError where the shards would be written into a folder that is read."""
    if order.out.folder is not None:
        places.outside(order.out.folder, None if run.startswith(RULE) else run, order.recipe.balance_with)


def _planned(order: Order) -> dict[str, Any]:
    plan, origin = order.plan, order.origin
    chosen = {"spread": origin.spread, "guidance": origin.guidance, "min_confidence": origin.confidence, "precision": origin.ingredients.get("precision")}
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
        **(chosen if origin.source == "synthetic" else {}),
        "forecast": forecast.expected(order.maker(), order.share(), order.recipe.workers or 1) if order.share() else {},
    }


def _counted(plan: Plan) -> str:
    some = [count for count in plan.counts if count]
    least, most = min(some), max(some)
    of = f"{len(some):,}" if len(some) == len(plan.counts) else f"{len(some):,} of {len(plan.counts):,}"
    of += " class" if len(plan.counts) == 1 else " classes"
    return f"{least:,} of each of {of}" if least == most else f"{least:,} to {most:,} of {of}"


def _say(order: Order, progress: Progress) -> None:
    plan, recipe = order.plan, order.recipe
    precision = f" in {found} (--precision)" if (found := order.origin.ingredients.get("precision")) else ""
    ranked = f"\nthis is rank {order.rank[0]} of {order.rank[1]} (--engine ranks), which makes {len(order.share()):,} of the shards"
    progress.say(
        f"{plan.images:,} images: {_counted(plan)}, as {recipe.format} (--format), "
        f"{recipe.encoder} (--encoder)\n{many(plan.shards, 'shard')} (--shard-images {plan.shard_images}), "
        f"made by {many(recipe.workers or 1, 'worker')} (--workers) "
        f"on {order.origin.device} (--device){precision} into {order.out}{'' if order.alone else ranked}"
    )


def _produce(order: Order, progress: Progress, begun: bool) -> dict[str, Any]:
    started = time.monotonic()
    share = order.share()
    notes = commit.kept(order.out, order.format, share) if begun else {}
    missing = [task for task in share if task.id not in notes]
    there = sum(note.accepted for note in notes.values())
    whole = order.out.read(MANIFEST) is not None and not missing
    if missing:
        _say(order, progress)
        if begun:
            progress.say(f"continues: {len(notes):,} of {len(share):,} shards are {order.out.trust}")
        maker = order.maker()
        for note in _made(order, maker, missing, progress, there):
            notes[note.id] = note
        if text := acceptance.said(list(notes.values()), order.origin.confidence):
            progress.say(text)
    made, seconds = sum(note.accepted for note in notes.values()) - there, time.monotonic() - started
    summary = _summary(order, notes, begun and not whole, whole, (made, seconds))
    others = [] if order.alone else [task for task in order.tasks() if task.id not in notes]
    notes |= commit.noted(order.out, others)
    if lacking := order.plan.shards - len(notes):
        progress.say(f"the {len(share):,} shards of this rank are there; {lacking:,} of other ranks are not yet, and the last rank to end completes the set")
        return {**summary, "complete": False}
    with sharing.finishing(order.out, order.rank):
        manifest = commit.finish(order.out, order.written(), list(notes.values()))
    if text := commit.without_folder(manifest):
        progress.warn(text)
    if whole:
        progress.say(f"finished already: {order.plan.images:,} images in {many(order.plan.shards, 'shard')} in {order.out}; nothing was done")
    return {**summary, "complete": True, "id": set_id(order.out)}


def _made(order: Order, maker: ShardMaker, missing: list[ShardTask], progress: Progress, there: int) -> list[ShardNote]:
    began, done = time.monotonic(), 0
    stages = dict.fromkeys(("sampling", "encoding", "writing"), 0.0)

    def heard(images: int, spent: Mapping[str, float]) -> None:
        nonlocal done
        stopping.check(order.out)
        done += images
        for name, seconds in spent.items():
            stages[name] += seconds
        if images:
            progress.advance(images, f"{done / max(time.monotonic() - began, 1e-9):,.0f} images/s{_shares(stages)}")

    with Stopping() as stopping, listening(heard):
        try:
            with contextlib.closing(order.engine.run([forecast.probing(missing), *missing], maker, order.recipe)) as made:
                forecast.require(order.out, next(made), missing)
                with progress.stage("images", sum(map(_wanted, order.share())), there):
                    notes = list(made)
        except BaseException:
            if order.alone:
                order.out.sweep()
            raise
    progress.say(f"{done:,} images in {span(time.monotonic() - began)}{_shares(stages)}")
    return notes


def _shares(stages: Mapping[str, float]) -> str:
    """Return in words what share of the workers' time each stage takes, "" where nobody said; one worker does all three in turn and waits for none."""
    total = sum(stages.values())
    return f" ({', '.join(f'{name} {100 * seconds / total:.0f} %' for name, seconds in stages.items())})" if total > 0 else ""


def _wanted(task: ShardTask) -> int:
    return sum(wanted for _, _, wanted in task.tiles)


def _summary(order: Order, notes: Mapping[int, ShardNote], continued: bool, finished: bool, made: tuple[int, float]) -> dict[str, Any]:
    """Return what this process's shards hold, and in how many seconds how many images of them were made."""
    images, seconds = made
    return {
        "out": str(order.out),
        "classes": len(order.plan.classes),
        "images": sum(note.accepted for note in notes.values()),
        "shards": len(notes),
        "bytes": sum(note.bytes for note in notes.values()),
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds if images else 0.0, 1),
        "continued": continued,
        "finished": finished,
        "format": order.recipe.format,
        "production": order.written()["production"],
    }
