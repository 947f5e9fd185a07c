"""Reads every byte of a set of shards anew and names what is damaged, missing or too much."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from datagen import untrusted
from datagen.contracts import Format
from datagen.errors import ArtefactError
from datagen.reading.manifest import DATA, MANIFEST, NOTES, ShardSet, note_name, open_set, read_note
from datagen.records import ShardNote


def verify(path: str | Path) -> list[str]:
    """Return one line `FILE: what is wrong` for each problem of a set of shards, none where every byte is as written.

    Raises:
        ArtefactError: there is no set at the path at all.
    """
    try:
        found = open_set(path, allow_partial=True)
    except ArtefactError as error:
        if error.where.endswith(".json"):
            return [f"{os.path.relpath(error.where, path)}: {error.what}"]
        raise
    problems = [] if found.manifest is not None else [f"{MANIFEST}: is missing; the set is not finished"]
    problems += _sidecars(found)
    for note in found.notes:
        problems += damage(found.root, found.format, note)
    return problems + [f"{name}: is not of this set" for name in _strangers(found)]


def damage(root: Path, format: Format, note: ShardNote) -> list[str]:
    """Return one line for each file of a committed shard that is missing or differs in size or SHA-256 from its note."""
    path = root / note.file
    problem = _differs(path, note.sha256, root)
    if problem:
        return [f"{note.file}: {problem}"]
    try:
        beside = list(format.listed(path))
    except ArtefactError as error:
        return [f"{note.file}: {error.what}"]
    size = path.stat().st_size
    problems = []
    for name, sha256 in beside:
        problem = _differs(root / name, sha256, root)
        problems += [f"{name}: {problem}"] * bool(problem)
        size += 0 if problem else (root / name).stat().st_size
    return problems or ([] if size == note.bytes else [f"{note.file}: has {size:,} bytes, its note says {note.bytes:,}"])


def _differs(path: Path, sha256: str, root: Path) -> str:
    try:
        return "" if untrusted.sha256(path, root) == sha256 else "differs from its SHA-256"
    except ArtefactError as error:
        return error.what


def _sidecars(found: ShardSet) -> Iterator[str]:
    """Yield what is wrong with the files that the manifest names beside the shards, and with the notes."""
    if found.manifest is None:
        return
    for name, sha256 in found.manifest.get("files", {}).items():
        if problem := _differs(found.root / name, str(sha256), found.root) if untrusted.plain(name) else "is no name of a file of a set":
            yield f"{name}: {problem}"
    for note in found.notes:
        try:
            differs = read_note(found.root / note_name(note.id)) != note
        except ArtefactError as error:
            yield f"{note_name(note.id)}: {error.what}"
        else:
            yield from [f"{note_name(note.id)}: differs from the manifest"] * differs


def _strangers(found: ShardSet) -> Iterator[str]:
    """Yield files below data/ and .datagen/notes that no note names."""
    known = {note.file for note in found.notes} | {note_name(note.id) for note in found.notes}
    for note in found.notes:
        try:
            known.update(name for name, _ in found.format.listed(found.root / note.file))
        except ArtefactError:
            continue
    for top in (DATA, NOTES):
        for folder, below, names in os.walk(found.root / top):
            relative = Path(folder).relative_to(found.root).as_posix()
            links = [name for name in below if os.path.islink(os.path.join(folder, name))]
            yield from (f"{relative}/{name}" for name in sorted([*names, *links]) if f"{relative}/{name}" not in known)
