"""Where things lie in a set of shards, and what is committed of it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datagen
from datagen import places, registry, storage, untrusted
from datagen.contracts import Format
from datagen.errors import ArtefactError, DatagenError, ResourceError
from datagen.places import Place
from datagen.records import SCHEMA, ShardNote

MANIFEST = "manifest.json"
HEAD = 4096
"""bytes of a manifest that tell whose it is"""
CARD = "README.md"
CROISSANT = "croissant.json"
CLASSES = "classes.json"
SIDE = ".datagen"
PLAN = f"{SIDE}/plan.json"
NOTES = f"{SIDE}/notes"
DATA = "data"
MOST, LONGEST, CHANNELS = 10**7, 1 << 14, (1, 3)
"""shards, height or width in pixels, and channels that a set may have"""
TEXTS = ("production", "format", "source", "suffix")
NOTE_LIMIT = 1 << 24


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


def set_id(place: Place) -> str:
    """Return the ID of a finished set, the SHA-256 of its manifest as hex: nobody who changes anything and hashes it anew can keep it."""
    return hashlib.sha256(place.read(MANIFEST) or b"").hexdigest()


def is_set(path: str | Path) -> bool:
    """Whether a folder or URL is a set of shards, finished or not; ResourceError where a store cannot be reached."""
    place = places.at(path, ResourceError)
    if place.folder is not None:
        return os.path.lexists(place.folder / PLAN) or (os.path.lexists(place.folder / MANIFEST) and _ours(place.folder))
    return place.read(MANIFEST) is not None or place.read(PLAN) is not None


def _ours(folder: Path) -> bool:
    """Whether the manifest.json of a folder is ours, though damaged; other tools write one, too."""
    if (folder / PLAN).parent.is_dir():
        return True
    try:
        with untrusted.opened(folder / MANIFEST) as file:
            return b'"production"' in file.read(HEAD)
    except (ArtefactError, OSError):
        return True


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
        if not isinstance(manifest.get("shards"), list) or not manifest["shards"] or not isinstance(manifest.get("files", {}), dict):
            raise ArtefactError("has no list of shards, or none of files", where=where)
        notes = tuple(parse_note(note, where) for note in manifest["shards"])
        return _matching(ShardSet(place, manifest, notes, manifest), len(notes))
    if (content := place.read(PLAN)) is None:
        raise ArtefactError("is no set of shards: it has no manifest.json", where=path, hint="give the folder that synthesize wrote")
    plan = checked(storage.unseal(content, place.where(PLAN)), place.where(PLAN))
    count = plan.get("shards")
    if type(count) is not int or not 0 <= count <= MOST:
        raise ArtefactError("says no number of shards", where=place.where(PLAN))
    found = (read_note(place, id) for id in _noted(place, count))
    notes = tuple(note for note in found if note is not None)
    if not allow_partial:
        hint = "give its synthesize command again (in Python allow_partial=True takes what is there)"
        raise ArtefactError(f"is not finished: {len(notes)} of {count} shards are there", where=path, hint=hint)
    return _matching(ShardSet(place, plan, notes, None), count)


def _noted(place: Place, count: int) -> list[int]:
    """Return the numbers of shards whose notes may be there: of a folder those that it lists, else all."""
    if place.folder is None:
        return list(range(count))
    names = os.listdir(place.folder / NOTES) if (place.folder / NOTES).is_dir() else []
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"\d{5,9}\.json", name) and int(name[:-5]) < count)


def _matching(found: ShardSet, count: int) -> ShardSet:
    """Return a set whose notes are of `count` different shards of one production; ArtefactError where they are not."""
    ids, known, where = [note.id for note in found.notes], set(found.classes), found.place.where(PLAN if found.manifest is None else MANIFEST)
    for note in found.notes:
        if note.production not in {"", found.plan["production"]}:
            what = f"has a shard of another production ({note.file}): generators are not mixed within a set"
            raise ArtefactError(what, where=where, hint="make both sets anew in folders of their own")
        if note.file != found.format.name(note.id, count) or not known.issuperset(note.rows):
            raise ArtefactError(f"holds a note with a wrong name or number ({note.file!r})", where=where)
    if len(set(ids)) != len(ids) or (found.manifest is not None and sorted(ids) != list(range(count))):
        raise ArtefactError("names a shard twice, or not all of them", where=where)
    return found


def checked(value: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a plan or manifest that this version can read.

    Raises:
        ArtefactError: it is of a newer schema, or what every reader needs is missing or wrong.
    """
    if type(value.get("schema")) is not int or value["schema"] > SCHEMA:
        needed = value.get("version", f"with schema {value.get('schema')}")
        raise ArtefactError(f"needs datagen >= {needed}, this is {datagen.__version__}", where=where, hint="update datagen")
    classes = value.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes) or sorted(set(classes)) != classes:
        raise ArtefactError("has no list of distinct, sorted classes", where=where)
    shape = value.get("shape")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int and 1 <= side <= LONGEST for side in shape) or shape[0] not in CHANNELS:
        raise ArtefactError("has no shape of images", where=where)
    if any(not isinstance(value.get(key), str) for key in TEXTS) or type(value.get("seed")) is not int:
        raise ArtefactError(f"does not say what made it ({', '.join(TEXTS)}, seed)", where=where)
    if ".py:" in value["format"]:
        raise ArtefactError("names code as its format", where=where, hint="no file of a set is ever run")
    try:
        registry.load("formats", value["format"])
    except DatagenError as error:
        raise ArtefactError(f"has an unknown format {value['format']!r}", where=where, hint=error.hint) from error
    return value


def read_note(place: Place, id: int) -> ShardNote | None:
    """Read the note of shard `id`, None where there is none; ArtefactError where it is damaged."""
    content, where = place.read(note_name(id), NOTE_LIMIT), place.where(note_name(id))
    return None if content is None else parse_note(storage.unseal(content, where), where)


def parse_note(value: Any, where: str) -> ShardNote:
    """Return the note in a JSON value; ArtefactError where it is none or names a file outside its set."""
    try:
        note = ShardNote(**value)
        numbers = (note.id, note.accepted, note.tried, note.forced, note.near_copies, note.bytes, *note.rows.values())
    except (TypeError, AttributeError) as error:
        raise ArtefactError("holds a note that cannot be read", where=where) from error
    texts = all(isinstance(text, str) for text in (note.sha256, note.production))
    if not untrusted.plain(note.file) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or not texts:
        raise ArtefactError("holds a note with a wrong name or number", where=where)
    return note
