"""The whole of `fit`: scan, split, plan, train, and the generator that `synthesize` takes."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from datagen import holding, machine, ranks, registry, storage
from datagen import recipe as recipes
from datagen.contracts import State
from datagen.errors import ArtefactError, InputError, OutputError, Stopped, UsageError
from datagen.places import outside, strangers
from datagen.progress import Progress, span
from datagen.records import ANY, FIT, NETS, READ, Recipe
from datagen.training import loop, plan, real
from datagen.training.batches import Batches
from datagen.training.finish import finish
from datagen.training.proxy import proxy
from datagen.training.watch import Mute, Watch

FREE = ("threads", "device", "verify_data")
"""settings that may differ when a fit is continued; progress.jsonl says with which it was"""
BEGUN = {"data.json", "scan.json", "status.json", ".lock", holding.NAME}
"""what a fit has written before recipe.json"""
LIVE = b'http-equiv="refresh"'
"""what run.html has while the fit goes on"""


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
    out = Path(out) if out is not None else Path(f"{Path(source).name if Path(source).is_dir() else Path(source).stem}-run")
    device = machine.device(recipe.device, deterministic=recipe.deterministic)
    registry.load("families", recipe.family)
    _check_out(out, source, recipe.test)
    with ranks.group(device), stopping() as stop, _mode_kept():
        if ranks.rank():
            return _follow(source, out, recipe, stop=stop, begun=begun)
        return _lead(source, out, recipe, progress or Progress(out), stop=stop, begun=begun)


@contextlib.contextmanager
def _mode_kept() -> Iterator[None]:
    """Leave torch as it was found: a fit may ask for deterministic operations, and what comes after it in a notebook has not."""
    before = torch.get_deterministic_debug_mode()
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def _lead(source: str | Path, out: Path, recipe: Recipe, progress: Progress, *, stop: Stopping, begun: float) -> Fitted:
    """Fit, alone or as the first of several processes: the one that plans, writes and speaks."""
    storage.make_folder(out)
    with holding.lock(out):
        progress.folder = out
        asked = _asked(recipe)
        known = _known(out, asked)
        if known and (out / "generator" / "card.json").is_file():
            progress.folder = None
            real.scanned(source, recipe, out, progress, begun=True)
            _end_page(out, progress)
            progress.say(f"{out} is finished already; nothing to do")
            ranks.barrier()
            return Fitted(_summary(out, begun, finished=True))
        storage.sweep(out)
        images = real.read(source, recipe, out, progress, begun=known is not None)
        job = _job(images, recipe, Watch(out, progress, images.dataset.classes), known=known, asked=asked, begun=begun)
        job.stop = stop
        parts = (images.pixels, images.dataset.labels, images.parts.train, images.parts.select)
        job.watch.proxy = proxy(*parts, classes=len(images.dataset.classes), seed=recipe.seed)
        ranks.barrier()
        training = time.monotonic()
        try:
            with ranks.together(), stop.gentle():
                loop.train(job)
            trained = round(time.monotonic() - training, 1)
            finish(job, images)
        except BaseException:
            job.watch.tell("stopped")
            raise
        ranks.barrier()
        return Fitted(_summary(out, begun, finished=False), training_seconds=trained)


def _end_page(out: Path, progress: Progress) -> None:
    """Rewrite run.html of a finished run that was killed before it could say so: it would load itself again for ever."""
    page = out / "run.html"
    if page.is_file() and LIVE in page.read_bytes()[:4096]:
        settings, card = (_mapping(out / name) for name in ("recipe.json", "generator/card.json"))
        Watch(out, progress, tuple(card["classes"])).finished(registry.load("families", settings["settings"]["family"])())


def _follow(source: str | Path, out: Path, recipe: Recipe, *, stop: Stopping, begun: float) -> Fitted:
    """Train along with the first process, which has planned all and writes all."""
    ranks.barrier()
    quiet = Progress(quiet=True)
    if not (finished := (out / "generator" / "card.json").is_file()):
        images = real.read(source, recipe, out, quiet, begun=True)
        job = _job(images, recipe, Mute(out, quiet, images.dataset.classes), known=_known(out, _asked(recipe)), asked={}, begun=begun)
        job.stop = stop
        with ranks.together(), stop.gentle():
            loop.train(job)
        ranks.barrier()
    return Fitted(_summary(out, begun, finished=finished))


def _asked(recipe: Recipe) -> dict[str, Any]:
    return {k: v for k, v in recipe.settings(ANY, READ, FIT, NETS).items() if k not in FREE} | {"family_hash": registry.file_hash(recipe.family)}


def _check_out(out: Path, source: str | Path, test: str | None) -> None:
    strange = strangers(out, BEGUN)
    if not Path(source).exists():
        raise InputError("no such folder or file", where=source, hint="give a folder with one sub-folder a class, a CSV or Parquet")
    outside(out, source, test)
    begun = (out / "recipe.json").is_file()
    if not begun and (strange or ((out / "data.json").exists() and "fingerprint" not in _mapping(out / "data.json"))):
        raise OutputError("is not empty and not a run", where=out, hint="give another --out")


def _mapping(path: Path) -> dict[str, Any]:
    value = storage.read_json(path)
    return value if isinstance(value, dict) else {}


def _known(out: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    if not (out / "recipe.json").is_file():
        return None
    known = _mapping(out / "recipe.json")
    if not isinstance(known.get("asked"), dict):
        raise OutputError("holds a recipe.json that is none of a run", where=out, hint="give another --out")
    if known.get("schema", 0) > 1:
        raise ArtefactError("was written by a newer datagen", where=out / "recipe.json", hint="update datagen")
    if changed := recipes.differences(known["asked"], asked):
        hint = "give the first settings again to continue it, or another --out"
        raise UsageError("this run was started with other settings: " + "; ".join(changed[:3]), where=out, hint=hint)
    return known


def _job(images: real.Real, recipe: Recipe, watch: Watch, *, known: Mapping[str, Any] | None, asked: Mapping[str, Any], begun: float) -> loop.Job:
    labels, progress = images.dataset.labels, watch.progress
    counts = plan.counts_of(labels[images.parts.train], len(images.dataset.classes))
    batches = Batches(images.pixels, labels, images.parts.train, balanced=recipe.sampling == "balanced", seed=recipe.seed)
    if known:
        ready = plan.restored(known, recipe, images.shape, counts)
        family = registry.load("families", ready.recipe.family)()
        progress.say(f"continuing {watch.run}")
        torch.set_num_threads(ready.recipe.threads or 1)
        watch.continued(device=ready.recipe.device, threads=ready.recipe.threads, torch=str(torch.__version__))
    else:
        recipe, family = plan.suited(recipe, images.shape, counts)
        ready = plan.complete(plan.prepare(recipe, family, images.shape, counts), family, batches, begun=begun)
        storage.write_json(watch.run / "recipe.json", plan.stored(ready, asked))
    if (ready.recipe.batch or 1) % ranks.count():
        what = f"a batch of {ready.recipe.batch} images cannot be shared by {ranks.count()} processes"
        raise UsageError(what, where="torchrun", hint="give a multiple with --set batch=…, into another --out")
    by_name = dict(zip(images.dataset.classes, counts, strict=True))
    for line in plan.describe(ready, by_name, (*images.dataset.notes, *images.parts.notes, images.sentence)):
        progress.say(line)
    torch.use_deterministic_algorithms(ready.recipe.deterministic)
    stages, state = list(family.stages(ready.spec)), State(ready.spec)
    job = loop.Job(family, stages, ready.totals, state, batches, watch.run, ready.recipe.device, watch)
    job.selection = ready.selection
    return job


def _summary(out: Path, begun: float, *, finished: bool) -> dict[str, Any]:
    card = storage.read_json(out / "generator" / "card.json")
    grids = sorted(path for path in (out / "samples").glob("*.png") if path.stem.isdigit())
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


class Stopping:
    """Turns SIGTERM and Ctrl-C into Stopped; while a generator trains the first one is a request to stop after the step, and the second one ends at once.

    Calling it tells whether to stop. Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self._asked: list[int] = []
        self._gentle = False

    def __call__(self) -> bool:
        return bool(self._asked)

    @contextlib.contextmanager
    def gentle(self) -> Iterator[None]:
        """Within, the first signal is a request; one that nobody has heeded by the end raises Stopped there."""
        self._gentle = True
        try:
            yield
        finally:
            self._gentle = False
        if self._asked:
            raise Stopped(f"stopped by {signal.Signals(self._asked[0]).name}", hint="the same command continues")

    def note(self, number: int, frame: Any) -> None:
        """Take in a signal."""
        again, ended = bool(self._asked), "stopped at once by a second signal" if self._asked else f"stopped by {signal.Signals(number).name}"
        self._asked.append(number)
        if again or not self._gentle:
            raise Stopped(ended, hint="the same command continues", interrupted=number == signal.SIGINT)


@contextlib.contextmanager
def stopping() -> Iterator[Stopping]:
    """Within, signals are noted by what is yielded."""
    stop = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    except Stopped as error:
        if stop() and stop._asked[0] == signal.SIGINT:
            error.code = 130
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
