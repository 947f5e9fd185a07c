"""The real images of a fit: scanned, brought to one shape, split, and described in data.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datagen import ranks, storage
from datagen.errors import InputError
from datagen.progress import Progress
from datagen.records import READ, Dataset, Recipe
from datagen.sources import cache, scan, shape, split
from datagen.training import plan


@dataclass(frozen=True)
class Real:
    """The scanned set of one fit: records, pixels uint8 [N, H, W, C], shape (C, H, W) and the split's rows."""

    dataset: Dataset
    pixels: np.ndarray
    shape: tuple[int, int, int]
    parts: split.Split
    sentence: str


def read(source: str | Path, recipe: Recipe, out: Path, progress: Progress, *, begun: bool) -> Real:
    """Scan the images and bring them to one shape; writes data.json and scan.json, or checks that a run that has begun began with them."""
    dataset, stored = scanned(source, recipe, out, progress, begun=begun)
    wanted, sentence = shape.plan_shape(dataset, recipe)
    pixels = cache.pixels(dataset, wanted, recipe, progress=progress)
    key = split.KEY if stored is None else stored["key"]
    parts = split.split(dataset, holdout=recipe.holdout, key=key)
    if stored is None:
        storage.write_json(out / "data.json", _data(source, dataset, recipe, parts, key))
    return Real(dataset, pixels, wanted, parts, sentence)


def scanned(source: str | Path, recipe: Recipe, out: Path, progress: Progress, *, begun: bool) -> tuple[Dataset, dict[str, Any] | None]:
    """Scan the images; returns them and data.json, None where the run has not begun. InputError where it began with others."""
    dataset = scan.scan(source, recipe, test=recipe.test, progress=progress, report=out / "scan.json" if ranks.rank() == 0 and not begun else None)
    stored = storage.read_json(out / "data.json") if begun else None
    if stored and stored["fingerprint"] != dataset.fingerprint:
        before, now = stored["counts"], dict(zip(dataset.classes, plan.counts_of(dataset.labels, len(dataset.classes)), strict=True))
        changed = [f"{k}: {before.get(k, 0)} images, now {now.get(k, 0)}" for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        detail = "; ".join(changed[:5]) or "the same counts, other pixels"
        raise InputError(f"the images changed since this run began ({detail})", where=source, hint="restore them, or fit into another --out")
    return dataset, stored


def _data(source: str | Path, dataset: Dataset, recipe: Recipe, parts: split.Split, key: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "source": str(Path(source).absolute()),
        "test": str(Path(recipe.test).absolute()) if recipe.test else None,
        "roots": list(dataset.roots),
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "counts": dict(zip(dataset.classes, plan.counts_of(dataset.labels, len(dataset.classes)), strict=True)),
        "holdout": recipe.holdout,
        "key": key,
        "split": {name: len(getattr(parts, name)) for name in ("train", "select", "test")},
        "settings": recipe.settings(READ),
    }
