"""What a fit decides before its first step: shape, settings, precision and how many images it shows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from datagen import drawing, machine, ranks, registry, seeds, turns
from datagen import recipe as recipes
from datagen.contracts import Family, Spec, Stage, State
from datagen.progress import span
from datagen.recogniser import timing as recogniser_timing
from datagen.recogniser.fit import Settings
from datagen.recogniser.stored import WIDTH
from datagen.records import Recipe
from datagen.training import selection, timing
from datagen.training.batches import Batches

DEFAULT_SECONDS = 600.0
AFTER_TRAINING, SELECTION = 0.06, 0.3
"""shares of a budget: for what comes after the training, and of it for choosing by usefulness"""
TIMING = 0.02
"""share of a budget after which a comparison of settings takes no further turns"""
SHOWN = 1.0
"""images that the recognisers of the choice are shown all together, by those that the generator is shown, where no budget is given"""
CHECKPOINT_SECONDS = 45.0
GRID_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """A fit's plan: the full recipe, what it builds for, images of each stage, sentences for the user, and how what is
    chosen by usefulness is chosen (steps, images, layout; precision of drawing). `until`, by the clock, is said but not stored."""

    recipe: Recipe
    spec: Spec
    totals: tuple[int, ...]
    rates: Mapping[str, Mapping[str, float]]
    sentences: tuple[str, ...]
    selection: Mapping[str, Any]
    until: str = ""


def suited(recipe: Recipe, shape: tuple[int, int, int], counts: Sequence[int]) -> tuple[Recipe, Family]:
    """Return the recipe with its device, filled from the built-in recipe that fits the data where the user gave none, and its family."""
    recipe = recipe.planned(device=machine.device(recipe.device))
    recipe = recipes.suited(recipe, shape, sum(counts), recipe.device)
    return recipe, registry.load("families", recipe.family)()


def prepare(recipe: Recipe, family: Family, shape: tuple[int, int, int], counts: Sequence[int]) -> Spec:
    """Return what a family builds for, its settings filled from its own plan where the user left them open; both as from `suited`."""
    recipe = recipe.planned(
        size=shape[1:],
        colour="grey" if shape[0] == 1 else "rgb",
    )
    if recipe.deterministic:
        recipe = recipe.planned(precision="fp32", layout="contiguous")
    spec = Spec(len(counts), shape, tuple(int(c) for c in counts), recipe)
    planned = recipe.planned(**family.plan(spec))
    return Spec(spec.classes, shape, spec.counts, planned)


def complete(spec: Spec, family: Family, batches: Batches, *, begun: float) -> Plan:
    """Time the stages on this machine and fix how many images each is shown.

    Args:
        spec: from `prepare`.
        family: the family to fit.
        batches: the training images.
        begun: time.monotonic() at the start of the whole fit, which the budget covers.
    """
    recipe, stages = spec.recipe, list(family.stages(spec))
    batch = recipe.batch or 1
    long = min(turns.LONG, TIMING * (recipe.budget or DEFAULT_SECONDS))
    timed: list[timing.Timed] = []
    state = State(spec)
    for stage in stages:
        many = batches.images(batches.chosen(0, max(1, batch // ranks.count()) * stage.times), recipe.device)
        fresh = partial(_built, stage, state, recipe)
        if stage.inputs is not None:
            many = stage.inputs(fresh(), lambda _: iter([many])).to(recipe.device), many[1]  # noqa: B023 (called at once)
        timed.append(timing.choose(stage, fresh, many, allowed=_allowed(recipe), threads=_threads(recipe), long=long).together(ranks.abreast(recipe.device)))
        fresh()
    longest = max(range(len(stages)), key=lambda k: stages[k].share)
    main, alone = timed[longest], timed[longest].rate / ranks.abreast(recipe.device)
    recipe = recipe.planned(precision=main.precision, layout=main.layout, threads=main.threads)
    draws = {"precision": drawing.timed(family, state, recipe.device, spec.recipe.precision)}
    judge = _judge(recipe, spec, long)
    rates_now = [t.rates.get(timing.label(main.precision, main.layout, main.threads), t.rate) for t in timed]
    totals, how, until = _totals(recipe, stages, rates_now, begun, _kept_back(recipe, judge, alone))
    recipe = recipe.planned(
        images=sum(totals),
        checkpoint_every=_every(CHECKPOINT_SECONDS, main.rate, batch),
        grid_every=_every(GRID_SECONDS, main.rate, batch),
    )
    seconds = sum(total / rate for total, rate in zip(totals, rates_now, strict=True))
    sentences = (how.format(images=sum(totals), seconds=span(seconds)),)
    until = until.format(end=time.strftime("%H:%M", time.localtime(time.time() + seconds)))
    rates = {stage.name: t.rates for stage, t in zip(stages, timed, strict=True)}
    seen = sum(total for total, stage in zip(totals, stages, strict=True) if stage.inputs is None)
    chosen = _selection(recipe, judge, seen, alone) | draws
    return Plan(recipe, Spec(spec.classes, spec.shape, spec.counts, recipe), totals, rates, sentences, chosen, until)


def _judge(recipe: Recipe, spec: Spec, long: float) -> recogniser_timing.Timed | None:
    """Time the recognisers that choose; None where nothing may follow from a timing."""
    if recipe.deterministic:
        return None
    settings = Settings(batch=selection.BATCH, width=WIDTH)
    return recogniser_timing.choose(settings, spec.shape, spec.classes, device=recipe.device, threads=[recipe.threads or 1], long=long)


def _selection(recipe: Recipe, judge: recogniser_timing.Timed | None, seen: int, rate: float) -> dict[str, Any]:
    """Return steps, images and layout of the recognisers that choose: by the budget, or by the images that the generator is shown.

    Half of the time goes to drawing images, which takes about a third of the time of training on them.
    """
    by_images = {**selection.planned(seen * SHOWN), "images": selection.drawn(seen * SHOWN)}
    if judge is None:
        return by_images | {"layout": Settings().layout}
    layout = {"layout": judge.settings.layout}
    if recipe.origins.get("images") not in {None, "default", "plan"}:
        return by_images | layout
    half = (recipe.budget or DEFAULT_SECONDS) * SELECTION / 2
    return {**selection.planned(half * judge.rate), "images": selection.drawn(half * 3 * rate), **layout}


def _built(stage: Stage, state: State, recipe: Recipe) -> State:
    torch.manual_seed(seeds.integer(recipe.seed, "timing"))
    state.optimizers.clear()
    stage.build(state)
    for net in state.modules.values():
        net.to(recipe.device)
    return state


def _allowed(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    pairs = [p for p in timing.CHOICES if recipe.precision in (p[0], "auto") and recipe.layout in (p[1], "auto")]
    return tuple(pairs)


def _threads(recipe: Recipe) -> list[int]:
    most = recipe.threads or machine.processors()
    fixed = recipe.threads or recipe.deterministic or recipe.device != "cpu"
    return [most] if fixed or most == 1 else [most, max(1, most // 2)]


def _every(seconds: float, rate: float, batch: int) -> int:
    return max(1, round(seconds * rate / batch)) * batch


def _kept_back(recipe: Recipe, judge: recogniser_timing.Timed | None, rate: float) -> float:
    """Return the share of the budget that is kept back for choosing: less on a GPU where the most that is chosen by takes less."""
    if judge is None or recipe.device == "cpu":
        return SELECTION
    chosen = _selection(recipe, judge, 0, rate)
    trained = selection.runs(chosen["modes"]) * chosen["steps"] * selection.BATCH / judge.rate
    drawn = chosen["images"] * selection.DRAWS * len(selection.SPREADS) / (3 * rate)
    return min(SELECTION, 0.02 + 1.5 * (trained + drawn) / (recipe.budget or DEFAULT_SECONDS))


def _totals(recipe: Recipe, stages: Sequence[Stage], rates: Sequence[float], begun: float, kept_back: float) -> tuple[tuple[int, ...], str, str]:
    """Return the images of each stage, how they are said, and until when by the clock."""
    if recipe.images is not None:
        wanted = [recipe.images * stage.share * stage.times for stage in stages]
        how, until = "{images:,} training images (--images), about {seconds}", "; until about {end}"
    else:
        budget = recipe.budget or DEFAULT_SECONDS
        left = max(budget * (1 - AFTER_TRAINING - kept_back) - (time.monotonic() - begun), 0.1 * budget)
        wanted = [left * stage.share * rate for stage, rate in zip(stages, rates, strict=True)]
        given = f"--budget {span(budget)}" if recipe.budget else f"{span(budget)} by default; --budget or --images change it"
        done = time.strftime("%H:%M", time.localtime(time.time() + budget - (time.monotonic() - begun)))
        how, until = "{images:,} training images, about {seconds}" + f" ({given})", "; until about {end}, all done by about " + done
    steps = [(recipe.batch or 1) * stage.times for stage in stages]
    return tuple(max(1, round(images / step)) * step for images, step in zip(wanted, steps, strict=True)), how, until


def describe(plan: Plan, counts: Mapping[str, int], notes: Sequence[str]) -> list[str]:
    """Return the plan in lines for the user, each decision with the flag that changes it."""
    recipe = plan.recipe
    largest, least = max(counts.values()), min(counts.values())
    balance = (
        f"{len(counts)} classes of {least:,} to {largest:,} training images" if least != largest else f"{len(counts)} classes of {least:,} training images"
    )
    sampling = "every class equally often" if recipe.sampling == "balanced" else "classes as often as the folder has them"
    nets = ", ".join(f"{k} {getattr(recipe, k):g}" for k in ("batch", "width", "latent", "learning_rate", "beta", "gamma") if getattr(recipe, k) is not None)
    draws = f"draws in {drawing.precision_of(plan.selection, recipe.device)}"
    lines = [
        *notes,
        f"data: {balance}; shown: {sampling} (--set sampling=natural or balanced)",
        f"family: {recipe.family} (--family); {nets} (--set key=value){_from(recipe)}",
        f"device: {recipe.device}, {recipe.threads} threads, {recipe.precision}, {recipe.layout}; {draws} (--device, --set precision=…, layout=…)",
        *(f"length: {sentence}{plan.until}" for sentence in plan.sentences),
    ]
    return lines


def _from(recipe: Recipe) -> str:
    """Return in words which recipe the settings came from, "" where from none."""
    name = next((origin.removeprefix("recipe ") for origin in recipe.origins.values() if origin.startswith("recipe ")), None)
    return f"; recipe {name} (--recipe)" if name else ""


def counts_of(labels: np.ndarray, classes: int) -> list[int]:
    """Return how many labels int64 [N] fall on each class."""
    return np.bincount(labels, minlength=classes).astype(int).tolist()


def stored(plan: Plan, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return recipe.json: what was asked, all settings, where each came from, the timing and the images of each stage."""
    return {
        "schema": 1,
        "asked": dict(asked),
        "settings": plan.recipe.settings(),
        "origins": dict(plan.recipe.origins),
        "totals": list(plan.totals),
        "rates": {k: dict(v) for k, v in plan.rates.items()},
        "sentences": list(plan.sentences),
        "selection": dict(plan.selection),
    }


BEFORE = {"steps": selection.FEWEST_STEPS, "modes": 1, "images": selection.FEWEST_IMAGES, "layout": "contiguous"}
"""of a run that an older version began"""


def restored(known: Mapping[str, Any], recipe: Recipe, shape: tuple[int, int, int], counts: Sequence[int]) -> Plan:
    """Return the plan written in recipe.json, obeyed by every continuation; the device and a given number of threads may be others."""
    settings = known["settings"] | {"device": machine.device(recipe.device)} | ({"threads": recipe.threads} if recipe.threads else {})
    whole = recipe.changed("plan", **{k: v for k, v in settings.items() if v is not None})
    spec = Spec(len(counts), shape, tuple(int(c) for c in counts), whole)
    return Plan(whole, spec, tuple(known["totals"]), known["rates"], tuple(known["sentences"]), known.get("selection", BEFORE))
