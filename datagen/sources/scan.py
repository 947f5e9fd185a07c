"""The scan: every image of a source decoded once before any work, all problems reported together, one Dataset out."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from datagen import seeds, storage
from datagen.errors import InputError, UsageError, nearest
from datagen.progress import Progress
from datagen.records import SCHEMA, Dataset, Recipe
from datagen.sources import judge, origin, trust
from datagen.sources.judge import Case
from datagen.sources.listing import SKIP, Listing, list_source
from datagen.sources.look import Looks, look

TOLD = 20
"""reasons that are said one by one where no report holds them"""


def scan(
    source: str | os.PathLike[str],
    recipe: Recipe,
    *,
    test: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    report: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Look at every image of a source and say what can be used.

    Args:
        source: folder with a sub-folder a class (perhaps inside train/ and test/), CSV of path and label, or labelled
            Parquet file or folder.
        recipe: the settings about reading images.
        test: unseen test images likewise, instead of `recipe.test`; classes are matched by name.
        progress: shows the stage "scan", one unit an image.
        report: where scan.json goes; it is written before any refusal of what was scanned.

    Returns:
        training images first, then test images, each in the order of the listing; classes in code-point order.

    Raises:
        InputError: the source cannot be read in one way, or what was found forbids using it; every cause is in the report.
        UsageError: `recipe.group` is no regular expression.
    """
    progress = progress or Progress(quiet=True)
    parts, roots = _listings(source, test or recipe.test, recipe)
    with progress.stage("scan", sum(len(part.paths) for part in parts)):
        seen = [look(part, progress, max_pixels=recipe.max_pixels, threads=origin.threads_of(recipe.threads), anew=recipe.verify_data) for part in parts]
    case = Case(_joined(parts), _all_looks([looks for looks, _ in seen]))
    case.notes += sorted({note for _, note in seen if note})
    judge.judge(case, recipe)
    groups = _groups(case, recipe)
    if report is not None:
        _write_report(Path(report), case)
    if case.errors:
        for error in case.errors[:TOLD] if report is None and len(case.errors) > 1 else ():
            progress.warn(error.line())
        raise _together(case.errors, report)
    return _dataset(case, groups, roots)


def _listings(source: str | os.PathLike[str], test: str | os.PathLike[str] | None, recipe: Recipe) -> tuple[list[Listing], tuple[str, str]]:
    if not recipe.allow_synthetic:
        trust.refuse_shards(source)
        if test is not None:
            trust.refuse_shards(test)
    listing = list_source(source, recipe.group)
    if test is None:
        return [listing], (listing.root, listing.root if any(listing.test) else "")
    if any(listing.test):
        listing = listing.part(test=False)
        listing.notes.append(f"test images are those of {test}; the test part inside {listing.root} is left alone")
    unseen = list_source(test, recipe.group)
    if any(unseen.test):
        unseen = unseen.part(test=True)
        unseen.notes.append(f"test images are those of the test part inside {unseen.root}")
    unseen.test = [True] * len(unseen.paths)
    unseen.empty = ()
    return [listing, unseen], (listing.root, unseen.root)


def _joined(parts: list[Listing]) -> Listing:
    """Return one listing of all parts, training images before test images."""
    whole = Listing(parts[0].root, parts[0].base, columns=parts[0].columns, empty=parts[0].empty)
    for part in parts:
        whole.made |= {len(whole.paths) + i for i in part.made}
        for name in ("paths", "names", "test", "problems", "errors", "notes"):
            getattr(whole, name).extend(getattr(part, name))
    if all(part.groups is not None for part in parts):
        whole.groups = [group for part in parts for group in part.groups or ()]
    return whole


def _all_looks(parts: list[Looks]) -> Looks:
    digests, sizes, grey = (np.concatenate([getattr(part, name) for part in parts]) for name in ("digests", "sizes", "grey"))
    whole = Looks(digests, sizes, grey)
    start = 0
    for part in parts:
        whole.remarks.update({start + i: remark for i, remark in part.remarks.items()})
        start += len(part.grey)
    return whole


def _groups(case: Case, recipe: Recipe) -> list[str] | None:
    """Return the group of every listed image by the column or the regular expression of the recipe, None without one."""
    listing, wanted = case.listing, recipe.group
    if wanted is None:
        return None
    if listing.groups is None:
        try:
            pattern = re.compile(wanted)
        except re.error as error:
            raise UsageError(f"{wanted!r} is no regular expression ({error})", where="--group", hint="for example '(patient\\d+)_'") from error
        found = [pattern.search(path) for path in listing.paths]
        groups = ["" if match is None else (match[1] or "" if pattern.groups else match[0]) for match in found]
    else:
        groups = listing.groups
    without = [listing.paths[i] for i in np.flatnonzero(case.kept) if not groups[i]]
    if without:
        hint = "a group is the first bracket of a regular expression on the path"
        hint = f"{nearest(wanted, listing.columns)} is a column; else {hint}" if listing.columns and listing.groups is None else hint
        case.errors.append(InputError(f"{wanted!r} gives no group for {len(without):,} images, first {without[0]}", where="--group", hint=hint))
    elif len(set(groups)) == 1 < len(groups) and not any(listing.test) and recipe.holdout:
        hint = "a group is the first bracket of a regular expression on the path, for example '(patient\\d+)_'"
        case.errors.append(InputError(f"{wanted!r} gives all {len(groups):,} images one group, so that nothing could be held out", where="--group", hint=hint))
    return groups


def _write_report(report: Path, case: Case) -> None:
    listing = case.listing
    counts = Counter((test, name) for name, kept, test in zip(listing.names, case.kept, listing.test, strict=True) if kept)
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "root": listing.root,
        "images": int(case.kept.sum()),
        "skipped": sum(entry["kind"] == SKIP for entry in case.problems),
        "classes": {name: counts[False, name] for name in sorted(set(listing.names) | set(listing.empty))},
        "test": {name: counts[True, name] for name in sorted({name for test, name in counts if test})},
        "errors": [error.line() for error in case.errors],
        "notes": case.notes,
        "problems": case.problems,
    }
    storage.make_folder(report.parent)
    storage.write_json(report, value)


def _together(errors: list[InputError], report: str | os.PathLike[str] | None) -> InputError:
    """Return the first error, with the count of the others and where they are listed."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more reason{'s' if len(errors) > 2 else ''})" if len(errors) > 1 else ""
    hint = "; ".join(filter(None, [first.hint, f"all in {Path(report).name}" if report is not None else ""]))
    return InputError(first.what + more, where=first.where, hint=hint)


def _dataset(case: Case, groups: list[str] | None, roots: tuple[str, str]) -> Dataset:
    listing = case.listing
    test = np.array(listing.test, bool)
    numbers = np.concatenate([np.flatnonzero(case.kept & ~test), np.flatnonzero(case.kept & test)])
    classes = tuple(sorted({listing.names[i] for i in numbers}))
    place = {name: label for label, name in enumerate(classes)}
    labels = np.array([place[listing.names[i]] for i in numbers], np.int64)
    kept_groups = None if groups is None else tuple(groups[i] for i in numbers)
    notes = list(case.notes)
    if kept_groups is not None:
        notes.append(f"{len(set(kept_groups)):,} groups among {len(numbers):,} images")
        shared = set(np.array(kept_groups, object)[test[numbers]]) & set(np.array(kept_groups, object)[~test[numbers]])
        if shared:
            notes.append(f"{len(shared):,} groups lie in both the training and the test images, for example {sorted(shared)[0]!r}")
    return Dataset(
        root=roots[0],
        paths=tuple(listing.paths[i] for i in numbers),
        labels=labels,
        classes=classes,
        groups=kept_groups,
        digests=case.looks.digests[numbers],
        sizes=case.looks.sizes[numbers],
        grey=bool(case.looks.grey[numbers].all()),
        test=test[numbers],
        fingerprint=fingerprint(case.looks.digests[numbers], labels, classes, test[numbers]),
        roots=roots,
        problems=tuple(case.problems),
        notes=tuple(notes),
    )


def fingerprint(digests: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], test: np.ndarray) -> str:
    """Return 64 hex digits decided by the pixels, their labels and parts and the class names, whatever the files are called.

    Args:
        digests: uint8 [N, 16].
        labels: int64 [N].
        classes: names by label.
        test: bool [N].
    """
    rows = np.concatenate([digests, labels.astype("<i8").view(np.uint8).reshape(-1, 8), test.astype(np.uint8)[:, None]], axis=1)
    return seeds.digest(*classes, b"".join(sorted(row.tobytes() for row in rows))).hex()
