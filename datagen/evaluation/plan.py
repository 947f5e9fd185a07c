"""How long the arms of an evaluation train: planned from the real images and a short timing, written down, obeyed when continued."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datagen import machine
from datagen.progress import span
from datagen.recogniser import timing
from datagen.recogniser.fit import Settings
from datagen.records import Recipe

REPEATS = 3
SECONDS = 1.3
"""one arm takes at most this times the root of the number of real images"""
SHOWN, GROWTH = 760, 0.55
"""training images shown, counting repeats, are 760 times the number of real images to the power of 0.55"""
FEWEST_STEPS = 200
"""what a slow machine takes at least"""
QUICK = 5


@dataclass(frozen=True)
class Plan:
    """How every arm is trained.

    Attributes:
        settings: of the recogniser; equal for all arms.
        repeats: of every arm.
        threads: for computing.
        rate: images a second, forecast by a short timing.
        rates: images a second by "precision layout threads", of all that were timed.
        limited: whether this machine's speed, not the images, decided the steps.
    """

    settings: Settings
    repeats: int
    threads: int
    rate: float
    rates: Mapping[str, float]
    limited: bool = False

    @property
    def seconds(self) -> float:
        """Forecast of the time for every arm and the recogniser of the measures."""
        return (3 * self.repeats + 1) * self.settings.steps * self.settings.batch / self.rate

    def written(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return dataclasses.asdict(self)

    def describe(self, recipe: Recipe) -> list[str]:
        """Return what was decided in lines, each with the flag that changes it."""
        s = self.settings
        why = "given" if recipe.steps else "limited by this machine's speed" if self.limited else "planned from the real images"
        timed = ", ".join(f"{name} {rate:,.0f}" for name, rate in self.rates.items())
        return [
            f"recogniser {s.recogniser} (--recogniser), {s.steps:,} steps (--steps; {why}) of {s.batch} images (--judge-batch), "
            f"{self.repeats} repeat{'s' if self.repeats > 1 else ''} (--repeats) of each arm",
            f"{s.precision}, {s.layout}, {self.threads} thread{'s' if self.threads > 1 else ''} (--threads; timed in images/s: {timed})",
            f"about {span(self.seconds)} for all arms",
        ]


def stored(value: Mapping[str, Any]) -> Plan:
    """Return the plan that `written` gave."""
    return Plan(**{**value, "settings": Settings(**value["settings"])})


def make(recipe: Recipe, *, images: int, shape: tuple[int, int, int], classes: int, device: str) -> Plan:
    """Plan an evaluation.

    Without --steps the images shown grow about as the root of the number of real images (900: 32,000, 60,000: 323,000), but
    one arm takes no longer than 1.3 times the root of that number in seconds on this machine (900: 39 s, 60,000: 5 minutes).
    With --deterministic nothing depends on the timing.

    Args:
        recipe: its judge settings; what is given there is kept.
        images: number of real training images.
        shape: channels, height, width.
        classes: number of classes.
        device: "cpu", "cuda" or "mps".
    """
    settings = Settings(recogniser=recipe.recogniser, batch=recipe.judge_batch)
    most = recipe.threads or machine.processors()
    fixed = recipe.threads or recipe.deterministic or device != "cpu" or most == 1
    threads = [most] if fixed else [most, 1]
    timed = timing.choose(settings, shape, classes, device=device, plain=recipe.deterministic, threads=threads)
    wanted = math.ceil(SHOWN * images**GROWTH / settings.batch)
    possible = wanted if recipe.deterministic else max(FEWEST_STEPS, int(SECONDS * math.sqrt(images) * timed.rate / settings.batch))
    steps = recipe.steps or max(1, min(wanted, possible) // (QUICK if recipe.quick else 1))
    repeats = recipe.repeats or (1 if recipe.quick else REPEATS)
    limited = recipe.steps is None and possible < wanted
    return Plan(dataclasses.replace(timed.settings, steps=steps), repeats, timed.threads, round(timed.rate, 1), timed.rates, limited)
