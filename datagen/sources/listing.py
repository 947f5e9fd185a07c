"""What a source lists before any image is opened: paths, class names and parts, whatever kind of source it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datagen.errors import InputError
from datagen.pictures import looks_like_image

SKIP, LOOK, DUPLICATE = "skip", "look", "duplicate"
Problem = dict[str, str]
_PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(("val", "valid", "validation"), "val")


def problem(file: str, what: str, remedy: str, kind: str = SKIP) -> Problem:
    """Return one entry of `Dataset.problems`; kind is skip (left out), look (used) or duplicate (left out, not counted as skipped)."""
    return {"file": file, "problem": what, "remedy": remedy, "kind": kind}


@dataclass
class Listing:
    """Images by name, in the order in which they will lie in the Dataset.

    Attributes:
        root: what the user gave, absolute.
        base: absolute folder that the paths are relative to.
        paths: "/" between parts, "FILE#ROW" for rows of Parquet.
        names: class name of each.
        test: whether each lies in the source's own test part.
        groups: value of the group column of each, None where the source has no such column.
        made: numbers of the images whose row says that they are synthetic.
        columns: names of the columns of a table, empty for folders.
        empty: training classes that the source names and that hold nothing.
        problems: entries about files that cannot be used.
        errors: what forbids using the source at all.
        notes: sentences for the user.
    """

    root: str
    base: str
    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    test: list[bool] = field(default_factory=list)
    groups: list[str] | None = None
    made: set[int] = field(default_factory=set)
    columns: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    errors: list[InputError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def part(self, *, test: bool) -> Listing:
        """Return a copy with the images of the test part alone, or without them."""
        kept = [i for i, flag in enumerate(self.test) if flag == test]
        groups = None if self.groups is None else [self.groups[i] for i in kept]
        fields = {"paths": [self.paths[i] for i in kept], "names": [self.names[i] for i in kept], "test": [test] * len(kept), "groups": groups}
        fields["made"] = {place for place, i in enumerate(kept) if i in self.made}
        return Listing(**(self.__dict__ | fields))


SPLITS = ("split", "set", "subset", "partition")
"""columns of a table that say which part an image is of"""


def parts_said(values: Sequence[str], listing: Listing, column: str) -> list[bool] | None:
    """Return of the values of a column whether each says that its image is of the test part, and note how they were read; None where some say no part.

    Test is the test part, val takes its place where it is missing and joins train where it is not.
    """
    parts = [part_of(value) for value in values]
    held_back = "test" if "test" in parts else "val"
    if None in parts or not {"train", held_back} <= set(parts):
        listing.notes.append(f"the column {column!r} is not looked at: it does not say train and test (or val) of each image")
        return None
    listing.notes.append(f"the column {column!r} says which images are the {held_back} part; the others are the training images")
    return [part == held_back for part in parts]


def part_of(name: str) -> str | None:
    """Return train, test or val where a name of a folder or file says so, else None."""
    return _PARTS.get(name.casefold())


def list_source(source: str | os.PathLike[str], group: str | None) -> Listing:
    """List a folder of class folders, a CSV file, or a Parquet file or folder.

    Args:
        source: what the user gave.
        group: a column's name, kept where the source is a table that has it.

    Raises:
        InputError: no such source, of no known kind, or readable in two ways.
    """
    from datagen.sources import folder, layout, parquet, table

    root = Path(os.path.abspath(source))
    if not root.exists():
        raise InputError("no such file or folder", where=source, hint="give a folder with one sub-folder a class")
    if root.is_dir():
        tree = folder.walk(str(root))
        rows = [p for p in tree.files if p.lower().endswith(".parquet")]
        if not rows:
            listing = layout.interpret(tree)
            listing.root = str(root)
            return listing
        if any(looks_like_image(p) for p in tree.files):
            hint = f"give {root / rows[0]} for the rows, or move the Parquet files away"
            raise InputError(f"could be labelled Parquet ({rows[0]}) or class folders of image files", where=source, hint=hint)
        return parquet.list_parquet(root, rows, group)
    if root.suffix.lower() == ".parquet":
        return parquet.list_parquet(root, [root.name], group)
    if root.suffix.lower() in (".csv", ".tsv"):
        return table.list_csv(root, group)
    raise InputError("is neither a folder nor a CSV or Parquet file", where=source, hint="give a folder with one sub-folder a class")


def some(names: Iterable[str], most: int = 3) -> str:
    """Return the first names quoted and comma-separated, with how many more there are."""
    listed = list(names)
    return ", ".join(repr(n) for n in listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
