"""Made experiments and their reports: arms whose predictions are drawn, not trained, so that a page takes a second."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from datagen import storage
from datagen.evaluation import experiment
from datagen.evaluation.arms import Labelled
from datagen.evaluation.choose import Choice
from datagen.evaluation.experiment import AMOUNT, CURVE, RATIO, Context
from datagen.evaluation.inputs import Inputs
from datagen.evaluation.plan import Plan
from datagen.evaluation.report import schema
from datagen.recogniser.fit import Settings
from datagen.records import ArmResult, Finding

MEASURES = ("downstream", "exchange", "sweeps", "rare")
SKILLS: Mapping[str, float] = {"real": 0.9, "classical": 0.91, "synthetic": 0.7, "both": 0.92}
SCORES = {"learning_rate": {"0.2": 0.9, "0.1": 0.88}, "policy": {"geometric": 0.91, "none": 0.9}, "base": {"real": 0.9, "classical": 0.91}}


def labelled(classes: int, each: int, seed: int, size: tuple[int, int, int] = (8, 8, 1)) -> Labelled:
    """Return noise, `each` images of every class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    names = tuple(f"c{label}/{i}.png" for i, label in enumerate(labels))
    return Labelled(rng.integers(0, 256, (len(labels), *size), dtype=np.uint8), labels, names)


def digits(size: int = 16) -> dict[str, Labelled]:
    """Return scikit-learn's handwritten digits at `size` pixels: real, test, others blurred and shifted as synthetic, three with a real one's pixels."""
    from PIL import Image, ImageFilter
    from sklearn.datasets import load_digits

    found = load_digits()
    small = [Image.fromarray(np.uint8(np.minimum(255, image * 16))) for image in found.images]
    images = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)) for image in small])[..., None]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    parts = dict(zip(("real", "test", "other"), np.array_split(order, 3), strict=True))
    made = [np.asarray(Image.fromarray(images[row, ..., 0]).filter(ImageFilter.GaussianBlur(0.8))) for row in np.repeat(parts["other"], 2)]
    moved = np.stack([np.roll(image, rng.integers(-2, 3, 2), (0, 1)) for image in made])[..., None]
    moved[:3] = images[parts["real"][:3]]
    shown = {name: Labelled(images[rows], found.target[rows], tuple(f"{row}.png" for row in rows)) for name, rows in parts.items() if name != "other"}
    labels = np.concatenate([found.target[parts["real"][:2]], found.target[np.repeat(parts["other"], 2)][2:]])
    return {**shown, "synthetic": Labelled(moved, labels)}


def drawn(arm: str, repeat: int, skill: float, parts: Mapping[str, Labelled], classes: int, rng: np.random.Generator) -> ArmResult:
    """Return a result that is right as often as `skill` says, and takes the next class else."""
    test, made, real = (parts[name] for name in ("test", "synthetic", "real"))
    hard = rng.permutation(classes) / max(1, classes - 1) - 0.5
    right = rng.random(len(test)) < np.clip(skill + 0.1 * (1 - skill) * hard[test.labels], 0, 1)
    predicted = np.where(right, test.labels, (test.labels + 1) % classes)
    scores = np.clip(rng.normal(np.where(test.labels == 0, skill, 1 - skill), 0.15), 0, 1).astype(np.float32)
    images = len(made) * (arm != "real") + len(real) * (arm != "synthetic")
    steps = 250 if arm.startswith(CURVE) else 500
    return ArmResult(
        arm, repeat, predicted, predicted == test.labels, steps, images, 1.5, "", 0.3, scores, np.where(rng.random(len(test)) < 0.05, 0, predicted)
    )


def encode(images: np.ndarray) -> np.ndarray:
    """Return some of the pixels of images as features."""
    return np.ascontiguousarray(images.reshape(len(images), -1)[:, ::3][:, :48]).astype(np.float32)


def by_means(means: np.ndarray) -> experiment.Encoder:
    """Return a function that gives probabilities float32 [N, classes] by the distance of pixels from each class's mean [classes, pixels]."""

    def predict(images: np.ndarray) -> np.ndarray:
        found = -((images.reshape(len(images), 1, -1) - means) ** 2).mean(axis=2) / 200
        powers = np.exp(found - found.max(1, keepdims=True))
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32)

    return predict


def predictor(classes: int) -> experiment.Encoder:
    """Return a function that gives probabilities float32 [N, classes] decided by the pixels."""

    def predict(images: np.ndarray) -> np.ndarray:
        weights = np.random.default_rng(3).normal(size=(int(np.prod(images.shape[1:])), classes))
        found = images.reshape(len(images), -1).astype(np.float64) @ weights / 500
        powers = np.exp(found - found.max(1, keepdims=True))
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32)

    return predict


def experiment_of(
    classes: tuple[str, ...],
    *,
    each: int = 10,
    repeats: int = 3,
    skills: Mapping[str, float] = SKILLS,
    once: Mapping[str, float] | None = None,
    parts: Mapping[str, Labelled] | None = None,
    base: str = "real",
    focus: int | None = None,
) -> Context:
    """Return a made experiment whose arms are right as often as `skills` says; `once` are arms of a single repeat."""
    made = parts or {name: labelled(len(classes), each, seed) for seed, name in enumerate(("real", "synthetic", "test"))}
    rng, results = np.random.default_rng(5), []
    for arm, skill in skills.items():
        results += [drawn(arm, repeat, skill, made, len(classes), rng) for repeat in range(repeats)]
    results += [drawn(arm, 0, skill, made, len(classes), rng) for arm, skill in (once or {}).items()]
    choice = Choice(0.2, base=base, scores=SCORES if base != "real" else {}, images=60 if base != "real" else 0)
    return Context(
        classes,
        made["real"],
        made["synthetic"],
        made["test"],
        tuple(results),
        {"recogniser": encode},
        predictor(len(classes)),
        choice=choice,
        focus=focus,
    )


def inputs_of(context: Context, **described: Any) -> Inputs:
    """Return where the images of a made experiment came from."""
    counts = dict.fromkeys(context.classes, 10)
    part = {"folder": "data", "images": len(context.real), "counts": counts}
    made = part | {"images": len(context.synthetic), "production": "ab" * 32, "format": "parquet", "seed": 0, "source": "synthetic"}
    data = {
        "real": part,
        "test": part | {"images": len(context.test), "held_out": False},
        "synthetic": {"shards": made},
        "fingerprint": "cd" * 32,
        "resize": "crop",
        "run": None,
        "later": False,
        "others": [],
    }
    select = np.zeros(len(context.real), bool)
    return Inputs(context.real, {"shards": context.synthetic}, context.test, select, None, context.classes, data | described)


def report_of(
    context: Context,
    more: tuple[Finding, ...] = (),
    *,
    measures: tuple[str, ...] = MEASURES,
    times: int = 1,
    beside: Context | None = None,
    command: str | None = None,
    **described: Any,
) -> dict[str, Any]:
    """Return the report of a made experiment as it is read back from report.json; `beside` is that of another set."""
    planned = Plan(Settings(), 3, 1, 1000.0, {"fp32 contiguous 1 thread": 1000.0}, command=command)
    found = inputs_of(context, **described)
    measured = {"": schema.Measured(context, [*experiment.measure(context, measures), *more])}
    if beside is not None:
        found = dataclasses.replace(found, synthetic={"shards": context.synthetic, "other": beside.synthetic})
        found.described["synthetic"]["other"] = found.described["synthetic"]["shards"] | {"folder": "other"}  # type: ignore[index]
        measured = {"shards": measured[""], "other": schema.Measured(beside, experiment.measure(beside, measures))}
    hashes = dict.fromkeys(("real", "synthetic", "test", "shards", "other"), "ef" * 32)
    value = schema.build(measured, found, planned, hashes=hashes, times=times, seconds=12.3)
    return dict(json.loads(storage.to_json(value)))


def of(context: Context, name: str) -> tuple[ArmResult, ...]:
    """Return the arms of an experiment, synthetic and both as those of a set."""
    return tuple(dataclasses.replace(result, set=name if result.arm in {"synthetic", "both"} else "") for result in context.arms)


def whole() -> tuple[Context, dict[str, Any]]:
    """Return an experiment on digits with all that a page can show, and its report."""
    names = tuple(f"digit {i}" for i in range(10))
    skills = {"real": 0.93, "classical": 0.945, "weighted": 0.932, "oversampled": 0.935, "synthetic": 0.90, "both": 0.965}
    once = {f"{CURVE} {n}": skill for n, skill in {37: 0.62, 75: 0.78, 150: 0.86, 300: 0.915, 599: 0.93}.items()} | {f"{CURVE} synthetic": 0.9}
    once |= {f"{RATIO} {r:g}": skill for r, skill in {0.25: 0.94, 0.5: 0.95, 2: 0.955}.items()}
    once |= {f"{AMOUNT} {n}": skill for n, skill in {75: 0.7, 150: 0.8, 300: 0.86, 600: 0.89}.items()} | {"native": 0.95}
    context = experiment_of(names, skills=skills, once=once, parts=digits(), base="classical", focus=0)
    other = experiment_of(names, skills=skills | {"both": 0.93, "synthetic": 0.8}, once=once, parts=digits(), base="classical", focus=0)
    real = context.real
    means = np.stack([real.images[real.labels == label].mean(axis=0).ravel() for label in range(10)])
    context, beside = (dataclasses.replace(each, predict=by_means(means), arms=of(each, name)) for each, name in ((context, "shards"), (other, "other")))
    return context, report_of(context, measures=measures(), times=4, beside=beside)


def measures() -> tuple[str, ...]:
    """Return the names of all measures."""
    from datagen import registry

    return tuple(registry.names("measures"))
