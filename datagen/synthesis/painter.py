"""Where pixels come from: a fitted generator or a rule, one tile at a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import datagen
from datagen import drawing, machine, registry, seeds
from datagen.errors import SafetyError, UsageError
from datagen.records import GeneratorCard, Recipe
from datagen.synthesis import generator
from datagen.synthesis.heartbeat import beat
from datagen.synthesis.plan import TILE

RULE = "rule:"
ATTEMPTS, PIECES = 50, (8, 16, 32, TILE)
"""noises that an image has at most, and images that are computed together"""
SAID = {"flag", "--set"}
"""origins of settings that are meant for this very call; recipe files and the environment speak of other runs too"""


@dataclass(frozen=True)
class Origin:
    """What makes the images, known before anything is computed.

    Attributes:
        run: RUN, a generator's folder, or rule:NAME.
        classes: names in code-point order.
        shape: channels, height, width in pixels.
        device: cpu, cuda or mps.
        spread, guidance: of a generator; 1 and 0 for a rule.
        ingredients: what decides pixels besides seed, class name and index.
        source: "synthetic", or "rule".
        family: name or PATH.py:Class of a generator's family, "" for a rule; no ingredient, as the card holds its hash.
        confidence: least one of the filter that an image needs, 0 takes all.
        reference: file of the training images as numbers, "" where near-copies are not looked for.
        unchecked: why they are not, "" where they are.
        real: training images of each class, None for a rule.
    """

    run: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    device: str
    spread: float
    guidance: float
    ingredients: Mapping[str, Any]
    source: str
    family: str = ""
    confidence: float = 0.0
    reference: str = ""
    unchecked: str = ""
    real: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Painted:
    """Images of one class with what is known of them.

    Attributes:
        images: uint8 [N, H, W, C].
        attempts: int64 [N], noises that were thrown away before.
        confidence: the filter's probability float32 [N] of the class; None where nothing scored them.
        probabilities: float16 [N, classes], classes in code-point order; None likewise.
        tried: images computed for them.
        forced: those taken though no attempt was sure enough.
        nearest_real: distance float32 [N] to the nearest training image of the class; None where that was not looked for.
        near_copies: images thrown away since they repeat a training image.
    """

    images: np.ndarray
    attempts: np.ndarray
    confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    tried: int = 0
    forced: int = 0
    nearest_real: np.ndarray | None = None
    near_copies: int = 0


class Painter(Protocol):
    """Paints tiles."""

    def tile(self, name: str, first: int, wanted: int) -> Painted:
        """Return the `wanted` images of class `name` from index `first`."""


def look(run: str, recipe: Recipe) -> Origin:
    """Return what will make the images, without loading weights.

    Raises:
        UsageError: the rule is unknown, a setting makes no sense for a rule, or the generator has another family.
        ArtefactError: there is no generator, its card is damaged or too new, or the file of its family is not named or another one.
        ResourceError: the device is not there.
    """
    if run.startswith(RULE):
        return _look_at_rule(run, recipe)
    folder = generator.find(run)
    card, digest = generator.read_card(folder)
    origin = recipe.origins.get("family")
    named = origin in SAID or (origin is not None and generator.is_own(card))
    family = generator.family_name(folder, card, recipe.family if named else "")
    device = machine.device(recipe.device)
    spread = generator.chosen(card, "spread", 1.0, recipe.mode) if recipe.spread is None else recipe.spread
    guidance = generator.chosen(card, "guidance", 0.0, recipe.mode) if recipe.guidance is None else recipe.guidance
    confidence = generator.chosen(card, "confidence", 0.0, recipe.mode) if recipe.min_confidence is None else recipe.min_confidence
    if confidence > 0 and generator.FILTER not in card.hashes:
        raise UsageError("this generator has no filter", where="--min-confidence", hint="leave it out, or fit anew")
    reference, unchecked = generator.reference_of(folder, card, recipe.reference, keep=recipe.keep_near_copies)
    ingredients = {"generator": digest, "spread": spread, "guidance": guidance, "confidence": confidence, "device": device}
    ingredients["precision"] = _precision(recipe, card, device)
    ingredients["layout"] = drawing.LAYOUTS.get(device, "contiguous")
    ingredients["reference"] = card.data["reference"] if reference else None
    names = tuple(sorted(card.classes))
    real = dict(zip(card.classes, card.counts, strict=True))
    given = (spread, guidance, ingredients, "synthetic", family, confidence)
    return Origin(run, names, card.shape, device, *given, str(reference or ""), unchecked, real)


def _precision(recipe: Recipe, card: GeneratorCard, device: str) -> str:
    if recipe.precision != "auto":
        return recipe.precision
    return "fp32" if recipe.deterministic else drawing.precision_of(card.chosen, device)


def _look_at_rule(run: str, recipe: Recipe) -> Origin:
    name = run.removeprefix(RULE)
    rule = registry.load("rules", name)()
    given = {"spread": recipe.spread, "guidance": recipe.guidance, "min-confidence": recipe.min_confidence, "reference": recipe.reference}
    named = {key: recipe.origins.get(key) in SAID or None for key in ("family", "precision")}
    for key, said in {**given, **named}.items():
        if said is not None:
            raise UsageError(f"a rule has no {key}", where=f"--{key}", hint=f"leave out --{key}, or give a fitted RUN")
    if recipe.device not in {"auto", "cpu"}:
        raise UsageError("a rule draws on the processor", where=f"--device {recipe.device}", hint="leave out --device, or give a fitted RUN")
    ingredients = {"rule": name.rpartition("/")[2], "version": registry.file_hash(name) or datagen.__version__, "device": "cpu"}
    return Origin(run, tuple(sorted(rule.classes)), tuple(rule.shape), "cpu", 1.0, 0.0, ingredients, "rule")


def production(origin: Origin, encoder: str) -> tuple[str, dict[str, Any]]:
    """Return the production id (SHA-256 as hex) and the ingredients that it stands for, the encoder's settings among them."""
    ingredients = {**origin.ingredients, "shape": list(origin.shape), "encoder": encoder, "tile": TILE}
    return seeds.digest("production", json.dumps(ingredients, sort_keys=True)).hex(), ingredients


def open_painter(origin: Origin, seed: int) -> Painter:
    """Return the painter of an origin; raises as `open_generator`."""
    if origin.run.startswith(RULE):
        return RulePainter(origin, seed)
    return GeneratorPainter(origin, seed)


class RulePainter:
    """Draws each image by a rule, from a seed of its own."""

    def __init__(self, origin: Origin, seed: int) -> None:
        self.rule, self.seed = registry.load("rules", origin.run.removeprefix(RULE))(), seed
        self.labels = {name: label for label, name in enumerate(self.rule.classes)}

    def tile(self, name: str, first: int, wanted: int) -> Painted:
        """Return the `wanted` images of class `name` from index `first`."""
        drawn = [self.rule.draw(seeds.integer("image", self.seed, name, first + i, 0), self.labels[name]).image for i in range(wanted)]
        return Painted(np.stack(drawn), np.zeros(wanted, np.int64), tried=wanted)


@dataclass
class _Computed:
    """Images of one attempt: pixels, the filter's probabilities [N, classes], distances to training images [N], and what each is worth [N].

    Worth is the confidence in the class, 1 without a filter, and below zero for near-copies.
    """

    images: np.ndarray
    scores: np.ndarray | None
    nearest: np.ndarray | None
    worth: np.ndarray

    def put(self, rows: np.ndarray, others: _Computed, taken: np.ndarray) -> None:
        """Take those of others [M] where `taken` [M] in the place of some rows."""
        for name in ("images", "scores", "nearest", "worth"):
            if (own := getattr(self, name)) is not None:
                own[rows] = getattr(others, name)[taken]


class GeneratorPainter:
    """Computes whole tiles of 64 images with one thread, so that floating point agrees whatever is asked for.

    An image that the filter is not sure enough of, or that nearly repeats a training image, is computed again from other noise, 50
    times at most; the whole tile takes part whatever is wanted of it, in pieces of 8, 16, 32 or 64.
    """

    def __init__(self, origin: Origin, seed: int) -> None:
        machine.take_gpu(origin.device)
        self.generator = generator.open_generator(origin.run, origin.device, origin.family, origin.ingredients["precision"])
        self.reference = generator.open_reference(origin.reference, self.generator.card) if origin.reference else None
        self.origin, self.seed = origin, seed
        self.labels = {name: label for label, name in enumerate(self.generator.card.classes)}
        self.order = [self.labels[name] for name in origin.classes]

    def tile(self, name: str, first: int, wanted: int) -> Painted:
        """Return the `wanted` images of class `name` from index `first`, a multiple of 64; SafetyError where an image has near-copies only."""
        least, attempts = self.origin.confidence, np.zeros(TILE, np.int64)
        with one_thread():
            found = self._computed(name, first + np.arange(TILE), 0)
            tried, copies = np.ones(TILE, np.int64), (found.worth < 0).astype(np.int64)
            for attempt in range(1, ATTEMPTS):
                lacking = np.flatnonzero(found.worth < least)
                if not len(lacking):
                    break
                beat(0)
                others = self._computed(name, first + lacking, attempt)
                tried[lacking] += 1
                copies[lacking] += others.worth < 0
                better = others.worth > found.worth[lacking]
                found.put(lacking[better], others, better)
                attempts[lacking[better]] = attempt
        if (found.worth[:wanted] < 0).any():
            what = f"an image of class {name!r} nearly repeats a training image whatever its noise ({ATTEMPTS} attempts)"
            raise SafetyError(what, where=self.origin.run, hint="fit to more images, or take copies with --keep-near-copies")
        forced = int((found.worth[:wanted] < least).sum())
        return Painted(
            found.images[:wanted],
            attempts[:wanted],
            None if found.scores is None else found.scores[:wanted, self.labels[name]].astype(np.float32),
            None if found.scores is None else found.scores[:wanted, self.order].astype(np.float16),
            int(tried[:wanted].sum()),
            forced,
            None if found.nearest is None else found.nearest[:wanted],
            int(copies[:wanted].sum()),
        )

    def _computed(self, name: str, indices: np.ndarray, attempt: int) -> _Computed:
        """Return what comes out for some indices at an attempt."""
        count, label = len(indices), self.labels[name]
        padded = np.resize(indices, next(size for size in PIECES if size >= count))
        noise = np.stack([seeds.image_noise(self.seed, name, int(i), attempt, self.generator.card.noise) for i in padded])
        images = self.generator.images(np.full(len(padded), label, np.int64), noise, self.origin.spread, self.origin.guidance)
        scores = None if self.generator.filter is None else self.generator.filter.predict(images)[:count]
        worth = np.ones(count, np.float32) if scores is None else scores[:, label].copy()
        nearest = None
        if self.reference is not None:
            nearest, copies = (values[:count] for values in self.reference.copies(images, label))
            worth[copies] = -1
        return _Computed(images[:count], scores, nearest, worth)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread and with kernels that give equal numbers every time."""
    import torch

    cudnn = torch.backends.cudnn
    before, products = (torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(products)
        cudnn.benchmark, cudnn.deterministic = before[1:]
