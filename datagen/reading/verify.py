"""Reads every byte of a set of shards anew and names what is damaged, missing or too much."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from datagen import untrusted
from datagen.contracts import Format
from datagen.errors import ArtefactError
from datagen.places import LITTER, Place
from datagen.reading.manifest import CARD, DATA, MANIFEST, NOTES, ShardSet, note_name, open_set, read_note
from datagen.records import ShardNote


def verify(path: str | Path) -> list[str]:
    """Return one line `FILE: what is wrong` for each problem of a set of shards, none where every byte is as written.

    Args:
        path: folder or URL. In a folder files that are of no shard are named, too; listings of an object store are not relied on.

    Raises:
        ArtefactError: there is no set at the path at all.
        ResourceError: an object store cannot be reached or refuses.
    """
    try:
        found = open_set(path, allow_partial=True)
    except ArtefactError as error:
        if error.where.endswith(".json"):
            return [f"{error.where.removeprefix(str(path).rstrip('/') + '/')}: {error.what}"]
        raise
    problems = [] if found.manifest is not None else [f"{MANIFEST}: is missing; the set is not finished"]
    problems += _sidecars(found)
    for note in found.notes:
        problems += damage(found.place, found.format, note)
    return problems + [f"{name}: is not of this set" for name in _strangers(found)]


def damage(place: Place, format: Format, note: ShardNote) -> list[str]:
    """Return one line for each file of a committed shard that is missing or differs in size or SHA-256 from its note."""
    with place.fetched(note.file) as path:
        return _damage(place, path, format, note)


@contextlib.contextmanager
def whole(found: ShardSet, note: ShardNote) -> Iterator[Path]:
    """Yield the local file of a shard whose every byte is as written; ArtefactError where one is not."""
    with found.place.fetched(note.file) as path:
        if problems := _damage(found.place, path, found.format, note):
            raise ArtefactError(problems[0], where=str(found.place), hint="give its synthesize command again, it makes damaged shards anew")
        yield path


def _damage(place: Place, path: Path, format: Format, note: ShardNote) -> list[str]:
    problem = _differs(path, note.sha256, place.folder)
    if problem:
        return [f"{note.file}: {problem}"]
    try:
        beside = list(format.listed(path))
    except ArtefactError as error:
        return [f"{note.file}: {error.what}"]
    size = path.stat().st_size
    problems = []
    for name, sha256 in beside:
        with place.fetched(name) as file:
            problem = _differs(file, sha256, place.folder)
            problems += [f"{name}: {problem}"] * bool(problem)
            size += 0 if problem else file.stat().st_size
    return problems or ([] if size == note.bytes else [f"{note.file}: has {size:,} bytes, its note says {note.bytes:,}"])


def _differs(path: Path, sha256: str, root: Path | None) -> str:
    try:
        return "" if untrusted.sha256(path, root) == sha256 else "differs from its SHA-256"
    except ArtefactError as error:
        return error.what


def _sidecars(found: ShardSet) -> Iterator[str]:
    """Yield what is wrong with the files that the manifest names beside the shards, and with the notes."""
    if found.manifest is None:
        return
    for name, sha256 in found.manifest.get("files", {}).items():
        if not untrusted.plain(name):
            yield f"{name}: is no name of a file of a set"
            continue
        with found.place.fetched(name) as path:
            if problem := _differs(path, str(sha256), found.place.folder):
                yield f"{name}: {problem}" + (" (edited? delete it, and the same synthesize command writes it anew)" if name == CARD else "")
    for note in found.notes:
        name = note_name(note.id)
        try:
            there = read_note(found.place, note.id)
        except ArtefactError as error:
            yield f"{name}: {error.what}"
        else:
            yield from [f"{name}: is missing" if there is None else f"{name}: differs from the manifest"] * (there != note)


def _strangers(found: ShardSet) -> Iterator[str]:
    """Yield files of a folder below data/ and .datagen/notes that no note names."""
    if (root := found.place.folder) is None:
        return
    known = {note.file for note in found.notes} | {note_name(note.id) for note in found.notes}
    for note in found.notes:
        try:
            known.update(name for name, _ in found.format.listed(root / note.file))
        except ArtefactError:
            continue
    for top in (DATA, NOTES):
        for folder, below, names in os.walk(root / top):
            relative = Path(folder).relative_to(root).as_posix()
            links = [name for name in below if os.path.islink(os.path.join(folder, name))]
            yield from (f"{relative}/{name}" for name in sorted([*names, *links]) if f"{relative}/{name}" not in known and not name.startswith(LITTER))
