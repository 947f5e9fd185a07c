"""The only loop that trains generators; it counts images, knows no loss, and can be stopped and continued at any step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from datagen import ranks, seeds
from datagen.contracts import Family, Stage, State
from datagen.errors import ArtefactError, ResourceError, Stopped
from datagen.training import checkpoint, timing
from datagen.training.averaging import Average
from datagen.training.batches import Batches
from datagen.training.watch import Watch

WARM_UP = 0.02
IN_A_ROW, ROLLBACKS = 3, 3
"""steps without numbers that send a fit back to its last checkpoint, and how often that may happen"""
SLOWER = 0.5
"""factor of the step size after each time"""
PREVIEWED = 1000
"""training images that are looked at for a grid of samples while a stage trains"""
ASKED = 16
"""steps after which GPUs that train together ask each other whether to stop, so that they do not wait at every step"""


class _Diverged(Exception):
    """The losses of several steps in a row, or the weights, are no finite numbers; holds the images seen."""


@dataclass
class Job:
    """One fit under way.

    Attributes:
        family: the family in training.
        stages: its stages, in order.
        totals: images each stage is shown; multiples of the batch.
        state: nets and optimisers.
        batches: the training images.
        folder: RUN.
        device: "cpu", "cuda" or "mps".
        stop: called after each step; true ends the fit after a checkpoint.
        averages: moving averages of the stage under way.
        inputs: what the stage under way trains on in place of images, one row for each training image.
        statistics: running means and variances of the batch norms of the stage under way.
        rollbacks: how often the fit went back to a checkpoint; each time the step size is halved and the order changes.
        bad: steps in a row whose losses were no numbers.
        in_a_row, longest: the same as a GPU counts them, and the most so far; integers [].
        selection: steps and layout of the recognisers that choose by usefulness.
    """

    family: Family
    stages: Sequence[Stage]
    totals: Sequence[int]
    state: State
    batches: Batches
    folder: Path
    device: str
    watch: Watch
    stop: Callable[[], bool] = lambda: False
    averages: dict[str, Average] = field(default_factory=dict)
    inputs: torch.Tensor | None = None
    statistics: list[torch.Tensor] = field(default_factory=list)
    rollbacks: int = 0
    bad: int = 0
    in_a_row: torch.Tensor | None = None
    longest: torch.Tensor | None = None
    selection: Mapping[str, Any] = field(default_factory=dict)

    @property
    def draws(self) -> bool:
        """Whether all nets that sampling needs are there."""
        return set(self.family.kept) <= set(self.state.modules)

    def sampled(self) -> State:
        """Return the state that is sampled: moving averages in place of the nets they follow."""
        nets = self.state.modules | {name: average.net for name, average in self.averages.items()}
        return State(self.state.spec, {name: net.eval() for name, net in nets.items() if name in self.family.kept})


def build(job: Job, index: int) -> None:
    """Build a stage's nets and optimisers, with weights that follow from the seed alone."""
    stage, recipe = job.stages[index], job.state.spec.recipe
    torch.manual_seed(seeds.integer(recipe.seed, "build", stage.name))
    job.state.optimizers.clear()
    stage.build(job.state)
    for net in job.state.modules.values():
        net.to(job.device)
    timing.arrange(job.state, recipe.layout)
    half_life = recipe.half_life or 10_000
    job.averages = {name: Average(job.state.modules[name], half_life) for name in stage.averaged}
    for optimizer in job.state.optimizers.values():
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]


def resume(job: Job) -> tuple[int, int]:
    """Bring a job to its newest whole checkpoint; returns (stage, images seen in it), (0, 0) where there is none."""
    job.state.modules.clear()
    found = checkpoint.newest(job.folder / "checkpoints", job.watch.progress.warn)
    job.rollbacks = max(job.rollbacks, 0 if found is None else int(found[0].get("rollbacks", 0)))
    job.batches.reorder(job.rollbacks)
    if found is None:
        build(job, 0)
        return 0, 0
    card, weights, tensors = found
    if card["stage"] >= len(job.stages):
        raise ArtefactError("is of a stage that this family does not have", where=job.folder / "checkpoints", hint="give another --out")
    for index in range(card["stage"] + 1):
        build(job, index)
    checkpoint.load_nets(weights, "net/", job.state.modules)
    checkpoint.load_nets(weights, "average/", {name: average.net for name, average in job.averages.items()})
    checkpoint.load_optimizers(tensors, job.state)
    return int(card["stage"]), int(card["images"])


def train(job: Job) -> None:
    """Run every stage to its end; ends early with Stopped after a checkpoint where `job.stop` asks for it.

    A step whose losses are no numbers changes nothing. After three in a row the fit goes back to its last checkpoint, with half
    the step size and another order of the images; ResourceError after three times.
    """
    while True:
        try:
            return _train(job)
        except _Diverged as error:
            job.rollbacks, job.bad = job.rollbacks + 1, 0
            if job.rollbacks > ROLLBACKS:
                hint = "lower the step: --set learning_rate=…"
                what = f"the losses are no longer numbers after {error} images, and going back {ROLLBACKS} times did not help"
                raise ResourceError(what, where=job.folder, hint=hint) from error
            job.averages, job.in_a_row, job.longest = {}, None, None
            job.watch.forget()
            job.watch.progress.warn(f"the losses are no numbers after {error} images: back to the last checkpoint, with half the step size")


def _train(job: Job) -> None:
    first, images = resume(job)
    for index in range(first, len(job.stages)):
        if index > first:
            adopt(job)
            build(job, index)
            images = 0
        _run_stage(job, index, images)
    adopt(job)


def adopt(job: Job) -> None:
    """Put the moving averages in the place of the nets that they follow, at the end of a stage."""
    for name, average in job.averages.items():
        job.state.modules[name] = average.net
    job.averages = {}


def _run_stage(job: Job, index: int, images: int) -> None:
    stage, total, recipe = job.stages[index], job.totals[index], job.state.spec.recipe
    before = sum(job.totals[:index])
    batch, every = (recipe.batch or 1) * stage.times, stage.times * (recipe.grid_every or total)
    _prepare(job, stage)
    saved = images
    with job.watch.progress.stage(f"fit: {stage.name}", total, images):
        while images < total:
            _one_step(job, index, images)
            images += batch
            stop = _agreed(job, images // batch, before + images)
            if (_passed(images, batch, stage.times * (recipe.checkpoint_every or total)) and images < total) or stop:
                _save(job, index, images)
                saved = images
            if job.draws and (_passed(images, batch, every) or images == batch * max(1, min(total, every) // batch // 20)):
                job.watch.grid(job.family, previewed(job), before + images, job.device)
            if stop and images < total:
                job.watch.end(stage.name, before + images)
                raise Stopped(f"stopped after {before + images:,} images", where=job.folder, hint="the same command continues here")
        job.watch.end(stage.name, before + images)
    if images != saved:
        _save(job, index, images)


def previewed(job: Job) -> State:
    """Return the state that is sampled while a stage trains: what the family fits after the last step is fitted to some images, in copies."""
    nets = job.state.modules | {name: average.net for name, average in job.averages.items()}
    own = {name: copy.deepcopy(nets[name]) for name in job.family.kept if name not in job.averages}
    state = State(job.state.spec, nets | own)
    for net in state.modules.values():
        net.eval()
    job.family.finish(state, lambda batch: job.batches.walk(batch, job.device, PREVIEWED))
    return State(job.state.spec, {name: state.modules[name] for name in job.family.kept})


def _agreed(job: Job, step: int, seen: int) -> bool:
    """Return whether to stop after this step; processes that train together do what one of them must.

    Raises:
        _Diverged: too many steps in a row had no numbers.
    """
    bad, stop = job.bad >= IN_A_ROW, job.stop()
    if ranks.shares() > 1:
        if job.device != "cpu" and step % ASKED:
            return False
        bad, stop = ranks.anywhere([bad, stop], job.device)
    if bad:
        raise _Diverged(f"{seen:,}")
    return stop


def _prepare(job: Job, stage: Stage) -> None:
    """Find the batch norms' statistics, and compute what the stage trains on, where that is not the images."""
    job.inputs, job.statistics = None, _statistics(job)
    if stage.inputs is not None:
        for net in job.state.modules.values():
            net.eval()
        job.inputs = stage.inputs(job.state, lambda batch: job.batches.walk(batch, job.device)).to(job.device)


def _one_step(job: Job, index: int, images: int) -> None:
    stage, recipe = job.stages[index], job.state.spec.recipe
    batch, done = (recipe.batch or 1) * stage.times, images / job.totals[index]
    rows = job.batches.chosen(sum(job.totals[:index]) + images, batch)
    rows = rows[ranks.own(batch)]
    pictures, labels = job.batches.images(rows, job.device) if job.inputs is None else job.batches.instead(rows, job.inputs, job.device)
    seed = seeds.integer(recipe.seed, "step", stage.name, images, *([job.rollbacks] if job.rollbacks else []))
    (torch.default_generator if job.device == "cpu" else torch).manual_seed(seed)
    if recipe.flips and job.inputs is None:
        mirrored = ranks.drawn(lambda size: torch.rand(size, device=pictures.device), len(pictures)) < 0.5
        pictures = torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)
    for optimizer in job.state.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule(stage.schedule, done) * SLOWER**job.rollbacks
    for net in job.state.modules.values():
        if not net.training:
            net.train()
    before = [tensor.clone() for tensor in job.statistics]
    found = timing.step(stage, job.state, pictures, labels, done, precision=recipe.precision, layout=recipe.layout)
    _note(job, found)
    for now, then in zip(job.statistics, before, strict=True):
        if job.in_a_row is not None:
            now.copy_(torch.where(job.in_a_row.eq(0), now, then))
        elif job.bad:
            now.copy_(then)
    if job.device != "cpu" or not job.bad:
        for average in job.averages.values():
            average.update(batch, images + batch)
        job.watch.step(stage.name, found, batch, sum(job.totals[:index]) + images + batch)


def _statistics(job: Job) -> list[torch.Tensor]:
    """Return the running means and variances of batch norms, which a step changes before its losses are known."""
    norms = [part for net in job.state.modules.values() for part in net.modules() if isinstance(part, torch.nn.modules.batchnorm._NormBase)]
    return [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None]


def _note(job: Job, found: Mapping[str, torch.Tensor]) -> None:
    """Count a step whose losses are no numbers; a GPU counts for itself and is asked once the last report was no number."""
    if job.device == "cpu":
        job.bad = 0 if all(math.isfinite(float(value)) for value in found.values()) else job.bad + 1
        return
    device = max((value.device for value in found.values()), key=lambda device: device.type != "cpu")
    bad = ~torch.stack([torch.isfinite(value).all().to(device) for value in found.values()]).all()
    job.in_a_row = bad.long() if job.in_a_row is None else (job.in_a_row + 1) * bad
    job.longest = job.in_a_row if job.longest is None else torch.maximum(job.longest, job.in_a_row)
    if not all(math.isfinite(value) for value in job.watch.last.values()):
        job.bad = int(job.longest)


def _save(job: Job, index: int, images: int) -> None:
    """Write a checkpoint, unless a weight is no finite number."""
    seen = sum(job.totals[:index]) + images
    weights = [tensor for net in job.state.modules.values() for tensor in net.state_dict().values() if tensor.is_floating_point()]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights):
        raise _Diverged(f"{seen:,}")
    if ranks.rank():
        ranks.barrier()
        return
    checkpoint.save(job.folder / "checkpoints", job.state, job.averages, stage=index, images=images, total_images=seen, rollbacks=job.rollbacks)
    if ranks.shares() > 1:
        ranks.barrier()


def schedule(kind: str, done: float) -> float:
    """Return the factor of the step size when a share `done` (0 to 1) of a stage is over: a short warm-up, then "cosine" or "constant"."""
    rise = min(1.0, (done + 1e-3) / WARM_UP)
    return rise if kind == "constant" else rise * (0.5 + 0.5 * math.cos(math.pi * done))


def _passed(images: int, batch: int, every: int) -> bool:
    return images // every > (images - batch) // every
