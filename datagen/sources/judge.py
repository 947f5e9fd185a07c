"""What may be used of what was seen: skips, duplicates, leaks, small classes, each with its limits and its remedy."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from datagen.errors import InputError, nearest
from datagen.pictures import suffix_of
from datagen.progress import many
from datagen.records import Recipe
from datagen.sources import trust
from datagen.sources.folder import SIDECARS
from datagen.sources.listing import DUPLICATE, LOOK, SKIP, Listing, Problem, problem, some
from datagen.sources.look import Looks

MOST_SKIPPED = 0.05
LONGEST = 20
TINY = 8
CONFLICT = "conflict"
_KINDS = {(True, False): "under two classes", (False, True): "in the training and the test images", (True, True): "under two classes, in both parts"}


@dataclass
class Case:
    """Every listed image (training images first) with what was seen of it, and the verdict so far.

    Attributes:
        listing: paths, class names, parts.
        looks: what the scan saw, in the same order.
        kept: bool [N], False for images that are left out.
        problems: entries for scan.json.
        errors: what forbids going on.
        notes: sentences for the user.
    """

    listing: Listing
    looks: Looks
    kept: np.ndarray = field(init=False)
    problems: list[Problem] = field(default_factory=list)
    errors: list[InputError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept = np.ones(len(self.listing.paths), bool)
        self.problems, self.errors, self.notes = list(self.listing.problems), list(self.listing.errors), list(self.listing.notes)

    def leave_out(self, number: int, what: str, remedy: str, kind: str = SKIP) -> None:
        """Leave one image out and list why."""
        self.kept[number] = False
        self.problems.append(problem(self.listing.paths[number], what, remedy, kind))

    def refuse(self, what: str, hint: str = "") -> None:
        """Forbid going on, once everything has been looked at."""
        self.errors.append(InputError(what, where=self.listing.root, hint=hint))


def judge(case: Case, recipe: Recipe) -> None:
    """Apply every rule to a case; nothing is raised, so that all problems are found at once."""
    _damage(case)
    _proportions(case)
    _too_many(case, recipe)
    trust.judge_made(case, recipe)
    _same_pixels(case, drop=recipe.on_conflict == "drop")
    _small_classes(case, drop=recipe.drop_small)
    _test_classes(case)
    _remarkable(case)


def _damage(case: Case) -> None:
    notes: Counter[str] = Counter()
    ignored = 0
    for number, remark in sorted(case.looks.remarks.items()):
        path = case.listing.paths[number]
        for note in remark.get("notes", ()):
            notes[note] += 1
            case.problems.append(problem(path, note, "nothing, unless it looks wrong", LOOK))
        if remark.get("unknown") and suffix_of(path) in SIDECARS:
            case.kept[number] = False
            ignored += 1
        elif "what" in remark:
            case.leave_out(number, remark["what"], remark["hint"])
    case.notes += [f"{count:,} images: {note}" for note, count in sorted(notes.items())]
    if ignored:
        case.notes.append(f"{many(ignored, 'file')} inside the class folders {'is no image and was' if ignored == 1 else 'are no images and were'} ignored")


def _proportions(case: Case) -> None:
    sizes = case.looks.sizes
    short, long = sizes.min(axis=1, initial=1 << 30), sizes.max(axis=1, initial=0)
    for number in np.flatnonzero(case.kept & (long > LONGEST * np.maximum(short, 1))):
        height, width = sizes[number]
        what = f"is {height:,} x {width:,} pixels (height x width), more than {LONGEST} times as long as wide"
        case.leave_out(int(number), what, "cut it into pieces, or remove it")
    tiny = np.flatnonzero(case.kept & (short < TINY))
    for number in tiny:
        height, width = sizes[number]
        case.problems.append(problem(case.listing.paths[number], f"is only {height} x {width} pixels", "check whether it is meant", LOOK))
    if len(tiny):
        case.notes.append(f"{len(tiny):,} images have a side below {TINY} pixels, for example {case.listing.paths[tiny[0]]!r}")


def _too_many(case: Case, recipe: Recipe) -> None:
    skipped = [entry for entry in case.problems if entry["kind"] == SKIP]
    if not skipped:
        return
    among = int(case.kept.sum()) + len(skipped)
    example = f"{skipped[0]['file']} {skipped[0]['problem']}"
    told = f"{len(skipped):,} of {among:,} images ({100 * len(skipped) / among:.3g} %) must be left out, first {example}"
    if recipe.strict_input:
        case.refuse(told, f"{skipped[0]['remedy']}, or allow up to 5 % without --strict-input")
    elif len(skipped) > MOST_SKIPPED * among:
        case.refuse(told, skipped[0]["remedy"])
    else:
        case.notes.append(told)


def _alike(case: Case) -> Iterator[list[int]]:
    """Yield the numbers of kept images that have the same pixels, two or more, ascending."""
    numbers = np.flatnonzero(case.kept)
    halves = np.ascontiguousarray(case.looks.digests[numbers]).view(np.uint64)
    order = np.lexsort((numbers, halves[:, 1], halves[:, 0]))
    same = (halves[order][1:] == halves[order][:-1]).all(axis=1)
    edges = np.flatnonzero(~same) + 1
    for run in np.split(numbers[order], edges):
        if len(run) > 1:
            yield run.tolist()


def _same_pixels(case: Case, *, drop: bool) -> None:
    names, test, paths = case.listing.names, case.listing.test, case.listing.paths
    conflicts: defaultdict[tuple[bool, bool], list[list[int]]] = defaultdict(list)
    repeated = 0
    for alike in sorted(_alike(case)) if len(case.kept) else ():
        what = (len({names[i] for i in alike}) > 1, len({test[i] for i in alike}) > 1)
        if any(what):
            conflicts[what].append(alike)
        gone = alike if what[0] else [i for i in alike if not test[i]] if what[1] else []
        first = {(names[i], test[i]): i for i in reversed(alike)}
        for i in gone:
            other = min(j for kind, j in first.items() if kind != (names[i], test[i]))
            case.leave_out(i, f"has the same pixels as {paths[other]}: {_KINDS[what]}", "remove the wrong one, or --set on_conflict=drop", CONFLICT)
        left = sorted(set(alike) - set(gone))
        for i in left[1:]:
            case.leave_out(i, f"has the same pixels as {paths[left[0]]}", "nothing: one of them is kept", DUPLICATE)
        repeated += len(left[1:])
    if repeated:
        case.notes.append(f"{repeated:,} images repeat another of their class exactly; one of each is kept")
    for what, found in conflicts.items():
        _tell_conflict(case, what, found, drop)


def _tell_conflict(case: Case, what: tuple[bool, bool], found: list[list[int]], drop: bool) -> None:
    listing, first = case.listing, found[0]
    other = next(i for i in first[1:] if (listing.names[i], listing.test[i]) != (listing.names[first[0]], listing.test[first[0]]))
    pair = f"{listing.paths[first[0]]} and {listing.paths[other]}"
    told = f"the same pixels lie {_KINDS[what]}: {pair}" + (f" and {len(found) - 1:,} more cases" if len(found) > 1 else "")
    if drop:
        case.notes.append(f"{told}; dropped {'from the training images' if what == (False, True) else 'altogether'}")
    else:
        case.refuse(told, "remove the wrong ones, or --set on_conflict=drop")


def _small_classes(case: Case, *, drop: bool) -> None:
    listing = case.listing
    trained = [(name, kept) for name, kept, test in zip(listing.names, case.kept, listing.test, strict=True) if not test]
    counts = Counter(dict.fromkeys(listing.empty, 0))
    counts.update(dict.fromkeys((name for name, _ in trained), 0))
    counts.update(name for name, kept in trained if kept)
    small = sorted(name for name, count in counts.items() if count < 2)
    told = ", ".join(f"{name!r} ({counts[name]})" for name in small[:5]) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
    if small and drop:
        gone = set(small)
        case.kept &= np.array([name not in gone for name in listing.names], bool)
        case.notes.append(f"left out classes with fewer than two usable images: {told}")
    elif small:
        noun = "class has" if len(small) == 1 else "classes have"
        case.refuse(f"{len(small)} {noun} fewer than two usable images: {told}", "add images, remove them, or --set drop_small=true")
    if not any(count >= 2 for count in counts.values()) and (drop or not small):
        case.refuse("has no class with two usable images", "add images")


def _test_classes(case: Case) -> None:
    listing = case.listing
    known = {name for name, test in zip(listing.names, listing.test, strict=True) if not test} | set(listing.empty)
    unknown = sorted({name for name, test in zip(listing.names, listing.test, strict=True) if test} - known)
    if unknown:
        case.refuse(f"the test images have classes that the training images lack: {some(unknown)}", nearest(unknown[0], known))
    if any(listing.test) and not any(case.kept[np.array(listing.test, bool)]):
        case.refuse("no test image can be used", "see the problems listed")


def _remarkable(case: Case) -> None:
    """Note what a user should know before the work starts: one class, imbalance, names that look alike."""
    listing = case.listing
    counts = Counter(n for n, kept, test in zip(listing.names, case.kept, listing.test, strict=True) if kept and not test)
    if len(counts) == 1:
        case.notes.append(f"there is one class only, {next(iter(counts))!r}")
    if counts and max(counts.values()) > 1.5 * min(counts.values()):
        (most, high), (least, low) = counts.most_common()[0], min(counts.items(), key=lambda item: (item[1], item[0]))
        case.notes.append(f"classes are unequal: from {low:,} images ({least!r}) to {high:,} ({most!r})")
    case.notes += [f"class names that look alike: {some(twins, 5)}" for twins in _twins(counts)]


def _twins(names: Iterable[str]) -> list[list[str]]:
    """Return the class names that differ in case, surrounding blanks or Unicode form alone, together."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        alike[unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()].append(name)
    return [twins for twins in alike.values() if len(twins) > 1]
