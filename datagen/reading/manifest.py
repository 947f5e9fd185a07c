"""Where things lie in a set of shards, and what is committed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datagen
from datagen import places, registry, storage
from datagen.contracts import Format
from datagen.errors import ArtefactError, DatagenError, ResourceError
from datagen.formats.folder import plain
from datagen.places import Place
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
        place: where it is.
        plan: what was asked for; classes, format and encoder among it.
        notes: of the committed shards, in order.
        manifest: None while the set is not finished.
    """

    place: Place
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
    """Whether a folder or URL is a set of shards, finished or not; ResourceError where a store cannot be reached."""
    place = places.at(path, ResourceError)
    if place.folder is not None:
        return (place.folder / MANIFEST).exists() or (place.folder / PLAN).exists()
    return place.read(MANIFEST) is not None or place.read(PLAN) is not None


def open_set(path: str | Path, *, allow_partial: bool = False) -> ShardSet:
    """Open a set of shards.

    Args:
        path: its folder or URL.
        allow_partial: take the shards committed so far where the set is not finished.

    Raises:
        ArtefactError: no set, damaged, made by a newer datagen, or not finished.
        ResourceError: an object store cannot be reached or refuses.
    """
    place = places.at(path, ResourceError)
    if (content := place.read(MANIFEST)) is not None:
        where = place.where(MANIFEST)
        manifest = checked(storage.unseal(content, where), where)
        return ShardSet(place, manifest, tuple(parse_note(note, where) for note in _list(manifest, "shards", where)), manifest)
    if (content := place.read(PLAN)) is None:
        raise ArtefactError("is no set of shards: it has no manifest.json", where=path, hint="give the folder that synthesize wrote")
    plan = checked(storage.unseal(content, place.where(PLAN)), place.where(PLAN))
    found = [read_note(place, id) for id in range(int(plan["shards"]))]
    notes = tuple(note for note in found if note is not None)
    if not allow_partial:
        raise ArtefactError(
            f"is not finished: {len(notes)} of {len(found)} shards are there", where=path, hint="give its synthesize command again, or allow_partial=True"
        )
    return ShardSet(place, plan, notes, None)


def _list(value: Mapping[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(value.get(key), list):
        raise ArtefactError(f"has no list {key!r}", where=where)
    return list(value[key])


def checked(value: dict[str, Any], where: str) -> dict[str, Any]:
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


def read_note(place: Place, id: int) -> ShardNote | None:
    """Read the note of shard `id`, None where there is none; ArtefactError where it is damaged."""
    content, where = place.read(note_name(id)), place.where(note_name(id))
    return None if content is None else parse_note(storage.unseal(content, where), where)


def parse_note(value: Any, where: str) -> ShardNote:
    """Return the note in a JSON value; ArtefactError where it is none or names a file outside its set."""
    try:
        note = ShardNote(**value)
        numbers = (note.id, note.accepted, note.tried, note.forced, note.near_copies, note.bytes, *note.rows.values())
    except (TypeError, AttributeError) as error:
        raise ArtefactError("holds a note that cannot be read", where=where) from error
    if not plain(note.file) or not all(isinstance(n, int) and n >= 0 for n in numbers) or not isinstance(note.sha256, str):
        raise ArtefactError("holds a note with a wrong name or number", where=where)
    return note
