"""Where things lie in a set of shards, and what is committed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datagen
from datagen import registry, storage
from datagen.contracts import Format
from datagen.errors import ArtefactError, DatagenError
from datagen.formats.folder import plain
from datagen.records import SCHEMA, ShardNote

MANIFEST = "manifest.json"
CARD = "README.md"
CROISSANT = "croissant.json"
CLASSES = "classes.json"
SIDE = ".datagen"
PLAN = f"{SIDE}/plan.json"
NOTES = f"{SIDE}/notes"
DATA = "data"


def note_name(id: int) -> str:
    """Return the relative name of the note of shard `id`."""
    return f"{NOTES}/{id:05d}.json"


@dataclass(frozen=True)
class ShardSet:
    """A set of shards as it was when it was opened.

    Attributes:
        root: its folder.
        plan: what was asked for; classes, format and encoder among it.
        notes: of the committed shards, in order.
        manifest: None while the set is not finished.
    """

    root: Path
    plan: Mapping[str, Any]
    notes: tuple[ShardNote, ...]
    manifest: Mapping[str, Any] | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return tuple(self.plan["classes"])

    @property
    def format(self) -> Format:
        """The format's writer and reader."""
        part: Format = registry.load("formats", str(self.plan["format"]))()
        return part

    @property
    def images(self) -> int:
        """How many images are committed."""
        return sum(sum(note.rows.values()) for note in self.notes)


def is_set(path: str | Path) -> bool:
    """Whether a folder is a set of shards, finished or not."""
    return (Path(path) / MANIFEST).exists() or (Path(path) / PLAN).exists()


def open_set(path: str | Path, *, allow_partial: bool = False) -> ShardSet:
    """Open a set of shards.

    Args:
        path: its folder.
        allow_partial: take the shards committed so far where the set is not finished.

    Raises:
        ArtefactError: no set, damaged, made by a newer datagen, or not finished.
    """
    root = Path(path)
    if (root / MANIFEST).exists():
        manifest = checked(storage.read_sealed(root / MANIFEST), root / MANIFEST)
        notes = tuple(parse_note(note, root / MANIFEST) for note in _list(manifest, "shards", root))
        return ShardSet(root, manifest, notes, manifest)
    if not (root / PLAN).exists():
        raise ArtefactError("is no set of shards: it has no manifest.json", where=path, hint="give the folder that synthesize wrote")
    plan = checked(storage.read_sealed(root / PLAN), root / PLAN)
    found = [root / note_name(id) for id in range(int(plan["shards"]))]
    notes = tuple(read_note(file) for file in found if file.exists())
    if not allow_partial:
        raise ArtefactError(
            f"is not finished: {len(notes)} of {len(found)} shards are there", where=path, hint="give its synthesize command again, or allow_partial=True"
        )
    return ShardSet(root, plan, notes, None)


def _list(value: Mapping[str, Any], key: str, root: Path) -> list[Any]:
    if not isinstance(value.get(key), list):
        raise ArtefactError(f"has no list {key!r}", where=root / MANIFEST)
    return list(value[key])


def checked(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """Return a plan or manifest that this version can read.

    Raises:
        ArtefactError: it is of a newer schema, or what every reader needs is missing or wrong.
    """
    if not isinstance(value.get("schema"), int) or value["schema"] > SCHEMA:
        needed = value.get("version", f"with schema {value.get('schema')}")
        raise ArtefactError(f"needs datagen >= {needed}, this is {datagen.__version__}", where=where, hint="update datagen")
    classes = value.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes) or sorted(set(classes)) != classes:
        raise ArtefactError("has no list of distinct, sorted classes", where=where)
    try:
        registry.load("formats", str(value.get("format")))
    except DatagenError as error:
        raise ArtefactError(f"has an unknown format {value.get('format')!r}", where=where, hint=error.hint) from error
    return value


def read_note(path: Path) -> ShardNote:
    """Read one note; ArtefactError where it is damaged."""
    return parse_note(storage.read_sealed(path), path)


def parse_note(value: Any, where: Path) -> ShardNote:
    """Return the note in a JSON value; ArtefactError where it is none or names a file outside its set."""
    try:
        note = ShardNote(**value)
        numbers = (note.id, note.accepted, note.tried, note.forced, note.near_copies, note.bytes, *note.rows.values())
    except (TypeError, AttributeError) as error:
        raise ArtefactError("holds a note that cannot be read", where=where) from error
    if not plain(note.file) or not all(isinstance(n, int) and n >= 0 for n in numbers) or not isinstance(note.sha256, str):
        raise ArtefactError("holds a note with a wrong name or number", where=where)
    return note
