"""What an evaluation trains and for how long: planned from the images and a short timing, written down, obeyed when continued."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datagen import machine
from datagen.errors import UsageError
from datagen.evaluation import choose, curve
from datagen.progress import span
from datagen.recogniser import timing
from datagen.recogniser.fit import Settings
from datagen.records import Recipe

REPEATS, MORE_REPEATS, FEW = 3, 5, 1000
"""repeats of every arm, and with fewer unseen images than that"""
SECONDS, SLOWER = 1.65, 0.736
"""everything takes at most 1.65 times the number of real images to the power of 0.736 in seconds (1,600: 6 minutes, 60,000: 90)"""
SHOWN, GROWTH = 440, 0.6
"""training images shown by one arm in batches of 128, counting repeats, are at most 440 times the number of real images to the power of 0.6"""
BATCHES = ((2_000, 32), (20_000, 64))
"""images a step below so many real images on a CPU; a smaller batch learns more from as many images shown (as their root)"""
OF_CLASSES = 1.4
"""images a step that there are for each class at least, up to 128: with fewer, batch norm's statistics jump from step to step"""
NARROW, WIDTH = 2_000, 16
"""below so many real images on a CPU the small recogniser is this wide"""
LEAST_SECONDS = 240
"""that few images may take all the same"""
WANTED_STEPS, FEWEST_STEPS = 400, 100
"""of an arm, however few its images; and however slow the machine"""
QUICK, QUICK_STEPS = 5, 200
"""a quick look takes a fifth of the steps, and so many at least: with fewer a small recogniser has hardly begun to learn"""
UNBALANCED = 2.0
"""the largest class by the smallest, from which class weights and oversampling are rivals too"""
RATIOS = (0.25, 0.5, 2.0, 4.0, 10.0)
AMOUNTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)


@dataclass(frozen=True)
class Sizes:
    """What a plan depends on: real and unseen images, synthetic sets, classes, shape (channels, height, width), imbalance, cost of the native size.

    `imbalance` is the largest class by the smallest; `native` how many times more pixels the real images have at their own size
    than at the synthetic images', 0 where they have no more; `select` counts the validation part; `replicates` are synthetic sets that
    count as one, of which each repeat takes the next; `soft` are sets of which validation chooses labels or probabilities.
    """

    real: int
    test: int
    sets: int
    classes: int
    shape: tuple[int, int, int]
    imbalance: float = 1.0
    native: float = 0.0
    select: int = 1000
    replicates: int = 1
    soft: int = 0


@dataclass(frozen=True)
class Plan:
    """How every arm is trained.

    Attributes:
        settings: of the recogniser; equal for all arms.
        repeats: of every arm.
        threads: for computing, of each training.
        lanes: trainings side by side.
        command: the user's own training, or None.
        rate: images a second, forecast by a short timing.
        rates: images a second by "precision layout threads", of all that were timed.
        runs: trainings of a whole arm's length that the evaluation takes, all in all.
        limited: whether this machine's speed, not the images, decided the steps.
        chooses: whether learning rate, rival's policy and the arm to beat are chosen on a validation part.
        given_rate: whether the learning rate was given.
        unbalanced: whether class weights and oversampling are arms.
        native: whether the real arm is trained at its own size too, and at how many times the pixels.
        curve: repeats of the learning curve, 0 for none.
        sweeps: whether ratios and amounts of synthetic images are swept.
    """

    settings: Settings
    repeats: int
    threads: int
    rate: float
    rates: Mapping[str, float]
    runs: float = 10
    limited: bool = False
    chooses: bool = False
    given_rate: bool = False
    unbalanced: bool = False
    native: float = 0.0
    curve: int = 0
    sweeps: bool = False
    lanes: int = 1
    command: str | None = None

    @property
    def seconds(self) -> float:
        """Forecast of the time for everything that is trained."""
        return self.runs * self.settings.steps * self.settings.batch / self.rate

    def written(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return dataclasses.asdict(self)

    def describe(self, recipe: Recipe) -> list[str]:
        """Return what was decided in lines, each with the flag that changes it."""
        s = self.settings
        why = "given" if recipe.steps else "limited by this machine's speed" if self.limited else "planned from the real images"
        timed = ", ".join(f"{name} {rate:,.0f}" for name, rate in self.rates.items())
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}" + (f", {self.lanes} trainings side by side" if self.lanes > 1 else "")
        if self.command:
            many = f"{self.repeats} repeat{'s' if self.repeats > 1 else ''} (--repeats)"
            return [f"every arm trains by --train-command, {many} of each: {self.runs - 1:.0f} runs of it, one after the other"]
        lines = [
            f"recogniser {s.recogniser} (--recogniser), {s.steps:,} steps (--steps; {why}) of {s.batch} images (--judge-batch), "
            f"{self.repeats} repeat{'s' if self.repeats > 1 else ''} (--repeats) of each arm",
            f"{s.precision}, {s.layout}, {threads} (--threads; timed in images/s: {timed})",
            f"about {span(self.seconds)} for everything",
        ]
        if recipe.quick:
            lines.append(
                f"--quick: a fifth of the steps ({QUICK_STEPS} at least), nothing is chosen on validation, no learning curve; small differences cannot be told"
            )
        return lines


def stored(value: Mapping[str, Any]) -> Plan:
    """Return the plan that `written` gave."""
    return Plan(**{**value, "settings": Settings(**value["settings"])})


def make(recipe: Recipe, sizes: Sizes, *, device: str) -> Plan:
    """Plan an evaluation.

    Without --steps the images that an arm is shown grow about as the root of the number of real images (900: 13,000, 60,000:
    324,000), but everything together takes no longer on this machine than 1.65 times that number to the power of 0.736 in seconds.
    With --deterministic nothing depends on the timing.

    Args:
        recipe: its judge settings; what is given there is kept.
        sizes: of the images.
        device: "cpu", "cuda" or "mps".

    Raises:
        UsageError: fewer repeats are given than there are replicates.
    """
    repeats = _repeats(recipe, sizes)
    batch = recipe.judge_batch or _batch(sizes, device)
    rate = recipe.judge_learning_rate or choose.rates(recipe.recogniser, recipe.weights, batch)[0]
    width = WIDTH if recipe.recogniser == Settings.recogniser and recipe.weights is None and device == "cpu" and sizes.real < NARROW else None
    settings = Settings(recogniser=recipe.recogniser, batch=batch, learning_rate=rate, width=width, weights=recipe.weights)
    most = recipe.threads or machine.processors()
    fixed = recipe.threads or recipe.deterministic or device != "cpu" or most == 1
    threads = [most] if fixed else [most, 1]
    timed = timing.choose(settings, sizes.shape, sizes.classes, device=device, plain=recipe.deterministic, threads=threads)
    timing_found = timed.threads, round(timed.rate, 1), timed.rates
    planned = Plan(timed.settings, repeats, *timing_found, **_extent(recipe, sizes), lanes=timed.lanes, command=recipe.train_command)
    planned = dataclasses.replace(planned, runs=round(_runs(planned, sizes), 2))
    wanted = max(WANTED_STEPS, math.ceil(SHOWN * sizes.real**GROWTH / math.sqrt(settings.batch * choose.BATCH)))
    possible = int(max(LEAST_SECONDS, SECONDS * sizes.real**SLOWER) * timed.rate / settings.batch / _usual(planned, sizes))
    possible = wanted if recipe.deterministic else max(FEWEST_STEPS, possible)
    usual = min(wanted, possible)
    steps = recipe.steps or (max(usual // QUICK, min(usual, QUICK_STEPS)) if recipe.quick else usual)
    limited = recipe.steps is None and possible < wanted
    return dataclasses.replace(planned, settings=dataclasses.replace(timed.settings, steps=steps), limited=limited)


def extended(known: Plan, recipe: Recipe, sizes: Sizes) -> Plan:
    """Return a known plan with what is asked on top now: repeats, sweeps, sets; settings and timing stay."""
    grown = dataclasses.replace(known, repeats=_repeats(recipe, sizes), **_extent(recipe, sizes))
    return dataclasses.replace(grown, runs=round(_runs(grown, sizes), 2))


def _batch(sizes: Sizes, device: str) -> int:
    fitting = (batch for below, batch in BATCHES if device == "cpu" and sizes.real < below and batch >= OF_CLASSES * sizes.classes)
    return next(fitting, choose.BATCH)


def _repeats(recipe: Recipe, sizes: Sizes) -> int:
    """Return the repeats of every arm: as given, or as many of each replicate."""
    if recipe.repeats is None:
        usual = MORE_REPEATS if sizes.test < FEW and not recipe.quick else REPEATS
        return math.ceil(usual / sizes.replicates) * sizes.replicates
    if recipe.repeats < sizes.replicates:
        what = f"{recipe.repeats} repeats leave {sizes.replicates - recipe.repeats} of {sizes.replicates} replicates out"
        raise UsageError(what, where="--repeats", hint=f"--repeats {sizes.replicates} or a multiple of it, or give fewer SHARDS")
    return recipe.repeats


def _extent(recipe: Recipe, sizes: Sizes) -> dict[str, Any]:
    """Return which parts of an evaluation are wanted."""
    own = recipe.train_command is not None
    return {
        "chooses": not recipe.quick and not own,
        "given_rate": recipe.judge_learning_rate is not None,
        "unbalanced": sizes.imbalance >= UNBALANCED and not recipe.quick and not own,
        "native": 0.0 if recipe.quick or own else sizes.native,
        "curve": 0 if recipe.quick or own else REPEATS if recipe.full else 1,
        "sweeps": recipe.full,
    }


def _runs(planned: Plan, sizes: Sizes) -> float:
    """Return how many trainings of an arm's length the plan comes to."""
    shared = (2 + 2 * planned.unbalanced) * planned.repeats + planned.native + 1
    own = 2 * planned.repeats + (planned.curve / 2 if planned.curve else 0) + planned.sweeps * (len(RATIOS) + len(AMOUNTS))
    tried = choose.runs(planned.settings.recogniser, given_rate=planned.given_rate, unbalanced=planned.unbalanced, folds=choose.folds(sizes.select))
    chosen = (tried + 2 * sizes.soft) / choose.SHORTER
    points = len(curve.sizes(sizes.real, sizes.classes)) + 1
    return shared + own * sizes.sets + planned.chooses * chosen + planned.curve * points / 2


def _usual(planned: Plan, sizes: Sizes) -> float:
    """Return the runs of a plan with usual repeats, one set and no sweeps, so that what is asked on top takes longer, not shorter arms."""
    usual = dataclasses.replace(planned, repeats=MORE_REPEATS if sizes.test < FEW else REPEATS, curve=1, sweeps=False, chooses=True)
    return _runs(usual, dataclasses.replace(sizes, sets=1, soft=0))


def imbalance(labels: np.ndarray) -> float:
    """Return the number of images of the largest class by that of the smallest that has any."""
    counts = np.bincount(labels)
    return float(counts.max() / counts[counts > 0].min())
