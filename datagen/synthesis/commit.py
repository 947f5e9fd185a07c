"""The protocol that makes a set of shards whole or continuable: plan first, shard, note, and the manifest last."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import datagen
from datagen import holding, storage
from datagen.contracts import Format, Rows
from datagen.errors import ArtefactError, OutputError, UsageError
from datagen.formats.folder import TRAIN
from datagen.formats.names import class_folders
from datagen.reading.manifest import CARD, CLASSES, CROISSANT, DATA, MANIFEST, NOTES, PLAN, SIDE, note_name, read_note
from datagen.reading.verify import damage
from datagen.records import ShardNote, ShardTask
from datagen.synthesis.card import dataset_card
from datagen.synthesis.croissant import croissant

OURS = {".lock", holding.NAME, "status.json", SIDE}
ASKED = ("seed", "counts", "mode", "format", "shard_images", "spread", "guidance", "confidence", "encoder")
"""keys of a plan that flags decide; another value in a folder that was begun is a contradiction of the user"""


def claim(out: Path, plan: Mapping[str, Any]) -> bool:
    """Make a folder the place of this plan; returns whether it was begun before.

    Raises:
        OutputError: it is a file, holds something else, or was begun from another generator.
        UsageError: it was begun with other settings.
        ArtefactError: its plan is damaged.
    """
    begun = (out / PLAN).exists()
    if begun and (out / PLAN).stat().st_size:
        _same(out, _begun(out, plan), plan)
        return True
    if begun:
        storage.remove(out / PLAN)
    refuse_strangers(out)
    storage.make_folder(out / NOTES)
    for folder in (*_above(out), out, out / SIDE):
        if os.access(folder, os.R_OK):
            storage.sync_folder(folder)
    storage.create(out / PLAN, storage.seal(plan))
    return False


def _above(out: Path) -> list[Path]:
    """Return the folders above one on the same disk, any of which a killed run of the same command may have made."""
    device = out.stat().st_dev
    return [folder for folder in out.absolute().parents if folder.stat().st_dev == device]


def _begun(out: Path, plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the plan that a folder was begun with; where it is damaged and the manifest tells that it is this one, it is written anew."""
    try:
        return storage.read_sealed(out / PLAN)
    except ArtefactError:
        if not (out / MANIFEST).exists():
            raise
    manifest = storage.read_sealed(out / MANIFEST)
    told = {key: manifest.get(key) for key in plan} | {"shards": len(manifest["shards"])}
    if storage.seal(told) == storage.seal(plan):
        storage.create(out / PLAN, storage.seal(plan), again=True)
    return told


def refuse_strangers(out: Path) -> None:
    """Raise OutputError where a path is a file or a folder that holds anything that is not ours."""
    if out.exists() and not out.is_dir():
        raise OutputError("is a file, a folder is needed", where=out, hint="give another --out")
    if not out.is_dir() or (out / PLAN).exists():
        return
    with storage.reporting(out):
        strangers = sorted(entry.name for entry in out.iterdir() if entry.name not in OURS and not entry.name.startswith(storage.TEMPORARY))
    if strangers:
        raise OutputError(f"is not empty and was not begun by this command (it holds {strangers[0]!r})", where=out, hint="give a new folder to --out")


def _same(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    old, new = (_flat(plan) for plan in (old, new))
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    shown = [f"{key}: {_short(old.get(key))}, now {_short(new.get(key))}" for key in changed if key not in {"production", "shards"}]
    if not changed:
        return
    if set(changed) & set(ASKED) or "classes" in changed:
        kind: type[UsageError] | type[OutputError] = UsageError
        hint = "give the old values to continue, or another --out; with a larger --per-class there, the first images are the same"
    else:
        kind, hint = OutputError, "give another --out, or the generator and the device it was begun with"
    raise kind(f"was begun with other settings ({'; '.join(shown[:5])})", where=out, hint=hint)


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    ingredients = dict(plan.get("ingredients", {}))
    return {**{key: value for key, value in plan.items() if key != "ingredients"}, **ingredients}


def _short(value: Any) -> str:
    if isinstance(value, dict) and value and all(isinstance(each, int) for each in value.values()):
        least, most = min(value.values()), max(value.values())
        value = f"{least:,} of each class" if least == most else f"{sum(value.values()):,} images"
    text = str(value) if not isinstance(value, list) else f"{len(value)} of them"
    return text if len(text) <= 24 else text[:12] + "…"


def kept(out: Path, format: Format, tasks: Sequence[ShardTask]) -> dict[int, ShardNote]:
    """Return the notes of the shards that are there and whole, by task id; every byte of them is read."""
    found = {}
    for task in tasks:
        path = out / note_name(task.id)
        try:
            note = read_note(path) if path.exists() else None
        except ArtefactError:
            note = None
        if note is not None and (note.id, note.file) == (task.id, task.file) and not damage(out, format, note):
            found[task.id] = note
    return found


def commit(out: Path, format: Format, task: ShardTask, rows: Rows) -> ShardNote:
    """Write one shard and then its note, each whole or not at all; returns the note.

    Raises:
        OutputError: the disk is full, read-only, or fails.
    """
    path = out / task.file
    storage.make_folder(path.parent)
    beside = storage.create_all(out, format.files(rows))
    size, sha256 = storage.create(path, lambda file: format.write(file, rows), again=True)
    counts = np.bincount(rows.labels, minlength=len(rows.classes)).tolist()
    by_name = {name: count for name, count in zip(rows.classes, counts, strict=True) if count}
    images = len(rows.labels)
    note = ShardNote(task.id, task.file, by_name, images, rows.tried or images, rows.forced, size + beside, sha256, rows.near_copies)
    storage.create(out / note_name(task.id), storage.seal(asdict(note)), again=True)
    return note


def finish(out: Path, plan: Mapping[str, Any], notes: Sequence[ShardNote]) -> dict[str, Any]:
    """Write classes.json, README.md, croissant.json and, last, manifest.json of a set whose shards are all there; returns the manifest."""
    classes = list(plan["classes"])
    counts = dict.fromkeys(classes, 0)
    for note in notes:
        for name, count in note.rows.items():
            counts[name] += count
    for folder in (out / TRAIN, out / DATA, out / NOTES, out / SIDE, out):
        if folder.is_dir():
            storage.sync_folder(folder)
    files = {PLAN: storage.hash_file(out / PLAN)}
    for name, content in ((CLASSES, storage.to_json(classes)), (CARD, dataset_card(plan, notes)), (CROISSANT, croissant(plan, notes))):
        files[name] = storage.create(out / name, content, again=True)[1]
    folders = class_folders(classes) if plan["format"] == "folder" else classes
    manifest = {
        **plan,
        "version": datagen.__version__,
        "kind": "shards",
        "synthetic": True,
        "images": sum(counts.values()),
        "counts": counts,
        "folders": {name: folder for name, folder in zip(classes, folders, strict=True) if name != folder},
        "files": files,
        "shards": [asdict(note) for note in sorted(notes, key=lambda note: note.id)],
    }
    storage.create(out / MANIFEST, storage.seal(manifest), again=True)
    return manifest
