"""How folders become classes and parts: one documented reading, and a refusal that shows both where there are two."""

from __future__ import annotations

from collections.abc import Sequence

from datagen.errors import InputError
from datagen.pictures import looks_like_image, suffix_of
from datagen.sources.folder import SIDECARS, Tree
from datagen.sources.listing import Listing, part_of, problem, some


def interpret(tree: Tree) -> Listing:
    """Read class folders and parts out of names alone.

    Each folder at the top is a class and holds whatever lies below it. Folders train/ and test/ (or val/) that hold class
    folders are parts: test/ is the unseen test part, val/ takes its place where it is missing and joins train/ where it is not.
    A single folder named like a part is looked through.

    Raises:
        InputError: no class folders, or two readings are possible; the message shows both.
    """
    listing = Listing(tree.root, tree.root, problems=list(tree.problems))
    tops: dict[str, list[str]] = {f: [] for f in tree.folders if "/" not in f}
    loose = []
    for path in tree.files:
        top, slash, _ = path.partition("/")
        tops[top].append(path) if slash else loose.append(path)
    ignored = tree.ignored + _put_aside(listing, loose)
    _refuse_without_classes(tree, tops, loose)
    parts = _parts(tree.root, tops)
    classes = [name for name in tree.outside if (name.count("/") == 1 and name.split("/")[0] in parts if parts else "/" not in name)]
    listing.errors += [_linked(tree, name) for name in classes]
    if not parts:
        _add_classes(listing, tops, test=False, depth=1)
    for top, part in parts.items():
        ignored += _add_part(listing, tree, top, part == "test")
    if parts:
        names = ", ".join(f"{top}/ is the {part} part" for top, part in parts.items())
        listing.notes.append(f"{names}; their sub-folders are the classes")
    if ignored:
        listing.notes.append(f"ignored what is no image: {ignored:,} {'name' if ignored == 1 else 'names'}")
    return listing


def _linked(tree: Tree, name: str) -> InputError:
    what = f"{name!r} is a link to a folder outside, so that this class would be missing"
    return InputError(what, where=tree.root, hint="copy that folder's images here, or put the folder and this one below one that you give")


def _put_aside(listing: Listing, loose: Sequence[str]) -> int:
    images = [path for path in loose if looks_like_image(path)]
    listing.problems += [problem(p, "lies beside the class folders, so it has no label", "move it into a class folder") for p in images]
    return len(loose) - len(images)


def _refuse_without_classes(tree: Tree, tops: dict[str, list[str]], loose: Sequence[str]) -> None:
    if tops:
        return
    if tree.outside:
        raise _linked(tree, tree.outside[0])
    tables = [path for path in loose if path.lower().endswith((".csv", ".tsv"))]
    hint = f"give {tree.root}/{tables[0]} if it has the labels" if tables else "make one sub-folder a class, or give a CSV of path,label"
    raise InputError("has no sub-folders, so nothing says what is what" if loose else "is empty", where=tree.root, hint=hint)


def _parts(root: str, tops: dict[str, list[str]]) -> dict[str, str]:
    """Return which top folders are parts (train or test), empty where all are classes; InputError where that is open."""
    named = {top: part for top in tops if (part := part_of(top))}
    holders = {top for top, files in tops.items() if any(file.count("/") > 1 for file in files)}
    others = [top for top, files in tops.items() if top not in named and any(suffix_of(file) not in SIDECARS for file in files)]
    found = set(named.values())
    if not holders & set(named) and not {"train", "test"} <= found:
        _refuse_hidden_classes(root, tops, holders)
        return {}
    if len(named) == 1 and not others:
        return dict.fromkeys(named, "train")
    if others or set(named) - holders or len(found) < len(named) or "train" not in found:
        hint = "keep class folders inside the parts and nothing beside them, or give one part alone"
        what = f"could be read as the parts {some(named)}, each with class folders inside, or as the classes {some(sorted(tops), 5)}"
        raise InputError(what, where=root, hint=hint)
    held_back = "test" if "test" in found else "val"
    read = {top: "test" if part == held_back else "train" for top, part in named.items()}
    return dict(sorted(read.items(), key=lambda item: (item[1] == "test", item[0])))


def _refuse_hidden_classes(root: str, tops: dict[str, list[str]], holders: set[str]) -> None:
    alone = len([top for top, files in tops.items() if files]) == 1
    for top in sorted(holders):
        below = sorted({path.split("/")[1] for path in tops[top] if path.count("/") > 1})
        direct = any(path.count("/") == 1 for path in tops[top])
        if {"train", "test"} <= {part_of(name) for name in below}:
            second = f"parts inside it ({some(below)})"
        elif alone and len(below) > 1 and not direct:
            second = f"a folder around the classes {some(below)}"
        else:
            continue
        hint = f"give {root}/{top} if it holds the classes; else move its images up one level"
        raise InputError(f"{top!r} could be one class, or {second}", where=root, hint=hint)


def _add_part(listing: Listing, tree: Tree, top: str, test: bool) -> int:
    classes: dict[str, list[str]] = {f.split("/")[1]: [] for f in tree.folders if f.startswith(f"{top}/") and f.count("/") == 1}
    loose = []
    for path in tree.files:
        if path.startswith(f"{top}/"):
            name, slash, _ = path[len(top) + 1 :].partition("/")
            classes[name].append(path) if slash else loose.append(path)
    _add_classes(listing, classes, test=test, depth=2)
    return _put_aside(listing, loose)


def _add_classes(listing: Listing, classes: dict[str, list[str]], *, test: bool, depth: int) -> None:
    for name in sorted(classes):
        listing.paths += classes[name]
        listing.names += [name] * len(classes[name])
        listing.test += [test] * len(classes[name])
    if not test:
        listing.empty += tuple(name for name in sorted(classes) if not classes[name])
    deeper = [name for name in sorted(classes) if any(file.count("/") > depth for file in classes[name])]
    if deeper:
        listing.notes.append(f"images in sub-folders of {some(deeper)} count to that class")
