"""What every measure must do: look at a small context and say in a sentence what it found."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.records import ArmResult, Finding

DOCUMENTED_ELSEWHERE = {"Downstream"}
"""measures whose details have keys of their own in report.json, which report/schema.py explains"""
SILENT = {"Sweeps", "Rare"}
"""measures that say nothing of an experiment without the arms that they are about"""
CLASSES = ("a b", "no", "猫")


def labelled(count: int, seed: int) -> Labelled:
    """Return easy images uint8 [count, 6, 6, 1], each class one grey level with noise."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % len(CLASSES)).astype(np.int64)
    images = (labels * 70)[:, None, None, None] + rng.integers(0, 60, (count, 6, 6, 1))
    return Labelled(images.astype(np.uint8), labels)


def context() -> Context:
    """Return a small experiment with made results: three repeats of every arm, pixels as features."""
    real, synthetic, test = (labelled(90, seed) for seed in range(3))
    synthetic.images[:4], synthetic.labels[5] = real.images[[0, 1, 2, 0]], 0
    rng, results = np.random.default_rng(9), []
    for arm, skill in zip(("real", "synthetic", "both"), (0.9, 0.7, 0.95), strict=True):
        for repeat in range(3):
            right = rng.random(len(test)) < skill
            predicted = np.where(right, test.labels, (test.labels + 1) % len(CLASSES))
            results.append(ArmResult(arm, repeat, predicted, right, steps=10, images=90, seconds=1.0))
    return Context(CLASSES, real, synthetic, test, tuple(results), {"recogniser": flat, "random": flat}, predict)


def flat(images: np.ndarray) -> np.ndarray:
    """Return the pixels as features."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def predict(images: np.ndarray) -> np.ndarray:
    """Return probabilities by how near the mean grey level is to each class's."""
    level = images.reshape(len(images), -1).mean(1, keepdims=True)
    nearness = np.exp(-np.abs(level - (30 + 70 * np.arange(len(CLASSES)))) / 10) + 1e-9
    return (nearness / nearness.sum(1, keepdims=True)).astype(np.float32)


def check(measure_class: Any) -> None:
    """Measure one small experiment twice."""
    first, second = (findings(measure_class().measure(context())) for _ in range(2))
    assert first or measure_class.__name__ in SILENT
    if measure_class.__name__ not in DOCUMENTED_ELSEWHERE and not all(math.isnan(finding.estimate) for finding in first):
        check_keys(first, measure_class.keys)
    assert len({finding.measure for finding in first}) == len(first), "every finding has its own name"
    for finding in first:
        assert finding.sentence.strip(), "a finding says what it means"
        assert "\n" not in finding.sentence
        if not (math.isnan(finding.low) or math.isnan(finding.high)):
            assert finding.low <= finding.estimate <= finding.high
        json.dumps(dict(finding.details), allow_nan=False)
    assert [f.sentence for f in first] == [f.sentence for f in second], "equal contexts, equal findings"


def check_keys(found: list[Finding], keys: Mapping[str, str]) -> None:
    """Every key of the findings' details is explained by one of `keys`, and every one of these is met."""
    met = {path for finding in found for path in paths(finding.measure.replace(" ", "_"), finding.details)}
    patterns = {key: re.compile("[^.]+".join(re.escape(part) for part in key.split("*"))) for key in keys}
    assert not [path for path in sorted(met) if not any(p.fullmatch(path) for p in patterns.values())], "explained in `keys`"
    assert not [key for key, p in patterns.items() if not any(p.fullmatch(path) for path in met)], "no finding has it"
    assert all(text.strip() and "\n" not in text for text in keys.values())


def paths(name: str, value: Any) -> Iterator[str]:
    """Yield the dotted path of every key below `name`; places in lists are left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{name}.{key}"
            yield from paths(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(name, inner)


def findings(found: Finding | Iterable[Finding]) -> list[Finding]:
    return [found] if isinstance(found, Finding) else list(found)
