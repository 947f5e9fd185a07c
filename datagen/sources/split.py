"""Train, select and test by content and by group: the same images land on the same side, whatever their order or names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datagen import seeds
from datagen.records import Dataset
from datagen.sources.listing import some

SELECT = 0.1
KEY = seeds.digest(0, "holdout").hex()
"""by which images are held out, whatever a run's seed is: fits of several seeds leave the same images unseen"""


@dataclass(frozen=True)
class Split:
    """Indices int64 into a Dataset, ascending; disjoint and together complete. Notes say where the rule could not be kept."""

    train: np.ndarray
    select: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass
class _Unit:
    """Images that must stay together: one digest, one group, or several that share either; `held` counts them by label."""

    name: bytes
    images: list[int]
    held: Counter[int]


def split(dataset: Dataset, *, holdout: float, key: object) -> Split:
    """Split a set into train, select and test.

    Images of the set's own test part are `test` and nothing is held out. Otherwise `test` are those whose keyed hash (of the
    pixels, or of the group) lies below `holdout`. About a tenth of each class of the rest, those of the lowest keyed hashes, is
    `select`. Every class keeps an image to train on, and has one in `select` where it has two units (images or groups) or more.

    Args:
        dataset: the scanned set.
        holdout: fraction, 0 to 0.9.
        key: anything that stays with the run; equal keys split alike.

    Returns:
        the indices, with a note for each exception.
    """
    unseen = np.flatnonzero(dataset.test)
    units = _units(dataset)
    test = set() if len(unseen) else _held_out(units, holdout, key)
    rest = [unit for unit in units if unit.name not in test]
    select = _selected(rest, key)
    parts: dict[str, list[int]] = {"train": [], "select": [], "test": unseen.tolist()}
    for unit in units:
        parts["test" if unit.name in test else "select" if unit.name in select else "train"].extend(unit.images)
    train_part, select_part, test_part = (np.array(sorted(parts[name]), np.int64) for name in ("train", "select", "test"))
    notes = _exceptions(dataset, select_part, test_part, 0.0 if len(unseen) else holdout)
    return Split(train_part, select_part, test_part, tuple(notes))


def _units(dataset: Dataset) -> list[_Unit]:
    """Return the units of everything outside the set's test part, in the order of their names."""
    digests = [row.tobytes() for row in dataset.digests]
    numbers = np.flatnonzero(~dataset.test).tolist()
    groups = dataset.groups
    marks: list[tuple[object, ...]] = [(digests[i],) if groups is None else (digests[i], groups[i]) for i in numbers]
    units: dict[object, _Unit] = {}
    for i, mark, root in zip(numbers, marks, _linked(marks), strict=True):
        name = digests[i] if groups is None else seeds.digest(mark[1])
        unit = units.setdefault(root, _Unit(name, [], Counter()))
        unit.name = min(unit.name, name)
        unit.images.append(i)
        unit.held[int(dataset.labels[i])] += 1
    return sorted(units.values(), key=lambda unit: unit.name)


def _linked(marks: Sequence[tuple[object, ...]]) -> list[object]:
    """Return for each image a representative of everything it is linked with through equal marks (union-find)."""
    above: dict[object, object] = {}

    def top(mark: object) -> object:
        while above.setdefault(mark, mark) != mark:
            above[mark] = mark = above[above[mark]]
        return mark

    for first, *others in marks:
        for other in others:
            above[top(other)] = top(first)
    return [top(mark[0]) for mark in marks]


def _held_out(units: list[_Unit], holdout: float, key: object) -> set[bytes]:
    """Return the names of the units that are test; each class keeps two units outside where it has them."""
    drawn = {unit.name: seeds.fraction("test", key, unit.name) for unit in units}
    left = Counter(label for unit in units for label in unit.held)
    chosen: set[bytes] = set()
    for unit in sorted(units, key=lambda unit: drawn[unit.name]):
        if drawn[unit.name] >= holdout:
            break
        if all(left[label] > 2 for label in unit.held):
            chosen.add(unit.name)
            left.subtract(unit.held.keys())
    return chosen


def _selected(units: list[_Unit], key: object) -> set[bytes]:
    """Return the names of the units that are select: about a tenth of each class, one unit at least where one can be spared."""
    order = sorted(units, key=lambda unit: seeds.digest("select", key, unit.name))
    left = Counter(label for unit in units for label in unit.held)
    total: Counter[int] = Counter()
    for unit in units:
        total.update(unit.held)
    have: Counter[int] = Counter()
    chosen: set[bytes] = set()

    def take(unit: _Unit) -> None:
        chosen.add(unit.name)
        left.subtract(unit.held.keys())
        have.update(unit.held)

    for unit in order:
        fits = all(left[c] > 1 and have[c] + n <= max(1.0, 1.5 * SELECT * total[c]) for c, n in unit.held.items())
        if fits and any(have[c] < SELECT * total[c] for c in unit.held):
            take(unit)
    for label in sorted(c for c in total if not have[c]):
        spare = [u for u in order if label in u.held and u.name not in chosen and all(left[c] > 1 for c in u.held)]
        if spare and not have[label]:
            take(min(spare, key=lambda unit: sum(unit.held.values())))
    return chosen


def _exceptions(dataset: Dataset, select: np.ndarray, test: np.ndarray, holdout: float) -> list[str]:
    present = np.unique(dataset.labels[~dataset.test])
    without = {name: np.setdiff1d(present, dataset.labels[part]) for name, part in (("select", select), ("test", test))}
    notes = []
    if len(without["select"]):
        classes = some(dataset.classes[i] for i in without["select"])
        notes.append(f"too few images or groups for a select part in {len(without['select'])} of {len(present)} classes: {classes}")
    if holdout and len(without["test"]):
        classes = some(dataset.classes[i] for i in without["test"])
        notes.append(f"no held-out test image in {len(without['test'])} of {len(present)} classes: {classes}")
    return notes
