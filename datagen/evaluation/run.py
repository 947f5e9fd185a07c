"""The whole of `evaluate`: read, plan, train the arms, measure, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datagen import machine, registry, storage
from datagen import recipe as recipes
from datagen.errors import ArtefactError, OutputError, UsageError
from datagen.evaluation import experiment, inputs, plan
from datagen.evaluation.arms import Kept, Trial
from datagen.evaluation.experiment import Context
from datagen.evaluation.inputs import Asked, Inputs
from datagen.evaluation.plan import Plan
from datagen.evaluation.report import page, schema
from datagen.progress import Progress, span
from datagen.records import ANY, JUDGE, READ, SCHEMA, Finding, Recipe

PLAN, REPORT, PAGE = "plan.json", "report.json", "report.html"
OURS = {PLAN, REPORT, PAGE, "scan.json", "status.json", "arms", ".lock"}
FREE = ("threads", "device")
"""settings that may differ when an evaluation is continued"""


@dataclass(frozen=True)
class Job:
    """One evaluation under way: what is asked, settings, folder of the report, device, progress, when it began (monotonic seconds)."""

    asked: Asked
    recipe: Recipe
    folder: Path
    device: str
    progress: Progress
    begun: float

    def written(self) -> dict[str, Any]:
        """Return what was asked as JSON; a folder is continued only where it is equal."""
        settings = {k: v for k, v in self.recipe.settings(ANY, READ, JUDGE).items() if k not in FREE}
        return {**self.asked.written(), "settings": settings, "recogniser_hash": registry.file_hash(self.recipe.recogniser)}


def evaluate(
    shards: str | Path | Sequence[str | Path],
    *,
    real: str | Path | None = None,
    test: str | Path | None = None,
    run: str | Path | None = None,
    out: str | Path = "report",
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure how useful synthetic images are: the same recogniser on real, synthetic and both, tested on unseen real images.

    The same call again continues where it stopped; a finished report says so and nothing is done.

    Args:
        shards: set of shards in any format, or any labelled folder of images of one size.
        real: labelled real images to train on.
        test: labelled real images that nobody has trained on; without them `holdout` of the real ones is kept.
        run: folder that `fit` wrote; its own images and hold-out are taken instead of `real` and `test`.
        out: folder of the report.
        recipe: settings; None takes defaults, the environment and `settings`.
        progress: where to say what is going on; None is stderr and status.json.
        settings: keys of Recipe, such as quick=True, repeats=5; they win over the recipe. `dry_run=True` returns the plan alone.

    Returns:
        out, report (the page's path), finished (nothing was left to do), and every key of report.json, which
        `datagen.evaluation.report.schema` explains.

    Raises:
        UsageError: nothing says which real images, or the folder holds a report about something else.
        InputError: images cannot be read, or the classes differ.
        SafetyError: unseen test images are among the synthetic ones.
        OutputError: the folder holds something else, or cannot be written.
    """
    begun, dry_run = time.monotonic(), bool(settings.pop("dry_run", False))
    recipe = recipes.gather(None, [], **settings) if recipe is None else recipe.changed("flag", **settings) if settings else recipe
    asked = Asked(_one(shards), *(str(path) if path is not None else None for path in (real, test, run)))
    job = Job(asked, recipe, Path(out), machine.device(recipe.device), progress or Progress(out), begun)
    job.progress.folder = None
    _check_out(job.folder, asked)
    if dry_run:
        found = inputs.gather(asked, recipe, progress=job.progress)
        return _dry(found, _planned(job, found), job.folder)
    storage.make_folder(job.folder)
    with storage.lock(job.folder):
        known = _known(job)
        job.progress.folder = job.folder
        finished = known is not None and (job.folder / REPORT).is_file() and (job.folder / PAGE).is_file()
        if finished:
            job.progress.say(f"{job.folder} is finished already; nothing to do")
        report = _read(job.folder) if finished else _produce(job, known)
    return {"out": str(job.folder), "report": str(job.folder / PAGE), "finished": finished, **report}


def _one(shards: str | Path | Sequence[str | Path]) -> str:
    several = [shards] if isinstance(shards, str | Path) else list(shards)
    if len(several) != 1:
        raise UsageError(f"one set of shards is compared at a time, {len(several)} were given", where="SHARDS", hint="evaluate each into a folder of its own")
    return str(several[0])


def _check_out(out: Path, asked: Asked) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError("is a file", where=out, hint="give another --out")
    for source in filter(None, vars(asked).values()):
        inside, here = Path(source).resolve(), out.resolve()
        if here == inside or inside in here.parents:
            raise OutputError(f"lies inside {source}, which is never written to", where=out, hint="give another --out")
    if out.is_dir() and (names := {p.name for p in out.iterdir() if not p.name.startswith(storage.TEMPORARY)}) and not names & OURS:
        raise OutputError("is not empty and not a report", where=out, hint="give another --out")


def _known(job: Job) -> dict[str, Any] | None:
    """Return the plan that the folder was begun with, None for a new one; UsageError where something else is asked now."""
    file = job.folder / PLAN
    if not file.is_file():
        return None
    known, asked = storage.read_json(file), job.written()
    if not isinstance(known, dict) or not isinstance(known.get("schema"), int) or known["schema"] > SCHEMA:
        raise ArtefactError("was written by a newer datagen", where=file, hint="update datagen, or give another --out")
    before = known["asked"]
    changed = recipes.differences({k: before.get(k) for k in asked if k != "settings"}, {k: v for k, v in asked.items() if k != "settings"})
    settings = recipes.differences(before["settings"], asked["settings"])
    if changed or settings:
        detail = "; ".join([*changed, *settings][:3])
        raise UsageError(f"this report was begun with something else: {detail}", where=job.folder, hint="give another --out, or the first command again")
    planned: dict[str, Any] = known["plan"]
    return planned


def _planned(job: Job, found: Inputs) -> Plan:
    return plan.make(job.recipe, images=len(found.real), shape=found.shape, classes=len(found.classes), device=job.device)


def _describe(found: Inputs) -> str:
    channels, height, width = found.shape
    return (
        f"{len(found.real):,} real and {len(found.synthetic):,} synthetic images of {len(found.classes):,} classes, {height}x{width} "
        f"{'grey' if channels == 1 else 'RGB'}, tested on {len(found.test):,} unseen real images"
    )


def _dry(found: Inputs, planned: Plan, folder: Path) -> dict[str, Any]:
    return {
        "out": str(folder),
        "classes": len(found.classes),
        "real": len(found.real),
        "synthetic": len(found.synthetic),
        "test": len(found.test),
        "shape": list(found.shape),
        "arms": ["real", "synthetic", "both"],
        "recogniser": planned.settings.recogniser,
        "steps": planned.settings.steps,
        "repeats": planned.repeats,
        "seconds": round(planned.seconds),
    }


def _produce(job: Job, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read the images, plan unless a plan is known, train, measure, and write page and report, the report last."""
    progress, folder = job.progress, job.folder
    storage.sweep(folder)
    found = inputs.gather(job.asked, job.recipe, progress=progress, report=folder / "scan.json")
    planned = plan.stored(known) if known is not None else _planned(job, found)
    if known is None:
        storage.write_json(folder / PLAN, {"schema": SCHEMA, "asked": job.written(), "plan": planned.written()})
    torch.set_num_threads(job.recipe.threads or planned.threads)
    for line in [*found.notes, _describe(found), *planned.describe(job.recipe)]:
        progress.say(line)
    context, findings, hashes = _measured(job, found, planned)
    report = schema.build(context, findings, found, planned, hashes=hashes, seconds=time.monotonic() - job.begun)
    storage.replace(folder / PAGE, page.render(report, context).encode("utf-8"))
    storage.write_json(folder / REPORT, report)
    progress.say(f"report after {span(report['seconds'])}: {folder / PAGE}")
    progress.status(exit_code=0)
    return report


def _measured(job: Job, found: Inputs, planned: Plan) -> tuple[Context, list[Finding], dict[str, str]]:
    parts = {"real": found.real, "synthetic": found.synthetic, "test": found.test}
    hashes = {name: part.digest() for name, part in parts.items()}
    trial = Trial(parts, found.classes, planned.settings, job.recipe.seed, job.device, hashes)
    torch.use_deterministic_algorithms(job.recipe.deterministic)
    try:
        context = experiment.compare(trial, planned.repeats, kept=Kept(job.folder), progress=job.progress)
        return context, experiment.measure(context, progress=job.progress), hashes
    finally:
        torch.use_deterministic_algorithms(False)


def _read(folder: Path) -> dict[str, Any]:
    report = storage.read_json(folder / REPORT)
    if not isinstance(report, dict) or not isinstance(report.get("schema"), int) or report["schema"] > schema.SCHEMA:
        raise ArtefactError("was written by a newer datagen", where=folder / REPORT, hint="update datagen")
    return report
