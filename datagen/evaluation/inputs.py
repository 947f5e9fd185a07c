"""What an evaluation compares: synthetic images from shards, real ones of the same shape, and the real ones nobody trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datagen import seeds, storage
from datagen.errors import InputError, SafetyError, UsageError
from datagen.evaluation.arms import Labelled
from datagen.progress import Progress
from datagen.reading.shards import load
from datagen.records import Dataset, Recipe
from datagen.sources import cache, scan, split

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Asked:
    """Which images an evaluation is about.

    Attributes:
        shards: set of shards or labelled folder of synthetic images.
        real: labelled real images, or None where `run` says.
        test: unseen labelled real images, or None.
        run: folder that `fit` wrote, whose images and hold-out are taken, or None.
    """

    shards: str
    real: str | None = None
    test: str | None = None
    run: str | None = None

    def written(self) -> dict[str, Any]:
        """Return what was asked as JSON: absolute paths, and the SHA-256 of the shards' manifest and the run's data.json."""
        value: dict[str, Any] = {k: str(Path(v).absolute()) if v else None for k, v in vars(self).items()}
        files = {"manifest": Path(self.shards) / MANIFEST, "data": Path(self.run) / "data.json" if self.run else None}
        return value | {k: storage.hash_file(v) if v is not None and v.is_file() else None for k, v in files.items()}


@dataclass(frozen=True)
class Inputs:
    """The images of an evaluation, all of one shape, labels by place in `classes`.

    Attributes:
        real, synthetic, test: as `arms.Labelled`.
        classes: names in code-point order.
        described: where each came from, for the report.
        notes: sentences to show before the work starts.
    """

    real: Labelled
    synthetic: Labelled
    test: Labelled
    classes: tuple[str, ...]
    described: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        height, width, channels = self.synthetic.images.shape[1:]
        return channels, height, width


def gather(asked: Asked, recipe: Recipe, *, progress: Progress, report: Path | None = None) -> Inputs:
    """Read, match and check all images of an evaluation.

    Args:
        asked: where they are.
        recipe: the settings about reading images; those of the run win where there is one.
        progress: shows the stages of reading.
        report: where scan.json goes.

    Raises:
        UsageError: real images, or unseen ones, are not given, or are given twice.
        InputError: they cannot be read, the classes differ, or the run's images changed.
        ArtefactError: the shards or the run are damaged.
        SafetyError: unseen test images are among the synthetic ones.
    """
    source, test, reading, stored = _where(asked, recipe)
    made = load(asked.shards)
    height, width, channels = made.images.shape[1:]
    dataset = scan.scan(source, reading, test=test, progress=progress, report=report)
    if stored is not None and stored.get("fingerprint") != dataset.fingerprint:
        raise InputError("the images changed since the run was fitted", where=source, hint="restore them, or give --real and --test")
    parts = split.split(dataset, holdout=reading.holdout, key=stored["key"] if stored else seeds.digest(recipe.seed, "holdout").hex())
    _match(dataset, parts, made.classes, made.labels, asked)
    pixels = cache.pixels(dataset, (channels, height, width), reading, progress=progress)
    rows = np.sort(np.concatenate([parts.train, parts.select]))
    real, unseen = _part(dataset, pixels, rows), _part(dataset, pixels, parts.test)
    synthetic = Labelled(made.images, made.labels, tuple(made.names))
    _refuse_leaks(synthetic, unseen, asked)
    described = {
        "real": _described(dataset, rows, dataset.roots[0] or dataset.root),
        "test": _described(dataset, parts.test, dataset.roots[1] or dataset.root) | {"held_out": not dataset.test.any()},
        "synthetic": _made(made.manifest, made.labels, made.classes, asked.shards),
        "fingerprint": dataset.fingerprint,
        "resize": reading.resize,
        "run": Path(asked.run).name if asked.run else None,
    }
    return Inputs(real, synthetic, unseen, dataset.classes, described, (*dataset.notes, *parts.notes))


def _where(asked: Asked, recipe: Recipe) -> tuple[str, str | None, Recipe, dict[str, Any] | None]:
    """Return the source, the test folder, the settings for reading, and the run's data.json where a run was given."""
    if asked.run is None:
        if asked.real is None:
            raise UsageError("no real images are given", where="--real", hint="--real FOLDER with --test FOLDER, or --run RUN")
        return asked.real, asked.test or recipe.test, recipe, None
    if asked.real is not None or asked.test is not None:
        raise UsageError("--run already says which real images; --real and --test contradict it", where="--run", hint="give one or the other")
    stored = storage.read_json(Path(asked.run) / "data.json", limit=1 << 28)
    try:
        reading = recipe.changed("run", **stored["settings"])
        return str(stored["source"]), stored["test"], reading, {"key": stored["key"], "fingerprint": stored["fingerprint"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("does not say which images the run was fitted to", where=Path(asked.run) / "data.json", hint="give --real and --test") from error


def _match(dataset: Dataset, parts: split.Split, classes: tuple[str, ...], labels: np.ndarray, asked: Asked) -> None:
    """Refuse class names that differ between real and synthetic images, classes without images, and a missing test."""
    if not len(parts.test):
        raise UsageError("there are no unseen real images to test on", where="--test", hint="give --test FOLDER, or a --holdout above 0")
    seen = {dataset.classes[i] for i in np.unique(dataset.labels[~dataset.test])}
    made = {classes[i] for i in np.unique(labels)}
    for name, missing in {"the real training images": made - seen, "the synthetic images": seen - made}.items():
        if missing:
            shown = ", ".join(map(repr, sorted(missing)[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise InputError(f"classes that are not among {name}: {shown}", where=asked.shards, hint="classes are matched by name; rename the folders")
    if set(dataset.classes) != made or dataset.classes != classes:
        extra = sorted(set(dataset.classes) ^ set(classes))
        raise InputError(f"classes without training images: {', '.join(map(repr, extra[:5]))}", where=asked.shards, hint="remove them from the test images")


def _part(dataset: Dataset, pixels: np.ndarray, rows: np.ndarray) -> Labelled:
    whole = len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
    images = pixels[rows[0] : rows[-1] + 1] if whole else pixels[rows]
    return Labelled(images, dataset.labels[rows], tuple(dataset.paths[i] for i in rows))


def _refuse_leaks(synthetic: Labelled, test: Labelled, asked: Asked) -> None:
    """Raise SafetyError where a synthetic image has exactly the pixels of an unseen test image."""
    known = {seeds.digest(image.tobytes()): row for row, image in enumerate(test.images)}
    found = [(row, known[key]) for row, image in enumerate(synthetic.images) if (key := seeds.digest(image.tobytes())) in known]
    if found:
        row, other = found[0]
        what = f"{len(found):,} unseen test images are among the synthetic ones, first {synthetic.names[row]} = {test.names[other]}"
        raise SafetyError(what, where=asked.shards, hint="a test that was seen measures nothing; make the set without them")


def _described(dataset: Dataset, rows: np.ndarray, path: str) -> dict[str, Any]:
    counts = np.bincount(dataset.labels[rows], minlength=len(dataset.classes))
    return {"folder": Path(path).name, "images": len(rows), "counts": dict(zip(dataset.classes, counts.tolist(), strict=True))}


def _made(manifest: Mapping[str, Any] | None, labels: np.ndarray, classes: tuple[str, ...], path: str) -> dict[str, Any]:
    counts = np.bincount(labels, minlength=len(classes))
    known = {key: manifest[key] for key in ("production", "format", "seed", "source") if key in manifest} if manifest is not None else {}
    return {"folder": Path(path).name, "images": len(labels), "counts": dict(zip(classes, counts.tolist(), strict=True)), **known}
