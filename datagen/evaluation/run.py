"""The whole of `evaluate`: read, plan, train the arms, measure, report."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datagen import holding, machine, storage
from datagen import recipe as recipes
from datagen.errors import ArtefactError, OutputError, UsageError, nearest
from datagen.evaluation import arms, command, experiment, features, inputs, outcome, plan
from datagen.evaluation.arms import Trial
from datagen.evaluation.inputs import Asked, Inputs
from datagen.evaluation.kept import Kept
from datagen.evaluation.plan import Plan
from datagen.evaluation.report import page, schema, text
from datagen.evaluation.report.schema import Measured
from datagen.places import outside, strangers
from datagen.progress import Progress, span
from datagen.recogniser import nets, pretrained
from datagen.recogniser.fit import Settings
from datagen.records import ANY, JUDGE, READ, SCHEMA, Recipe

PLAN, REPORT, PAGE, TEXT = "plan.json", "report.json", "report.html", "report.md"
BEGUN = {"scan.json", "status.json", ".lock", holding.NAME}
"""what an evaluation has written before its plan"""
FREE = ("threads", "device", "verify_data", "fail_under")
"""settings that may differ when an evaluation is continued"""
LOOKED_AT = ("listed", "own")
"""digests of the images' files and of the user's own programs: where they differ a finished report is made anew, with the arms that stay what they were"""
MORE = ("repeats", "full", "features", "share")
"""settings that may differ where a report is extended: finished arms are kept"""


@dataclass(frozen=True)
class Job:
    """One evaluation under way: what is asked, settings, folder of the report, device, progress, when it began (monotonic seconds)."""

    asked: Asked
    recipe: Recipe
    folder: Path
    device: str
    progress: Progress
    begun: float

    @functools.cached_property
    def written(self) -> dict[str, Any]:
        """Return what was asked as JSON; a folder is continued only where it is equal, but for what is `LOOKED_AT`."""
        settings = {k: v for k, v in self.recipe.settings(ANY, READ, JUDGE).items() if k not in FREE}
        own = [command.decided_by(self.recipe.train_command), nets.code_hash(self.recipe.features or "")]
        return {**self.asked.written(), "settings": settings, "files": self.files(), "listed": self.asked.listed(), "own": own}

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of the user's files that decide an arm: the net's code and its weights."""
        found = pretrained.decided_by(Settings(recogniser=self.recipe.recogniser, weights=self.recipe.weights))
        return dict(zip(("recogniser", "weights"), found, strict=True))


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
        shards: set of shards in any format, or any labelled folder of images of one size; or several, compared against one real arm
            (replicates=True: fits of one recipe, judged as one set).
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
        FailedUnder: the report is written, but falls short of `fail_under`.
        OutputError: the folder holds something else, or cannot be written.
    """
    begun, dry_run = time.monotonic(), bool(settings.pop("dry_run", False))
    recipe = recipes.gather(None, [], **settings) if recipe is None else recipe.changed("flag", **settings) if settings else recipe
    asked = Asked(_several(shards), *(str(path) if path is not None else None for path in (real, test, run)))
    recipe = _as_begun(recipe, Path(out))
    job = Job(asked, recipe, Path(out), machine.device(recipe.device, deterministic=recipe.deterministic), progress or Progress(out), begun)
    job.progress.folder = None
    _check_settings(recipe)
    _check_out(job.folder, asked)
    if dry_run:
        found = inputs.gather(asked, recipe, progress=job.progress)
        return _dry(found, _planned(job, found, None), job)
    storage.make_folder(job.folder)
    with holding.lock(job.folder):
        known, same = _known(job)
        job.progress.folder = job.folder
        finished = same and all((job.folder / name).is_file() for name in (REPORT, PAGE))
        if finished:
            job.progress.say(f"{job.folder} is finished already; nothing to do")
        report = _read(job.folder) if finished else _produce(job, known)
    outcome.check(recipe.fail_under, report)
    return {"out": str(job.folder), "report": str(job.folder / PAGE), "finished": finished, **report}


def _check_settings(recipe: Recipe) -> None:
    outcome.bar(recipe.fail_under)
    if recipe.features is not None:
        nets.function(recipe.features)
    if recipe.train_command is not None:
        command.parse(recipe.train_command)
        if recipe.labels == "soft":
            raise UsageError(
                "a command of yours reads a folder a class, and no probabilities", where="--labels soft with --train-command", hint="leave one out"
            )
        if recipe.focus is not None:
            what = "needs how sure the recogniser is of each image, and a command of yours says classes alone"
            raise UsageError(what, where="--focus with --train-command", hint="leave one of them out")


def _as_begun(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with the `labels` that a report was begun with, where none are given: earlier versions knew no choice of them."""
    known = storage.read_json(folder / PLAN) if "labels" not in recipe.origins and (folder / PLAN).is_file() else None
    try:
        return recipe if known is None else recipe.changed("report", labels=known["asked"]["settings"]["labels"])
    except (KeyError, TypeError, ValueError):
        return recipe


def _several(shards: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    several = tuple(str(path) for path in ([shards] if isinstance(shards, str | Path) else shards))
    if not several:
        raise UsageError("no synthetic images are given", where="SHARDS", hint="the folder that synthesize wrote")
    if len({Path(path).resolve() for path in several}) < len(several):
        raise UsageError("the same set is given twice", where="SHARDS")
    return several


def _check_out(out: Path, asked: Asked) -> None:
    begun = (out / PLAN).is_file()
    strange = [] if begun else strangers(out, BEGUN)
    outside(out, *asked.shards, asked.real, asked.test, asked.run, *inputs.sources(asked))
    if strange:
        raise OutputError(f"is not empty and not a report (it holds {strange[0]!r})", where=out, hint="give another --out")


def _known(job: Job) -> tuple[dict[str, Any] | None, bool]:
    """Return plan.json of the folder (None for a new one) and whether exactly what it was begun with is asked now, of the same files.

    More repeats, further sets and whatever else only adds to a report continue it; UsageError where something else is asked.
    """
    file = job.folder / PLAN
    if not file.is_file():
        return None, False
    known, asked = storage.read_json(file), job.written
    if not isinstance(known, dict) or not isinstance(known.get("asked"), dict) or not isinstance(known.get("plan"), dict):
        raise OutputError("holds a plan.json that is none of a report", where=job.folder, hint="give another --out")
    if not isinstance(known.get("schema"), int) or known["schema"] > SCHEMA:
        raise ArtefactError("was written by a newer datagen", where=file, hint="update datagen, or give another --out")
    before = known["asked"]
    if not isinstance(before.get("shards"), dict):
        raise ArtefactError("was written by an older datagen", where=file, hint="give another --out")
    apart = {"settings", "shards", *LOOKED_AT}
    changed = recipes.differences({k: before.get(k) for k in asked if k not in apart}, {k: v for k, v in asked.items() if k not in apart})
    missing = {path: value for path, value in before["shards"].items() if asked["shards"].get(path, 0) != value}
    changed += recipes.differences(missing, {path: asked["shards"].get(path) for path in missing})
    fixed = [{k: v for k, v in settings.items() if k not in MORE} for settings in (before["settings"], asked["settings"])]
    settings = recipes.differences(*fixed)
    if changed or settings:
        detail = "; ".join([*changed, *settings][:3])
        raise UsageError(f"this report was begun with something else: {detail}", where=job.folder, hint="give another --out, or the first command again")
    same = before == {key: value for key, value in asked.items() if key in before or key not in LOOKED_AT}
    return known, same and list(before["shards"]) == list(asked["shards"])


def _planned(job: Job, found: Inputs, known: Mapping[str, Any] | None) -> Plan:
    """Return the known plan with what is asked on top, or a new one: also where the real images are more or fewer than it was made for."""
    sizes = _sizes(job, found)
    if known is not None and known.get("images", _images(found)) == _images(found):
        return plan.extended(plan.stored(known["plan"]), job.recipe, sizes)
    if known is not None:
        job.progress.say("the real images are not as many, or not of the size, that this report was planned for: it is planned anew")
    return plan.make(job.recipe, sizes, device=job.device)


def _images(found: Inputs) -> list[int]:
    """Return what steps and batch are planned from: real images, classes, and the shape."""
    return [len(found.real), len(found.classes), *found.shape]


def _sizes(job: Job, found: Inputs) -> plan.Sizes:
    pixels = 0.0 if found.native is None else found.native[0].images[0].size / found.real.images[0].size
    sets, replicates = (1, len(found.sets)) if job.recipe.replicates else (len(found.sets), 1)
    soft = len(found.soft) if replicates == 1 or len(found.soft) == replicates else 0
    whole, counts = plan.imbalance(found.real.labels), (len(found.real), len(found.test), sets, len(found.classes))
    return plan.Sizes(*counts, found.shape, whole, pixels, int(found.select.sum()), replicates, soft)


def _describe(found: Inputs) -> str:
    channels, height, width = found.shape
    made = " and ".join(f"{len(images):,}" for images in found.synthetic.values())
    return (
        f"{len(found.real):,} real and {made} synthetic images of {len(found.classes):,} classes, {height}x{width} "
        f"{'grey' if channels == 1 else 'RGB'}, tested on {len(found.test):,} unseen real images"
    )


def _dry(found: Inputs, planned: Plan, job: Job) -> dict[str, Any]:
    return {
        "out": str(job.folder),
        "classes": len(found.classes),
        "real": len(found.real),
        "synthetic": {name: len(images) for name, images in found.synthetic.items()},
        "test": len(found.test),
        "shape": list(found.shape),
        "notes": list(found.notes),
        "recogniser": planned.settings.recogniser,
        "steps": planned.settings.steps,
        "repeats": planned.repeats,
        "runs": planned.runs,
        "seconds": round(planned.seconds),
        "plan": planned.describe(job.recipe),
    }


def _produce(job: Job, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read the images, plan unless a plan is known, train, measure, and write what came out, the report last."""
    progress, folder = job.progress, job.folder
    storage.sweep(folder)
    asked = job.written
    found = inputs.gather(job.asked, job.recipe, progress=progress, report=folder / "scan.json")
    found = found.nameless() if job.recipe.share else found
    planned = _planned(job, found, known)
    trial = _trial(job, found, planned)
    storage.remove(folder / REPORT)  # from here on the folder's plan is no more what an earlier report answers
    storage.write_json(folder / PLAN, {"schema": SCHEMA, "asked": asked, "images": _images(found), "plan": planned.written()})
    torch.set_num_threads(job.recipe.threads or planned.threads)
    for line in [*found.notes, _describe(found), *planned.describe(job.recipe)]:
        progress.say(line)
    measured = _measured(job, trial, planned)
    count = outcome.times(folder, again=True)
    report = schema.build(measured, found, planned, hashes=trial.hashes, times=count, seconds=time.monotonic() - job.begun)
    results = {id(result): result for each in measured.values() for result in each.context.arms if result.correct.shape == (len(found.test),)}
    storage.replace(folder / outcome.PREDICTIONS, outcome.predictions(results.values(), trial))
    storage.replace(folder / PAGE, page.render(report, next(iter(measured.values())).context, share=job.recipe.share).encode("utf-8"))
    storage.replace(folder / TEXT, text.markdown(report).encode("utf-8"))
    storage.write_json(folder / REPORT, report)
    progress.say(f"report after {span(report['seconds'])}: {folder / PAGE}")
    progress.status(exit_code=0)
    return report


def _trial(job: Job, found: Inputs, planned: Plan) -> Trial:
    """Return the images and how to train, with the hashes of all that decides an arm; UsageError as `_focus`."""
    focus = None if job.recipe.focus is None else _focus(job.recipe.focus, found)
    if len({arms.lacks(made, found.real) for made in found.synthetic.values()}) > 1:
        what = "some sets lack classes and some do not: what the one must beat is not what the other must"
        raise UsageError(what, where="SHARDS", hint="evaluate them apart")
    parts = found.parts(job.recipe.seed)
    hashes = {name: part.digest() for name, part in parts.items()} | {"command": command.decided_by(job.recipe.train_command)}
    own = None if job.recipe.train_command is None else (job.recipe.train_command, job.folder)
    return Trial(
        parts=parts,
        classes=found.classes,
        settings=planned.settings,
        seed=job.recipe.seed,
        device=job.device,
        hashes=hashes,
        sets=found.sets,
        apart=len(found.sets) > 1 and not job.recipe.replicates,
        focus=focus,
        command=own,
    )


def _focus(name: str, found: Inputs) -> int:
    """Return the place of the class in focus; UsageError where it is unknown, or where it or all others have no unseen image."""
    if name not in found.classes:
        raise UsageError(f"unknown class {name!r}", where="--focus", hint=nearest(name, found.classes))
    own = int((found.test.labels == found.classes.index(name)).sum())
    if own in {0, len(found.test)}:
        what = f"{own:,} of {len(found.test):,} unseen real images are of class {name!r}: its recall at equal false alarms needs some, and some others"
        raise UsageError(what, where="--focus", hint="leave it out, or give test images of that class and of others")
    return found.classes.index(name)


def _measured(job: Job, trial: Trial, planned: Plan) -> dict[str, Measured]:
    """Return the experiment and the findings of every set; one under "" for a single set or replicates."""
    torch.use_deterministic_algorithms(job.recipe.deterministic)
    try:
        given = None if job.recipe.features is None else features.Given(job.recipe.features)
        if given is not None:
            given(trial.parts["test"].images[:2])
        contexts = experiment.conduct(trial, planned, kept=Kept(job.folder), progress=job.progress, given=given)
        return {name: Measured(context, experiment.measure(context, progress=job.progress)) for name, context in contexts.items()}
    finally:
        torch.use_deterministic_algorithms(False)


def _read(folder: Path) -> dict[str, Any]:
    report = storage.read_json(folder / REPORT)
    if not isinstance(report, dict) or not isinstance(report.get("schema"), int) or report["schema"] > schema.SCHEMA:
        raise ArtefactError("was written by a newer datagen", where=folder / REPORT, hint="update datagen")
    return report
