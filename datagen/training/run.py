"""The whole of `fit`: scan, split, plan, train, and the generator that `synthesize` takes."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datagen import machine, registry, seeds, storage
from datagen import recipe as recipes
from datagen.contracts import Family, State
from datagen.errors import ArtefactError, InputError, OutputError, Stopped, UsageError
from datagen.progress import Progress, span
from datagen.recogniser import stored
from datagen.records import ANY, FIT, READ, Dataset, Recipe
from datagen.sources import cache, scan, shape, split
from datagen.training import generator, loop, plan, selection
from datagen.training.batches import Batches
from datagen.training.selection import Selected
from datagen.training.watch import Watch

FREE = ("threads", "device")
"""settings that may differ when a fit is continued; they are noted in recipe.json"""


@dataclass(frozen=True)
class Real:
    """The scanned set of one fit: records, pixels uint8 [N, H, W, C], shape (C, H, W) and the split's rows."""

    dataset: Dataset
    pixels: np.ndarray
    shape: tuple[int, int, int]
    parts: split.Split
    sentence: str


class Fitted(dict[str, Any]):
    """What `fit` returns: a mapping that a notebook shows as the last sample grid."""

    def _repr_png_(self) -> bytes | None:
        return Path(self["grid"]).read_bytes() if self["grid"] else None


def fit(source: str | Path, out: str | Path | None = None, recipe: Recipe | None = None, *, progress: Progress | None = None, **settings: Any) -> Fitted:
    """Fit a class-conditional generator to labelled images.

    Args:
        source: folder with one folder a class, CSV of path and label, or labelled Parquet.
        out: the RUN folder; default the source's name with "-run", in the working folder.
        recipe: all settings; default from `settings`, the environment and defaults.
        progress: where to report; default stderr and RUN/status.json.
        settings: keys of Recipe, such as size=32, budget="10m", family="gan".

    Returns:
        run, generator, images (shown), seconds, images_per_second, classes, shape, grid (path), chosen (spread, confidence,
        guidance), expected (accuracy on the select part after synthetic and after real images, or None), finished (nothing was left to do).

    Raises:
        DatagenError: with the exit code that the command line gives.
    """
    begun = time.monotonic()
    recipe = recipe or recipes.gather(None, [], **settings)
    out = Path(out) if out is not None else Path(f"{Path(source).stem}-run")
    machine.device(recipe.device)
    family = registry.load("families", recipe.family)()
    _check_out(out, source)
    storage.make_folder(out)
    with storage.lock(out), stopping() as stop:
        progress = progress or Progress(out)
        progress.folder = out
        asked = {k: v for k, v in recipe.settings(ANY, READ, FIT).items() if k not in FREE} | {"family_hash": registry.file_hash(recipe.family)}
        known = _known(out, asked)
        if known and (out / "generator" / "card.json").is_file():
            progress.say(f"{out} is finished already; nothing to do")
            return Fitted(_summary(out, begun, finished=True))
        storage.sweep(out)
        real = read(source, recipe, out, progress, begun=known is not None)
        job = _job(real, recipe, family, out, progress, known=known, asked=asked, begun=begun)
        job.stop = stop
        training = time.monotonic()
        try:
            loop.train(job)
        finally:
            job.watch.close()
        trained = round(time.monotonic() - training, 1)
        return Fitted(_finish(job, real, begun), training_seconds=trained)


def _check_out(out: Path, source: str | Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError("is a file", where=out, hint="give another --out")
    if not Path(source).exists():
        raise InputError("no such folder or file", where=source, hint="give a folder with one sub-folder a class, a CSV or Parquet")
    inside, here = Path(source).resolve(), out.resolve()
    if here == inside or inside in here.parents:
        raise OutputError("lies inside the input folder, which is never written to", where=out, hint="give another --out")
    ours = {"recipe.json", "data.json", "scan.json", "status.json", ".lock"}
    if out.is_dir() and (names := {p.name for p in out.iterdir()}) and not names & ours:
        raise OutputError("is not empty and not a run", where=out, hint="give another --out")


def _known(out: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    if not (out / "recipe.json").is_file():
        return None
    known: dict[str, Any] = storage.read_json(out / "recipe.json")
    if known.get("schema", 0) > 1:
        raise ArtefactError("was written by a newer datagen", where=out / "recipe.json", hint="update datagen")
    if changed := recipes.differences(known["asked"], asked):
        hint = "give the first settings again to continue it, or another --out"
        raise UsageError("this run was started with other settings: " + "; ".join(changed[:3]), where=out, hint=hint)
    return known


def read(source: str | Path, recipe: Recipe, out: Path, progress: Progress, *, begun: bool) -> Real:
    """Scan the images and bring them to one shape; writes data.json and scan.json, or checks that a run that has begun began with them."""
    dataset = scan.scan(source, recipe, test=recipe.test, progress=progress, report=out / "scan.json")
    stored = storage.read_json(out / "data.json") if begun else None
    if stored and stored["fingerprint"] != dataset.fingerprint:
        before, now = stored["counts"], dict(zip(dataset.classes, plan.counts_of(dataset.labels, len(dataset.classes)), strict=True))
        changed = [f"{k}: {before.get(k, 0)} images, now {now.get(k, 0)}" for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        detail = "; ".join(changed[:5]) or "the same counts, other pixels"
        raise InputError(f"the images changed since this run began ({detail})", where=source, hint="restore them, or fit into another --out")
    wanted, sentence = shape.plan_shape(dataset, recipe)
    pixels = cache.pixels(dataset, wanted, recipe, progress=progress)
    key = seeds.digest(recipe.seed, "holdout").hex()
    parts = split.split(dataset, holdout=recipe.holdout, key=key)
    if stored is None:
        storage.write_json(out / "data.json", _data(source, dataset, recipe, parts, key))
    return Real(dataset, pixels, wanted, parts, sentence)


def _data(source: str | Path, dataset: Dataset, recipe: Recipe, parts: split.Split, key: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "source": str(Path(source).absolute()),
        "test": str(Path(recipe.test).absolute()) if recipe.test else None,
        "roots": list(dataset.roots),
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "counts": dict(zip(dataset.classes, plan.counts_of(dataset.labels, len(dataset.classes)), strict=True)),
        "holdout": recipe.holdout,
        "key": key,
        "split": {name: len(getattr(parts, name)) for name in ("train", "select", "test")},
        "settings": recipe.settings(READ),
    }


def _job(
    real: Real, recipe: Recipe, family: Family, out: Path, progress: Progress, *, known: Mapping[str, Any] | None, asked: Mapping[str, Any], begun: float
) -> loop.Job:
    labels = real.dataset.labels
    counts = plan.counts_of(labels[real.parts.train], len(real.dataset.classes))
    batches = Batches(real.pixels, labels, real.parts.train, balanced=recipe.sampling == "balanced", seed=recipe.seed)
    if known:
        ready = plan.restored(known, recipe, real.shape, counts)
        progress.say(f"continuing {out}")
        torch.set_num_threads(ready.recipe.threads or 1)
    else:
        spec = plan.prepare(recipe, family, real.shape, counts)
        ready = plan.complete(spec, family, batches, begun=begun)
        storage.write_json(out / "recipe.json", plan.stored(ready, asked))
    by_name = dict(zip(real.dataset.classes, counts, strict=True))
    for line in plan.describe(ready, by_name, (*real.dataset.notes, real.sentence)):
        progress.say(line)
    torch.use_deterministic_algorithms(ready.recipe.deterministic)
    watch = Watch(out, progress, real.dataset.classes)
    state = State(ready.spec)
    job = loop.Job(family, list(family.stages(ready.spec)), ready.totals, state, batches, out, ready.recipe.device, watch)
    job.selection = ready.selection
    return job


def _finish(job: loop.Job, real: Real, begun: float) -> dict[str, Any]:
    for net in job.state.modules.values():
        net.eval()

    torch.manual_seed(seeds.integer(job.state.spec.recipe.seed, "finish"))
    job.family.finish(job.state, lambda batch: job.batches.walk(batch, job.device))
    images = sum(job.totals)
    grid = job.watch.grid(job.family, job.sampled(), images, job.device)
    recipe, parts = job.state.spec.recipe, real.parts
    selected = _selected(job, real)
    chosen = {**selected.chosen, "guidance": {"value": 0.0, "why": "none by default"}, "precision": recipe.precision, "layout": recipe.layout}
    data = {"fingerprint": real.dataset.fingerprint, "train": len(parts.train), "select": len(parts.select), "test": len(parts.test)}
    generator.write(
        job.folder / "generator",
        job.family,
        job.state,
        classes=real.dataset.classes,
        data=data,
        images_seen=images,
        chosen=chosen,
        filter=stored.pack(selected.filter),
    )
    job.watch.progress.say(f"samples by class: {grid}")
    if selected.sentence:
        spread, least = (selected.chosen[name]["value"] for name in ("spread", "confidence"))
        job.watch.progress.say(f"chosen: spread {spread:g} (--spread), least confidence {least:g} (--min-confidence); {selected.chosen['spread']['why']}")
        job.watch.progress.say(selected.sentence)
    return _summary(job.folder, begun, finished=False)


def _selected(job: loop.Job, real: Real) -> Selected:
    """Train the filter and choose what `synthesize` takes by default."""
    recipe, state, names = job.state.spec.recipe, job.sampled(), real.dataset.classes
    size = job.family.noise(job.state.spec)

    def draw(labels: np.ndarray, places: np.ndarray, spread: float) -> np.ndarray:
        noise = np.stack([seeds.image_noise(recipe.seed, f"selection {names[k]}", int(i), 0, size) for k, i in zip(labels, places, strict=True)])
        with torch.inference_mode():
            arguments = (torch.from_numpy(labels).to(job.device), torch.from_numpy(noise).to(job.device))
            images = job.family.sample(state, *arguments, spread, 0.0).float()
        return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def part(rows: np.ndarray, most: int) -> selection.Part:
        taken = rows if len(rows) <= most else np.sort(seeds.stream(recipe.seed, "selection", most).permutation(rows)[:most])
        return selection.Part(real.pixels[taken], real.dataset.labels[taken])

    with job.watch.progress.stage("fit: choosing by usefulness", selection.RUNS):
        return selection.select(
            part(real.parts.train, selection.MOST_TRAIN),
            part(real.parts.select, selection.MOST_SELECT),
            draw,
            classes=len(names),
            how=selection.How(int(job.selection["steps"]), int(job.selection["images"]), str(job.selection["layout"]), recipe.seed, job.device),
            advance=job.watch.progress.advance,
        )


def _summary(out: Path, begun: float, *, finished: bool) -> dict[str, Any]:
    card = storage.read_json(out / "generator" / "card.json")
    grids = sorted((out / "samples").glob("*.png"))
    seconds = time.monotonic() - begun
    return {
        "run": str(out),
        "generator": str(out / "generator"),
        "family": card["family"],
        "classes": card["classes"],
        "shape": card["shape"],
        "images": card["images_seen"],
        "chosen": {name: card["chosen"][name]["value"] for name in ("spread", "confidence", "guidance") if name in card["chosen"]},
        "expected": card["chosen"].get("expected"),
        "seconds": round(seconds, 1),
        "took": span(seconds),
        "grid": str(grids[-1]) if grids else None,
        "finished": finished,
    }


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGTERM or Ctrl-C into a request to stop after the step; a second one ends at once.

    Yields a function that tells whether to stop. Outside the main thread signals are left alone.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: Any) -> None:
        if asked:
            raise Stopped("stopped at once by a second signal", hint="the same command continues", interrupted=number == signal.SIGINT)
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    except Stopped as error:
        if asked and asked[0] == signal.SIGINT:
            error.code = 130
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
