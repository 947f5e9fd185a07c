"""The protocol that makes a set of shards whole or continuable: plan first, shard, note, and the manifest last."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np

import datagen
from datagen import holding, storage
from datagen.contracts import Format, Rows
from datagen.errors import ArtefactError, OutputError, UsageError, printable
from datagen.formats.folder import TRAIN
from datagen.formats.names import class_folders
from datagen.places import Place
from datagen.reading.manifest import CARD, CLASSES, CROISSANT, DATA, MANIFEST, NOTES, PLAN, SIDE, note_name, read_note
from datagen.reading.verify import damage
from datagen.records import ShardNote, ShardTask
from datagen.synthesis.card import dataset_card
from datagen.synthesis.croissant import croissant

OURS = {".lock", holding.NAME, "status.json", SIDE}
ASKED = ("seed", "counts", "mode", "format", "shard_images", "spread", "guidance", "confidence", "precision", "encoder")
"""keys of a plan that flags decide; another value in a folder that was begun is a contradiction of the user"""


def claim(out: Place, plan: Mapping[str, Any]) -> bool:
    """Make a place that of this plan; returns whether it was begun before.

    Raises:
        OutputError: it is a file, holds something else, was begun from another generator, or overwrites what is there.
        UsageError: it was begun with other settings.
        ArtefactError: its plan is damaged.
    """
    content = out.read(PLAN)
    if content == b"" and out.folder is not None:
        storage.remove(out.folder / PLAN)
        content = None
    begun = content is not None
    if content is None:
        refuse_strangers(out)
        out.begin(NOTES)
        content = storage.seal(plan)
        out.create(PLAN, content)
    else:
        _same(out, _begun(out, content, plan), plan)
    out.guard(PLAN, content)
    return begun


def _begun(out: Place, content: bytes, plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the plan that a place was begun with; where it is damaged and the manifest tells that it is this one, it is written anew."""
    try:
        return storage.unseal(content, out.where(PLAN))
    except ArtefactError:
        if (told := out.read(MANIFEST)) is None:
            raise
    manifest = storage.unseal(told, out.where(MANIFEST))
    known = {key: manifest.get(key) for key in plan} | {"shards": len(manifest["shards"])}
    if storage.seal(known) == storage.seal(plan):
        out.create(PLAN, storage.seal(plan), again=True)
    return known


def precision(out: Place) -> str | None:
    """Return the precision that a place was begun with, which every continuation takes, on whatever chip; None where none is told."""
    for name in (PLAN, MANIFEST):
        with contextlib.suppress(ArtefactError):
            told = storage.unseal(out.read(name) or b"", out.where(name)).get("ingredients")
            if isinstance(told, Mapping) and (known := told.get("precision")) in {"fp32", "bf16"}:
                return str(known)
    return None


def refuse_many(out: Place, format: Format) -> None:
    """Raise UsageError where a format writes a file an image and the place does not take such."""
    if not (format.suffix or out.many):
        raise UsageError("an object store is no place for a file an image", where=str(out), hint="--format parquet or webdataset")


def refuse_strangers(out: Place) -> None:
    """Raise OutputError where a place is a file, cannot be reached, or was not begun by us and holds anything that is not ours."""
    if (strangers := out.strangers(OURS)) and not out.read(PLAN):
        raise OutputError(f"is not empty and was not begun by this command (it holds {strangers[0]!r})", where=out, hint="give a new folder to --out")


def _same(out: Place, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
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


def kept(out: Place, format: Format, tasks: Sequence[ShardTask]) -> dict[int, ShardNote]:
    """Return the notes of this production's shards that are there, by task id; every byte of them is read, or where the place vouches for them, none."""

    def whole(note: ShardNote) -> bool:
        vouched = out.states(note.file, note.bytes, note.sha256)
        return vouched or (vouched is None and not damage(out, format, note))

    return _notes(out, tasks, whole)


def noted(out: Place, tasks: Sequence[ShardTask]) -> dict[int, ShardNote]:
    """Return the notes of shards that other processes made and that still are there, by task id; their bytes are not read."""
    return _notes(out, tasks, lambda note: out.states(note.file, note.bytes, note.sha256) is not False)


def _notes(out: Place, tasks: Sequence[ShardTask], whole: Callable[[ShardNote], bool]) -> dict[int, ShardNote]:
    """Return the sound notes of this production, by task id, of those shards that are whole."""
    own = {"", _production(out)}

    def look(task: ShardTask) -> ShardNote | None:
        with contextlib.suppress(ArtefactError):
            note = read_note(out, task.id)
            if note is not None and (note.id, note.file) == (task.id, task.file) and note.production in own:
                return note if whole(note) else None
        return None

    with ThreadPoolExecutor(out.abreast) as pool:
        return {note.id: note for note in pool.map(look, tasks) if note is not None}


def _production(out: Place) -> str:
    """Return the production id of the plan that a place was begun with."""
    return str(storage.unseal(out.read(PLAN) or b"", out.where(PLAN))["production"])


def commit(out: Place, format: Format, task: ShardTask, rows: Rows) -> ShardNote:
    """Write one shard and then its note, each whole or not at all; returns the note.

    Raises:
        OutputError: the disk is full, read-only, or fails.
    """
    beside = out.create_all(format.files(rows))
    size, sha256 = out.create(task.file, lambda file: format.write(file, rows), again=True)
    counts = np.bincount(rows.labels, minlength=len(rows.classes)).tolist()
    by_name = {name: count for name, count in zip(rows.classes, counts, strict=True) if count}
    images = len(rows.labels)
    near = rows.near_copies
    note = ShardNote(task.id, task.file, by_name, images, rows.tried or images, rows.forced, size + beside, sha256, near, _production(out))
    out.create(note_name(task.id), storage.seal(asdict(note)), again=True)
    return note


def without_folder(manifest: Mapping[str, Any]) -> str:
    """Return a sentence about classes without images in the folder format, "" elsewhere: readers that number folders number the others otherwise."""
    lacking = [name for name, count in manifest["counts"].items() if not count]
    if manifest["format"] != "folder" or not lacking:
        return ""
    named = printable(", ".join(map(repr, lacking[:3]))) + (f" and {len(lacking) - 3:,} more" if len(lacking) > 3 else "")
    return (
        f"{named} have no images and so no folder: torchvision's ImageFolder numbers the other classes without them, otherwise than classes.json. "
        "Match classes by name (datagen.mix does), or add them to the real images' folders (datagen export --merge)"
    )


def _final(out: Place, content: bytes, notes: Sequence[ShardNote]) -> dict[str, Any] | None:
    """Return the manifest of a set in which nothing has changed since it was written, but perhaps its card by its owner's hand; else None."""
    with contextlib.suppress(ArtefactError):
        known = storage.unseal(content, out.where(MANIFEST))
        files = known["files"] if isinstance(known.get("files"), dict) else {"": ""}
        same = known.get("shards") == [asdict(note) for note in sorted(notes, key=lambda note: note.id)]
        there = {name: out.read(name) or b"" for name in files}
        if same and all(hashlib.sha256(there[name]).hexdigest() == sha256 or (name == CARD and there[name]) for name, sha256 in files.items()):
            return known
    return None


def finish(out: Place, plan: Mapping[str, Any], notes: Sequence[ShardNote]) -> dict[str, Any]:
    """Write classes.json, README.md, croissant.json and, last, manifest.json of a set whose shards are all there; returns the manifest.

    Where nothing is ever replaced, a manifest that is there already is final; so is one whose shards and files are still what it says,
    whichever version wrote it: its ID may be known elsewhere.
    """
    there = out.read(MANIFEST)
    if there is not None and not out.replaces:
        return storage.unseal(there, out.where(MANIFEST))
    if there is not None and (final := _final(out, there, notes)) is not None:
        out.settle(TRAIN, DATA, NOTES, SIDE, "")
        return final
    classes = list(plan["classes"])
    counts = dict.fromkeys(classes, 0)
    for note in notes:
        for name, count in note.rows.items():
            counts[name] += count
    out.settle(TRAIN, DATA, NOTES, SIDE, "")
    files = {PLAN: hashlib.sha256(out.read(PLAN) or b"").hexdigest()}
    for name, content in ((CLASSES, storage.to_json(classes)), (CARD, dataset_card(plan, notes)), (CROISSANT, croissant(plan, notes))):
        files[name] = out.create(name, content, again=True)[1]
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
    out.create(MANIFEST, storage.seal(manifest), again=True)
    return manifest
