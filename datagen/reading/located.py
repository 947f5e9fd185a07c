"""Where each labelled image of a set of shards or a folder lies: a file, an offset and a length, found once and kept in arrays."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from datagen import caching, holding, storage, untrusted
from datagen.errors import ArtefactError, InputError, OutputError, UsageError
from datagen.formats.folder import Folder
from datagen.formats.names import class_folders
from datagen.pictures import HEAD, begins_like_image, looks_like_image, suffix_of
from datagen.places import is_url
from datagen.reading.manifest import ShardSet, is_set, open_set
from datagen.reading.remote import CACHE_BYTES, Remote
from datagen.reading.verify import damage
from datagen.records import ShardNote

TRAINING = {"train", "training"}
"""what the part to train on is called, in any case"""
IMAGES, INDEX, PACK = "images.bin", "index.bin", 2
"""files of an unpacked set, and the number of their layout"""
SCORED = "shards of a generator with a filter have them, for up to 100 classes"
PATIENCE = 3600.0
"""seconds to wait for another process that unpacks the same set"""


@dataclass(frozen=True)
class Located:
    """Labelled images by place; arrays alone, so that worker processes share or copy it cheaply.

    Attributes:
        root: folder that `files` are relative to.
        classes: names in code-point order.
        labels: int64 [N], index into `classes`.
        files: bytes [F], names of files.
        places: int64 [N, 3]: index into `files`, offset and length in bytes (-1: the whole file).
        hashes: uint8 [N, B], the first B bytes of the SHA-256 of each image, or None where none is known (the user's own folders).
        shards: of the set, 1 for a folder.
        skipped: images of each class in shards that were left out, since they are missing or damaged.
        probabilities: float16 [N, classes] that a teacher gave; None unless they were asked for.
    """

    root: str
    classes: tuple[str, ...]
    labels: np.ndarray
    files: np.ndarray
    places: np.ndarray
    hashes: np.ndarray | None = None
    shards: int = 1
    skipped: Mapping[str, int] = field(default_factory=dict)
    probabilities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, row: int) -> int:
        """Return the class of an image."""
        return int(self.labels[row])

    def name(self, row: int) -> str:
        """Return the path of the file that holds an image."""
        return os.path.join(self.root, os.fsdecode(self.files[self.places[row, 0]]))

    def content(self, row: int) -> bytes:
        """Return the bytes of one image file; ArtefactError where they are not as they were written."""
        _, offset, length = self.places[row].tolist()
        path = self.name(row)
        try:
            with open(path, "rb") if self.hashes is None else untrusted.opened(path, self.root) as file:
                file.seek(offset)
                content = file.read(length)
        except OSError as error:
            raise ArtefactError(error.strerror or "cannot be read", where=path) from error
        if length not in (-1, len(content)):
            raise ArtefactError("is cut", where=path)
        if self.hashes is not None and hashlib.sha256(content).digest()[: self.hashes.shape[1]] != self.hashes[row].tobytes():
            hint = f"delete {self.root}, it is made anew" if length != -1 else untrusted.VERIFY
            raise ArtefactError("is damaged: its SHA-256 differs", where=path, hint=hint)
        return content


Found = Located | Remote
"""labelled images by place, on this machine or on an object store"""


def locate(path: str | Path, *, allow_partial: bool = False, skip: bool = False, soft: bool = False, cache_bytes: int = CACHE_BYTES) -> Found:
    """Find the images of a set of shards in any format, or of a folder with a folder a class.

    Args:
        path: the set, also by URL, or the folder; a train/ or data/train/ inside is taken.
        allow_partial: take what is committed of an unfinished set.
        skip: leave out shards that are missing or damaged; every byte is read for that.
        soft: with probabilities; every byte is read for them.
        cache_bytes: kept on this machine of sets on object stores.

    Raises:
        ArtefactError: the set is damaged or not finished, or none of its shards is left.
        InputError: there is no such folder, or no folder with images in it; or there are no probabilities.
        UsageError: `skip` or `soft` of an object store.
    """
    if is_url(path):
        if soft:
            raise UsageError("gives labels alone from an object store", where=str(path), hint="copy the set to a folder, or leave soft() out")
        if skip:
            raise UsageError("leaves out nothing of an object store", where=str(path), hint="on_bad='raise', or copy the set to a folder")
        return Remote(open_set(path, allow_partial=allow_partial), cache_bytes)
    if not Path(path).is_dir():
        raise InputError("is no folder", where=path, hint="give a folder of shards, or one with a folder a class")
    if not is_set(path):
        if soft:
            raise InputError("has no probabilities", where=path, hint=f"{SCORED}; leave soft() out")
        return _class_folders(Path(path))
    found = open_set(path, allow_partial=allow_partial)
    found, skipped = _undamaged(found) if skip else (found, {})
    located = _listed(found, Path(path)) if isinstance(found.format, Folder) else _packed(found, Path(path))
    return replace(located, skipped=skipped, probabilities=_probabilities(found, Path(path)) if soft else None)


def _probabilities(found: ShardSet, root: Path) -> np.ndarray:
    """Return float16 [N, classes] of a set's images in the order of its shards; InputError where an image has none, or of other classes."""
    parts = [rows.probabilities for note in found.notes for rows in found.format.read(_whole(root, note))]
    known = [part for part in parts if part is not None and part.shape[1] == len(found.classes)]
    if not known or len(known) < len(parts):
        raise InputError("has no probabilities of its classes", where=root, hint=f"{SCORED}; leave soft() out")
    return np.concatenate(known)


def _undamaged(found: ShardSet) -> tuple[ShardSet, dict[str, int]]:
    """Return a set without its missing and damaged shards, and the images of each class that they hold."""
    notes = tuple(note for note in found.notes if not damage(found.place, found.format, note))
    if found.notes and not notes:
        raise ArtefactError("has no shard that is whole", where=str(found.place), hint="give its synthesize command again")
    skipped: Counter[str] = Counter()
    for note in found.notes:
        skipped.update(note.rows if note not in notes else {})
    return replace(found, notes=notes), dict(skipped)


def _class_folders(path: Path) -> Located:
    parts = [entry for where in (path, path / "data") if where.is_dir() for entry in sorted(where.iterdir()) if entry.name.casefold() in TRAINING]
    root = next((entry for entry in parts if _has_folders(entry)), path)
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith((".", "__")))
    names, labels = [], []
    for label, name in enumerate(classes):
        found = list(_images(root, root / name))
        names += found
        labels += [label] * len(found)
    if not names:
        raise InputError("has no folders with images", where=path, hint="one folder a class, or a folder that synthesize wrote")
    return _whole_files(root, tuple(classes), names, np.array(labels, np.int64), None)


def _has_folders(path: Path) -> bool:
    """Whether this is a part of a set with a folder a class, and not a class of that name."""
    return path.is_dir() and any(entry.is_dir() and not entry.name.startswith((".", "__")) for entry in list(os.scandir(path)))


def _images(root: Path, folder: Path) -> Iterator[str]:
    for inner, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and _is_image(path := os.path.join(inner, name), root):
                yield os.path.relpath(path, root)


def _is_image(path: str, root: Path) -> bool:
    """Whether this is an image of the folder as `fit` has it: a plain file called like an image or, without an ending, beginning like one.

    Links to what is listed itself are left out, those into hidden folders are followed; InputError for one that leads out.
    """
    if os.path.islink(path):
        parts = Path(os.path.relpath(os.path.realpath(path), os.path.realpath(root))).parts
        if parts[0] == "..":
            raise InputError("is a link that leads out of the folder", where=path, hint="copy what it points to into the folder, or remove it")
        if not any(part.startswith(".") for part in parts):
            return False
    if not os.path.isfile(path):
        return False
    if looks_like_image(path) or suffix_of(path).isalpha():
        return looks_like_image(path)
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return begins_like_image(file.read(HEAD))
    return False


def _whole_files(root: Path, classes: tuple[str, ...], names: list[str], labels: np.ndarray, hashes: np.ndarray | None, shards: int = 1) -> Located:
    places = np.full((len(names), 3), -1, np.int64)
    places[:, 0], places[:, 1] = np.arange(len(names)), 0
    return Located(str(root), classes, labels, np.array([os.fsencode(name) for name in names], dtype=np.bytes_), places, hashes, shards)


def _listed(found: ShardSet, root: Path) -> Located:
    folders = {name: label for label, name in enumerate(class_folders(found.classes))}
    names: list[str] = []
    hashes: list[str] = []
    for note in found.notes:
        for name, sha256 in found.format.listed(_whole(root, note)):
            names.append(name)
            hashes.append(sha256)
    if len(names) != found.images or any(name.split("/")[-2] not in folders for name in names):
        raise ArtefactError("lists other images or classes than its notes say", where=root)
    labels = np.array([folders[name.split("/")[-2]] for name in names], np.int64)
    raw = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32)
    return _whole_files(root, found.classes, names, labels, raw, len(found.notes))


def _whole(root: Path, note: ShardNote) -> Path:
    """Return the path of a shard whose SHA-256 is its note's; ArtefactError where it is not."""
    path = root / note.file
    if untrusted.sha256(path, root) != note.sha256:
        raise ArtefactError("is damaged: its SHA-256 differs from the manifest's", where=path, hint="give its synthesize command again")
    return path


def _packed(found: ShardSet, root: Path) -> Located:
    """Unpack the images of one-file shards, once, into one file below the cache folder that every process reads in place."""
    folder = caching.entry("shards", "pack", PACK, *(note.sha256 for note in found.notes))
    index = _index(folder, found.images)
    if index is None:
        with holding.lock(storage.make_folder(folder), wait=PATIENCE):
            if _index(folder, found.images) is None:
                storage.sweep(folder)
                caching.forget("shards")
                _pack(found, root, folder)
        index = _index(folder, found.images)
    elif any(name.startswith(storage.TEMPORARY) for name in os.listdir(folder)):
        with contextlib.suppress(OutputError), holding.lock(folder):
            storage.sweep(folder)
    storage.used(folder)
    if index is None:
        raise ArtefactError("holds other numbers of images than its notes say", where=root)
    lengths = np.diff(index[:, 1])
    places = np.stack([np.zeros(len(lengths), np.int64), index[:-1, 1], lengths], axis=1)
    hashes = np.ascontiguousarray(index[:-1, 2:]).view(np.uint8)
    return Located(str(folder), found.classes, index[:-1, 0].copy(), np.array([IMAGES.encode()]), places, hashes, len(found.notes))


def _index(folder: Path, images: int) -> np.ndarray | None:
    """Return int64 [N + 1, 3] of labels, offsets and hashes, or None where the pack is not there or not whole."""
    try:
        raw = (folder / INDEX).read_bytes()
        index = np.frombuffer(raw[:-32], np.int64).reshape(-1, 3)
        whole = hashlib.sha256(raw[:-32]).digest() == raw[-32:] and len(index) == images + 1 and os.path.getsize(folder / IMAGES) == index[-1, 1]
    except (OSError, ValueError):
        return None
    return index if whole else None


def _pack(found: ShardSet, root: Path, folder: Path) -> None:
    rows: list[np.ndarray] = []
    position = 0

    def write(file: Any) -> None:
        nonlocal position
        position = 0
        rows.clear()
        for note in found.notes:
            for part in found.format.read(_whole(root, note)):
                offsets = position + np.cumsum([0, *map(len, part.images)])
                hashes = np.frombuffer(b"".join(hashlib.sha256(image).digest()[:8] for image in part.images), np.int64)
                rows.append(np.stack([part.labels, offsets[:-1], hashes], axis=1))
                file.write(b"".join(part.images))
                position = int(offsets[-1])

    storage.create(folder / IMAGES, write, again=True)
    rows.append(np.array([[-1, position, 0]], np.int64))
    labels = np.concatenate(rows)
    if labels[:-1, 0].max(initial=0) >= len(found.classes):
        raise ArtefactError("has labels that are no class", where=root)
    raw = labels.astype(np.int64).tobytes()
    storage.create(folder / INDEX, raw + hashlib.sha256(raw).digest(), again=True)
