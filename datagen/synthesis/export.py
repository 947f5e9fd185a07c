"""The same images in another format, image file for image file."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datagen import places, registry
from datagen.contracts import Format, Rows
from datagen.errors import ArtefactError, OutputError
from datagen.places import Place
from datagen.progress import Progress
from datagen.reading.manifest import MANIFEST, ShardSet, open_set, set_id
from datagen.reading.verify import whole
from datagen.records import ShardNote, ShardTask
from datagen.synthesis import commit
from datagen.synthesis.stopping import Stopping

NOT_PLAN = {"version", "kind", "synthetic", "images", "folders", "files"}


def export(shards: str | Path, out: str | Path, *, format: str, progress: Progress | None = None) -> dict[str, Any]:
    """Write a finished set of shards in another format; the image files travel as they are, nothing is encoded anew.

    The result is byte for byte what `synthesize` would have written in that format. The same call again continues.

    Args:
        shards: the set to read, a folder or URL.
        out: folder of the new set; new, empty, or begun by the same call. Or s3://BUCKET/PREFIX as text.
        format: parquet, webdataset or folder.
        progress: where to say what is going on; None is quiet.

    Returns:
        out, images, shards, bytes, seconds, continued, finished, format, production, id.

    Raises:
        UsageError: the format is unknown, or the folder was begun with another.
        ArtefactError: the set is not finished or damaged.
        OutputError: the folder holds something else, or the disk fails.
        Stopped: by Ctrl-C or SIGTERM.
    """
    progress, target = progress or Progress(quiet=True), places.at(out)
    progress.folder = None
    writer: Format = registry.load("formats", format)()
    found = open_set(shards)
    commit.refuse_many(target, writer)
    if _inside(target, found.place):
        raise OutputError("lies inside the set that is read", where=out, hint="give a folder outside of it to --out")
    commit.refuse_strangers(target)
    plan = {key: value for key, value in found.plan.items() if key not in NOT_PLAN} | {"format": format, "shards": len(found.notes)}
    with target.held():
        begun = commit.claim(target, plan)
        progress.folder = target.folder
        return _export(found, target, writer, plan, progress, begun)


def _inside(out: Place, read: Place) -> bool:
    if out.folder is None or read.folder is None:
        return f"{out}/".startswith(f"{read}/")
    target, source = out.folder.resolve(), read.folder.resolve()
    return target == source or source in target.parents


def _export(found: ShardSet, out: Place, writer: Format, plan: dict[str, Any], progress: Progress, begun: bool) -> dict[str, Any]:
    began = time.monotonic()
    out.sweep()
    tasks = [ShardTask(note.id, writer.name(note.id, len(found.notes)), ()) for note in found.notes]
    notes = commit.kept(out, writer, tasks) if begun else {}
    finished = len(notes) == len(tasks) and out.read(MANIFEST) is not None
    done = sum(note.accepted for note in notes.values())
    with Stopping() as stopping, progress.stage("images", found.images, done):
        for task, source in zip(tasks, found.notes, strict=True):
            if task.id not in notes:
                stopping.check(out)
                notes[task.id] = commit.commit(out, writer, task, _rows(found, source))
                progress.advance(notes[task.id].accepted)
    manifest = commit.finish(out, plan, list(notes.values()))
    if text := commit.without_folder(manifest):
        progress.warn(text)
    return {
        "out": str(out),
        "images": manifest["images"],
        "shards": len(notes),
        "bytes": sum(note.bytes for note in notes.values()),
        "seconds": round(time.monotonic() - began, 3),
        "continued": begun and not finished,
        "finished": finished,
        "format": plan["format"],
        "production": manifest["production"],
        "id": set_id(out),
    }


def _rows(found: ShardSet, note: ShardNote) -> Rows:
    """Return all rows of one shard, checked, with the classes of the set."""
    with whole(found, note) as path:
        parts = list(found.format.read(path))

    def joined(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if any(column is None for column in columns) else np.concatenate(columns)

    names = ("labels", "seeds", "indices", "attempts", "confidence", "nearest_real", "probabilities")
    columns = {name: joined(name) for name in names}
    if columns["labels"].max() >= len(found.classes):
        raise ArtefactError("has labels that are no class", where=found.place.where(note.file))
    made = Rows([image for part in parts for image in part.images], classes=found.classes, suffix=parts[0].suffix, source=parts[0].source, **columns)
    return replace(made, tried=note.tried, forced=note.forced, near_copies=note.near_copies)
