"""What an evaluation compares: synthetic images from shards, real ones of the same shape, and the real ones nobody trained on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datagen import seeds, storage
from datagen.errors import InputError, ResourceError, SafetyError, UsageError
from datagen.evaluation import choose, soft, statistics
from datagen.evaluation.arms import COPIES, PROBABILITIES, Labelled
from datagen.places import at, is_url
from datagen.progress import Progress
from datagen.reading.shards import Loaded, load
from datagen.records import READ, Dataset, Recipe
from datagen.sources import cache, scan, split

MANIFEST = "manifest.json"
LARGEST, LARGER = 4.0, 1.1
"""how many times more pixels than the synthetic images real ones at their own size have at most, and must have to be shown so"""
APART = (f"{choose.TRAIN} ", f"{choose.SELECT} ", COPIES, PROBABILITIES)
"""what no synthetic set's name begins with, likewise"""
KEPT_BACK = "not said"
"""in place of the name of a folder of real images, where a report is given away"""
FREE = {"test", "size", "verify_data"}
"""settings of READ that may differ from those of the run's fit: `test` is looked at apart, and the synthetic images decide the size"""
OTHERS = {"", "real", "test", "native", "native test", "command", choose.WHOLE}
"""what no synthetic set is called, since the sets of real images are"""
NOTICEABLE, FAR = 0.02, 0.1
"""differences that unseen images, and those of one class, should be able to show; more is said beforehand"""


@dataclass(frozen=True)
class Asked:
    """Which images an evaluation is about.

    Attributes:
        shards: sets of shards or labelled folders of synthetic images.
        real: labelled real images, or None where `run` says.
        test: unseen labelled real images, or None.
        run: folder that `fit` wrote, whose images and hold-out are taken, or None.
    """

    shards: tuple[str, ...]
    real: str | None = None
    test: str | None = None
    run: str | None = None

    def written(self) -> dict[str, Any]:
        """Return what was asked as JSON: absolute paths, and the SHA-256 of each set's manifest and the run's data.json."""
        value: dict[str, Any] = {k: str(Path(v).absolute()) if v else None for k, v in vars(self).items() if k != "shards"}
        data = Path(self.run) / "data.json" if self.run else None
        value |= {"data": storage.hash_file(data) if data is not None and data.is_file() else None}
        manifests = {path if is_url(path) else str(Path(path).absolute()): at(path, ResourceError).read(MANIFEST) for path in self.shards}
        return value | {"shards": {path: hashlib.sha256(content).hexdigest() if content else None for path, content in manifests.items()}}

    def listed(self) -> str:
        """Return 64 hex digits decided by names, sizes and times of the files that are read: of folders all below, of a table the table, of shards none.

        Shards' manifests decide them, and `written` has their hashes.
        """
        shards = [path for path in self.shards if not is_url(path) and not (Path(path) / MANIFEST).is_file()]
        known = [Path(path).absolute() for path in (*shards, self.real, self.test, *sources(self)) if path]
        return seeds.digest_of(line for path in known for line in _files(path)).hex()

    def named(self) -> dict[str, str]:
        """Return the sets' paths by a short name each: the folder's, changed where several have the same or the real images' sets are named so."""
        found: dict[str, str] = {}
        for path in self.shards:
            own = Path(path).resolve().name
            own = f"synthetic {own}" if own in OTHERS or own.startswith(APART) else own
            name = next(name for name in itertools.chain([own], (f"{own}#{number}" for number in itertools.count(2))) if name not in found)
            found[name] = path
        return found


def sources(asked: Asked) -> tuple[str | None, str | None]:
    """Return the real images that a run was fitted to, and its test images; None where there is no run or it has none."""
    file = Path(asked.run) / "data.json" if asked.run else None
    found = storage.read_json(file, limit=1 << 28) if file is not None and file.is_file() else {}
    return (found.get("source"), found.get("test")) if isinstance(found, dict) else (None, None)


@dataclass(frozen=True)
class Inputs:
    """The images of an evaluation, labels by place in `classes`, all of one shape but the native ones.

    Attributes:
        real, test: as `arms.Labelled`.
        synthetic: by name of the set.
        select: bool [real images], the validation part that choices are made on.
        native: real and unseen images at about their own size, None where they have no more pixels than the synthetic ones.
        classes: names in code-point order.
        described: where each came from, for the report.
        notes: sentences to show before the work starts.
        soft: the sets with probabilities, labelled by them, where `--labels auto` chooses; by the names in `synthetic`.
    """

    real: Labelled
    synthetic: Mapping[str, Labelled]
    test: Labelled
    select: np.ndarray
    native: tuple[Labelled, Labelled] | None
    classes: tuple[str, ...]
    described: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    soft: Mapping[str, Labelled] = dataclasses.field(default_factory=dict)

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the synthetic sets, as they were given."""
        return tuple(self.synthetic)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        height, width, channels = self.real.images.shape[1:]
        return channels, height, width

    def parts(self, seed: int) -> dict[str, Labelled]:
        """Return every set of images by the name that arms know it by; the seed decides the validation parts."""
        native = {} if self.native is None else {"native": self.native[0], "native test": self.native[1]}
        soft = {PROBABILITIES + name: images for name, images in self.soft.items()}
        soft |= {choose.WHOLE: self.real.taken(np.flatnonzero(self.select))} if soft else {}
        return {**self.synthetic, **soft, "real": self.real, "test": self.test, **choose.validation(self.real, self.select, seed), **native}

    def nameless(self) -> Inputs:
        """Return the same without names of real files, folders and groups: for a report that is given away."""
        parts = {part: dataclasses.replace(getattr(self, part), names=()) for part in ("real", "test")}
        native = None if self.native is None else (dataclasses.replace(self.native[0], names=()), dataclasses.replace(self.native[1], names=()))
        kept = {part: {**self.described[part], "folder": KEPT_BACK} for part in ("real", "test")}
        run = {"run": self.described["run"] and "the run"}
        return dataclasses.replace(self, **parts, native=native, described={**self.described, **kept, **run})


def gather(asked: Asked, recipe: Recipe, *, progress: Progress, report: Path | None = None) -> Inputs:
    """Read, match and check all images of an evaluation.

    Args:
        asked: where they are.
        recipe: the settings about reading images; those of the run win where there is one.
        progress: shows the stages of reading.
        report: where scan.json goes.

    Raises:
        UsageError: real images, or unseen ones, are not given, or are given twice.
        InputError: they cannot be read, the classes or sizes differ, or the run's images changed.
        ArtefactError: the shards or the run are damaged.
        SafetyError: unseen test images are among the synthetic ones.
    """
    source, test, reading, stored = _where(asked, recipe)
    made = {name: load(path) for name, path in asked.named().items()}
    height, width, channels = _common_shape(made, asked, recipe)
    dataset = scan.scan(source, reading, test=test, progress=progress, report=report)
    if stored is not None and stored["fingerprint"] != _fingerprint(dataset, whole=stored["whole"]):
        shared, remedy = ("", "restore them") if stored["whole"] else (", or some are among the test images", "restore them, take those out of --test")
        raise InputError(f"the images changed since the run was fitted{shared}", where=source, hint=f"{remedy}, or give --real and --test")
    parts = split.split(dataset, holdout=reading.holdout, key=stored["key"] if stored else split.KEY)
    for name, loaded in made.items():
        lacking = _match(dataset, parts, loaded, asked.named()[name], some=recipe.focus is not None)
        if lacking and recipe.focus is None:
            progress.warn(f"{name} has no images of {_shown(lacking)}; a recogniser trained on it alone cannot know them")
    pixels = cache.pixels(dataset, (channels, height, width), reading, progress=progress)
    rows = np.sort(np.concatenate([parts.train, parts.select]))
    real, unseen = _part(dataset, pixels, rows), _part(dataset, pixels, parts.test)
    synthetic = {name: soft.labelled(loaded, dataset.classes, asked.named()[name], recipe.labels) for name, loaded in made.items()}
    tried = {} if _short(recipe) or not len(parts.select) else soft.others(synthetic, made, dataset.classes, recipe.labels)
    for name, images in synthetic.items():
        _refuse_leaks(images, unseen, asked.named()[name])
    described = {
        "real": _described(dataset, rows, dataset.roots[0] or dataset.root),
        "test": _described(dataset, parts.test, dataset.roots[1] or dataset.root) | {"held_out": not dataset.test.any()},
        "synthetic": {name: _made(loaded.manifest, synthetic[name].labels, dataset.classes, asked.named()[name]) for name, loaded in made.items()},
        "fingerprint": dataset.fingerprint,
        "resize": reading.resize,
        "run": Path(asked.run).name if asked.run else None,
        "later": stored is not None and not stored["whole"],
        "others": _others(made, asked.run),
    }
    native = None if _short(recipe) else _native(dataset, (channels, height, width), reading, (rows, parts.test), progress)
    lacking_test = _lacking(unseen.labels, dataset.classes) if dataset.test.any() else []
    notes = (*dataset.notes, *parts.notes, *lacking_test, *_too_few(unseen.labels, dataset.classes))
    if asked.run is None and not dataset.test.any():
        progress.warn("the unseen images are held out of --real here: a generator of that folder has seen them, unless it held out alike; --run RUN knows")
    return Inputs(real, synthetic, unseen, np.isin(rows, parts.select), native, dataset.classes, described, notes, tried)


def _short(recipe: Recipe) -> bool:
    """Whether nothing but the arms is trained."""
    return recipe.quick or recipe.train_command is not None


def _files(path: Path) -> Iterator[str]:
    """Yield name, size and time of a file, or of all files below a folder."""
    for folder, folders, names in os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name] * path.is_file())]:
        folders.sort()
        for name in sorted(names):
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(os.path.join(folder, name))
                yield f"{folder}/{name}\0{found.st_size}\0{found.st_mtime_ns}"


def _fingerprint(dataset: Dataset, *, whole: bool) -> str:
    """Return what decides a set of images, or its training images alone where the test images were given later."""
    if whole:
        return dataset.fingerprint
    train = np.flatnonzero(~dataset.test)
    return scan.fingerprint(dataset.digests[train], dataset.labels[train], dataset.classes, dataset.test[train])


def _common_shape(made: Mapping[str, Loaded], asked: Asked, recipe: Recipe) -> tuple[int, int, int]:
    """Return the height, width and channels that all synthetic sets have; InputError where they differ, UsageError as `_refuse_shape`."""
    shapes = {loaded.images.shape[1:] for loaded in made.values()}
    if len(shapes) > 1:
        raise InputError(f"the sets have images of {len(shapes)} shapes", where=", ".join(asked.shards), hint="evaluate each shape on its own")
    height, width, channels = shapes.pop()
    _refuse_shape(recipe, (height, width), channels)
    return height, width, channels


def _refuse_shape(recipe: Recipe, size: tuple[int, int], channels: int) -> None:
    """Raise UsageError where --size or --colour say otherwise than the synthetic images, to whose shape real ones are brought."""
    own = {"size": (recipe.size, size), "colour": (recipe.colour, "grey" if channels == 1 else "rgb")}
    for key, (asked, found) in own.items():
        if recipe.origins.get(key) == "flag" and asked not in (None, "auto", found):
            shown = found if isinstance(found, str) else f"{found[0]}x{found[1]}"
            raise UsageError(f"real images are brought to the shape of the synthetic ones, which are {shown}", where=f"--{key}", hint="leave it out")


def _lacking(labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Say which classes have no image in the user's own test images."""
    lacking = set(classes) - {classes[i] for i in np.unique(labels)}
    return [f"no unseen real image of {len(lacking)} of {len(classes)} classes, about which nothing is measured: {_shown(lacking)}"] if lacking else []


def _too_few(labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Say what so few unseen images can show, of all classes and of the smallest one."""
    counts = np.bincount(labels, minlength=len(classes))
    smallest = int(np.argmin(np.where(counts > 0, counts, len(labels) + 1)))
    notes = []
    if statistics.visible(len(labels)) > NOTICEABLE:
        notes.append(f"with {len(labels):,} unseen real images only a difference above {100 * statistics.visible(len(labels)):.0f} points could be seen")
    if (each := statistics.visible(int(counts[smallest]))) > FAR:
        notes.append(f"with {counts[smallest]:,} test images of class {classes[smallest]!r} only a gain above {100 * each:.0f} points could be seen")
    return notes


def _native(
    dataset: Dataset, shape: tuple[int, int, int], reading: Recipe, rows: tuple[np.ndarray, np.ndarray], progress: Progress
) -> tuple[Labelled, Labelled] | None:
    """Return the training and unseen real images at the size of the median image, at most four times the pixels; None where that is no larger."""
    middle = np.median(dataset.sizes, axis=0)
    scale = min(1.0, float(np.sqrt(LARGEST * shape[1] * shape[2] / middle.prod())))
    height, width = (max(8, round(float(side) * scale)) for side in middle)
    if height * width <= LARGER * shape[1] * shape[2]:
        return None
    pixels = cache.pixels(dataset, (shape[0], height, width), reading, progress=progress)
    return _part(dataset, pixels, rows[0]), _part(dataset, pixels, rows[1])


def _where(asked: Asked, recipe: Recipe) -> tuple[str, str | None, Recipe, dict[str, Any] | None]:
    """Return the source, the test folder, the settings for reading, and the run's data.json where a run was given."""
    if asked.run is None:
        if asked.real is None:
            raise UsageError("no real images are given", where="--real", hint="--real FOLDER with --test FOLDER, or --run RUN")
        return asked.real, asked.test or recipe.test, recipe, None
    stored = storage.read_json(Path(asked.run) / "data.json", limit=1 << 28)
    try:
        lacking = asked.test is not None and stored.get("split", {}).get("test") == 0
        if asked.real is not None or (asked.test is not None and not lacking):
            raise UsageError("--run already says which real images; --real and --test contradict it", where="--run", hint="give one or the other")
        apart = FREE | ({"holdout"} if stored["test"] is not None or lacking else set())
        reading = _as_fitted(recipe, dict(stored["settings"]), apart)
        known = {"key": stored["key"], "fingerprint": stored["fingerprint"], "whole": not lacking}
        return str(stored["source"]), asked.test if lacking else stored["test"], reading, known
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("does not say which images the run was fitted to", where=Path(asked.run) / "data.json", hint="give --real and --test") from error


def _as_fitted(recipe: Recipe, fitted: Mapping[str, Any], apart: set[str]) -> Recipe:
    """Return the recipe with a run's settings for reading images; UsageError where one that is given, and not set apart, is another."""
    given = recipe.settings(READ)
    for key, value in fitted.items():
        if key not in apart and key in recipe.origins and given.get(key) != value:
            what = f"is {given.get(key)!r} here, and {value!r} in the run's fit, whose images are read as they were then"
            raise UsageError(what, where=key, hint="leave it out, or give --real and --test in place of --run")
    return recipe.changed("run", **{key: value for key, value in fitted.items() if key != "verify_data"})


def _match(dataset: Dataset, parts: split.Split, loaded: Loaded, path: str, *, some: bool) -> set[str]:
    """Refuse class names that differ between real and synthetic images, and a missing test; `some` lets a set not name every class.

    Returns:
        classes of the real images that the set has no image of, as one that tops up the rare ones.
    """
    if not len(parts.test):
        raise UsageError("there are no unseen real images to test on", where="--test", hint="give --test FOLDER; without --run, or a --holdout above 0")
    seen = {dataset.classes[i] for i in np.unique(dataset.labels[~dataset.test])}
    made = {loaded.classes[i] for i in np.unique(loaded.labels)}
    unnamed = set() if some else seen - set(loaded.classes)
    for name, missing in {"the real training images": made - seen, "the synthetic images": unnamed}.items():
        if missing:
            raise InputError(f"classes that are not among {name}: {_shown(missing)}", where=path, hint="classes are matched by name; rename the folders")
    if set(dataset.classes) != seen:
        extra = sorted(set(dataset.classes) - seen)
        raise InputError(f"classes without training images: {', '.join(map(repr, extra[:5]))}", where=path, hint="remove them from the test images")
    return seen - made


def _shown(classes: set[str]) -> str:
    return ", ".join(map(repr, sorted(classes)[:5])) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")


def _part(dataset: Dataset, pixels: np.ndarray, rows: np.ndarray) -> Labelled:
    whole = len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
    images = pixels[rows[0] : rows[-1] + 1] if whole else pixels[rows]
    groups = () if dataset.groups is None else tuple(dataset.groups[i] for i in rows)
    return Labelled(images, dataset.labels[rows], tuple(dataset.paths[i] for i in rows), groups)


def _refuse_leaks(synthetic: Labelled, test: Labelled, path: str) -> None:
    """Raise SafetyError where a synthetic image has exactly the pixels of an unseen test image."""
    known = {seeds.digest(image.tobytes()): row for row, image in enumerate(test.images)}
    found = [(row, known[key]) for row, image in enumerate(synthetic.images) if (key := seeds.digest(image.tobytes())) in known]
    if found:
        row, other = found[0]
        what = f"{len(found):,} unseen test images are among the synthetic ones, first {synthetic.names[row]} = {test.names[other]}"
        raise SafetyError(what, where=path, hint="a test that was seen measures nothing; make the set without them")


def _described(dataset: Dataset, rows: np.ndarray, path: str) -> dict[str, Any]:
    counts = np.bincount(dataset.labels[rows], minlength=len(dataset.classes))
    return {"folder": Path(path).name, "images": len(rows), "counts": dict(zip(dataset.classes, counts.tolist(), strict=True))}


def _others(made: Mapping[str, Loaded], run: str | None) -> list[str]:
    """Return the sets of which nothing says that the run's generator, or a rule, made them: what that generator was fitted to is not known here."""
    card = None if run is None else Path(run) / "generator" / "card.json"
    own = storage.hash_file(card) if card is not None and card.is_file() else None

    def of_run(manifest: Mapping[str, Any] | None) -> bool:
        told = manifest.get("ingredients") if manifest is not None else None
        return isinstance(told, Mapping) and ("rule" in told or (own is not None and told.get("generator") == own))

    return [name for name, loaded in made.items() if run is not None and not of_run(loaded.manifest)]


def _made(manifest: Mapping[str, Any] | None, labels: np.ndarray, classes: tuple[str, ...], path: str) -> dict[str, Any]:
    counts = np.bincount(labels, minlength=len(classes))
    known = {key: manifest[key] for key in ("production", "format", "seed", "source") if key in manifest} if manifest is not None else {}
    return {"folder": Path(path).name, "images": len(labels), "counts": dict(zip(classes, counts.tolist(), strict=True)), **known}
