"""What comes after the last step: the filter, what is chosen by usefulness, how each class does, and the generator's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from datagen import drawing, seeds
from datagen.recogniser import near, stored
from datagen.training import generator, health, loop, selection
from datagen.training.real import Real
from datagen.training.selection import Selected

NAMES = {"replace": "synthetic", "augment": "both"}
"""what a recogniser is trained on where the images are for a mode"""
LOOKED = 100_000
"""training images that a family looks at after the last step, at most: minutes on a CPU"""


EACH = 20
"""images of a class that are among those looked at, however rare it is"""


def finish(job: loop.Job, real: Real) -> None:
    """Turn a trained job into RUN/generator, and say what was chosen and what to expect."""
    for net in job.state.modules.values():
        net.eval()
    torch.manual_seed(seeds.integer(job.state.spec.recipe.seed, "finish"))
    job.family.finish(job.state, lambda batch: job.batches.walk(batch, job.device, LOOKED))
    images = sum(job.totals)
    grid = job.watch.grid(job.family, job.sampled(), images, job.device)
    job.watch.tell("choosing")
    selected = _selected(job, real)
    parts = real.parts
    chosen = {**selected.chosen, "guidance": {"value": 0.0, "why": "none by default"}, "precision": job.selection.get("precision", {})}
    known = near.build(real.pixels, real.dataset.labels, parts.train, parts.select)
    if known.limit == 0:
        job.watch.progress.warn("near-copies of training images cannot be told, as no real image is left unseen or most are alike: synthesize throws none away")
    reference = generator.write_reference(job.folder / "reference", known)
    data = {"reference": reference, "fingerprint": real.dataset.fingerprint, "train": len(parts.train), "select": len(parts.select), "test": len(parts.test)}
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
    job.watch.tell("finished")
    progress = job.watch.progress
    progress.say(f"samples by class: {grid}; all about this fit: {job.folder / 'run.html'}")
    spread, least = (selected.chosen[name]["value"] for name in ("spread", "confidence"))
    progress.say(f"chosen: spread {spread:g} (--spread), least confidence {least:g} (--min-confidence); {selected.chosen['spread']['why']}")
    if selected.sentence:
        progress.say(selected.sentence)


def _selected(job: loop.Job, real: Real) -> Selected:
    """Train the filter, choose what `synthesize` takes by default, and warn of classes that ignore their label or collapsed."""
    names, how = real.dataset.classes, _how(job)
    shown = min(selection.MOST_TRAIN, selection.LONGER * how.steps * selection.BATCH)
    train, select = _part(real, real.parts.train, shown, how.seed), _part(real, real.parts.select, selection.MOST_SELECT, how.seed)
    draw = _draw(job, names)
    with job.watch.progress.stage("fit: choosing by usefulness", selection.runs(how.modes)):
        found = selection.select(train, select, draw, classes=len(names), how=how, advance=job.watch.progress.advance)
    classes = health.look(found.filter, train, draw, classes=len(names), spread=found.chosen["spread"]["value"])
    for line in health.warnings(classes, names):
        job.watch.progress.warn(line)
    scores = [{"spread": spread, "confidence": least, **{NAMES[mode]: share for mode, share in each.items()}} for (spread, least), each in found.scores.items()]
    known = {"images": sum(job.totals), "steps": how.steps, "select": len(select.labels), "real": (found.chosen.get("expected") or {}).get("real")}
    job.watch.chose({**known, "scores": scores, "classes": [dataclasses.asdict(each) for each in classes]})
    return found


def _how(job: loop.Job) -> selection.How:
    planned = job.selection
    seed, modes = job.state.spec.recipe.seed, int(planned.get("modes", 1))
    return selection.How(int(planned["steps"]), int(planned["images"]), str(planned["layout"]), seed, job.device, modes)


def _part(real: Real, rows: np.ndarray, most: int, seed: int) -> selection.Part:
    """Return images drawn at random, with the first `EACH` of every class among them."""
    if len(rows) > most:
        order = seeds.stream(seed, "selection", most).permutation(rows)
        labels = real.dataset.labels[order]
        by_class = np.argsort(labels, kind="stable")
        place = np.empty(len(order), np.int64)
        place[by_class] = np.arange(len(order)) - np.searchsorted(labels[by_class], labels[by_class])
        rows = np.sort(order[np.argsort(place >= EACH, kind="stable")][:most])
    return selection.Part(real.pixels[rows], real.dataset.labels[rows])


def _draw(job: loop.Job, names: Sequence[str]) -> selection.Draw:
    """Return what draws images of the fitted generator, with noise that `synthesize` never uses."""
    state, own = job.sampled(), [f"selection {name}" for name in names]
    precision = drawing.precision_of(job.selection, job.device)

    def draw(labels: np.ndarray, places: np.ndarray, spread: float) -> np.ndarray:
        return drawing.numbered(job.family, state, job.device, own, labels, places, spread, precision)

    return draw
