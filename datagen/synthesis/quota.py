"""How many images of each class: evenly, by the proportions of the real images, from a file, or up to the largest class of a folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datagen import storage
from datagen.errors import InputError, UsageError, nearest
from datagen.progress import Progress
from datagen.recipe import WAYS
from datagen.records import Recipe

LIMIT = 1 << 24
"""bytes of a file of quotas"""


def counts(recipe: Recipe, classes: Sequence[str], real: Mapping[str, int] | None, progress: Progress) -> tuple[int, ...]:
    """Return how many images of each class are wanted, in the order of `classes`.

    Args:
        recipe: exactly one of per_class, count (with proportions), quota and balance_with; `classes` narrows any of them.
        classes: names that there are.
        real: training images of each; None where nothing was learnt from images.
        progress: shows the scan of a folder to balance with.

    Raises:
        UsageError: none or several of the four, an unknown class, or nothing is left to make.
        InputError: the file or the folder cannot be read, or names classes that are unknown.
    """
    asked = [key for key in WAYS if getattr(recipe, key) is not None]
    if "proportions" in recipe.origins and recipe.count is None:
        raise UsageError("only --count is shared by proportions", where="--proportions", hint="give --count, or leave it out")
    if len(asked) != 1:
        given = " and ".join(_flag(key) for key in asked)
        what = f"{given} contradict each other" if asked else "how many images is not said"
        hint = "give one of them" if asked else "for example --per-class 1000; or --count, --quota FILE, --balance-with FOLDER"
        raise UsageError(what, where="" if asked else "--per-class", hint=hint)
    wanted = dict.fromkeys(classes, 0) | _wanted(recipe, asked[0], classes, real, progress)
    if asked[0] == "balance_with" and not any(wanted.values()):
        raise UsageError("has as many images of each class already", where=str(recipe.balance_with), hint="--per-class makes as many of each")
    if recipe.classes is not None:
        chosen = _names(recipe.classes)
        _known(chosen, classes, UsageError, "--classes")
        wanted = {name: number if name in chosen else 0 for name, number in wanted.items()}
    if not any(wanted.values()):
        raise UsageError("no image is wanted of any class", where=_flag(asked[0]), hint="ask for one at least")
    return tuple(wanted[name] for name in classes)


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _wanted(recipe: Recipe, way: str, classes: Sequence[str], real: Mapping[str, int] | None, progress: Progress) -> dict[str, int]:
    if way == "quota":
        return _file(Path(str(recipe.quota)), classes)
    if way == "balance_with":
        return _balancing(Path(str(recipe.balance_with)), recipe, classes, progress)
    if way == "per_class":
        return dict.fromkeys(classes, int(recipe.per_class or 0))
    weights = np.ones(len(classes))
    if recipe.proportions == "real":
        if real is None:
            raise UsageError("a rule has no real images to take proportions from", where="--proportions real", hint="--proportions balanced")
        weights = np.array([real[name] for name in classes], float)
    narrowed = _names(recipe.classes) if recipe.classes is not None else list(classes)
    weights *= np.array([name in narrowed for name in classes])
    return dict(zip(classes, shared(int(recipe.count or 0), weights), strict=True))


def shared(total: int, weights: np.ndarray) -> list[int]:
    """Return whole numbers that sum to `total`, as near as can be to shares by weight [K] (largest remainders, the first of equal ones)."""
    if weights.sum() <= 0:
        return [0] * len(weights)
    exact = total * weights / weights.sum()
    found = np.floor(exact).astype(int)
    order = np.argsort(-(exact - found), kind="stable")
    found[order[: total - int(found.sum())]] += 1
    return [int(number) for number in found]


def _file(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """Read {"class": images} from JSON, or lines of class and images from CSV."""
    try:
        if path.stat().st_size > LIMIT:
            raise InputError("is too large for a file of quotas", where=path)
        rows = _json(path) if path.suffix.lower() == ".json" else _csv(path.read_text(encoding="utf-8-sig"), path, classes)
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=path, hint="--quota takes a JSON or CSV file of class and images") from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", where=path) from error
    _known(list(rows), classes, InputError, path)
    return rows


def _json(path: Path) -> dict[str, int]:
    value = storage.read_json(path.resolve(), limit=LIMIT)
    if not isinstance(value, dict):
        raise InputError('is no JSON object such as {"cat": 500, "dog": 20}', where=path)
    return {name: _number(number, path, name) for name, number in value.items()}


def _csv(text: str, path: Path, classes: Sequence[str]) -> dict[str, int]:
    """Read class and images a line; the first one may be a header."""
    found: dict[str, int] = {}
    for line, row in enumerate(csv.reader(io.StringIO(text, newline="")), 1):
        if not row or (line == 1 and len(row) == 2 and row[0] not in classes and not row[1].strip().isdigit()):
            continue
        if len(row) != 2:
            raise InputError(f"line {line} has {len(row)} fields, class and images are needed", where=path)
        if row[0] in found:
            raise InputError(f"line {line} names class {row[0]!r} again", where=path)
        found[row[0]] = _number(row[1].strip(), path, row[0])
    return found


def _number(value: Any, path: Path, name: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 12:
        raise InputError(f"wants {text!r} images of class {name!r}; a whole number from 0 is needed", where=path)
    return int(text)


def _balancing(folder: Path, recipe: Recipe, classes: Sequence[str], progress: Progress) -> dict[str, int]:
    """Return what each class lacks to as many images as the largest one has in a labelled folder, CSV or Parquet; its test part does not count."""
    from datagen.sources import scan

    found = scan.scan(folder, recipe, progress=progress)
    _known(found.classes, classes, InputError, folder)
    held = np.bincount(found.labels[~found.test], minlength=len(found.classes))
    has = {name: int(number) for name, number in zip(found.classes, held, strict=True)}
    return {name: max(has.values()) - has.get(name, 0) for name in classes}


def _names(text: str) -> list[str]:
    """Return names divided by commas; those that have commas stand in double quotes."""
    return next(csv.reader([text], skipinitialspace=True), [])


def _known(names: Sequence[str], classes: Sequence[str], kind: type[UsageError] | type[InputError], where: object) -> None:
    for name in names:
        if name not in classes:
            raise kind(f"class {name!r} is not one that the images are of", where=where, hint=nearest(name, classes))
