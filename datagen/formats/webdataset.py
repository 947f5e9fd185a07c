"""Tar shards as webdataset reads them: KEY.png, KEY.cls and KEY.json of each image, equal bytes for equal rows."""

from __future__ import annotations

import functools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from datagen import untrusted
from datagen.contracts import Rows
from datagen.errors import ArtefactError
from datagen.formats import names

BLOCK = 512
PIECE = 4096
PIECE_BYTES = 100_000_000
LARGEST, LONGEST = 1 << 28, 1 << 22
"""bytes of an image, and of a label or description, at most"""
MOST_CLASSES = 10**6
SUFFIXES = {"png", "jpg"}
NUMBERS = ("seed", "index", "attempt")
SCORES = {"confidence": 1, "nearest_real": 1, "probabilities": 2}
DESCRIBED = ("class", *NUMBERS, "source", *SCORES)


@functools.cache
def _template() -> tuple[bytes, bytes]:
    """Return what stands before the checksum's field and after it in every header: mode, owner, time, type are fixed."""
    info = tarfile.TarInfo("")
    info.mode, info.uname, info.gname = 0o644, "datagen", "datagen"
    raw = info.tobuf(tarfile.USTAR_FORMAT)
    return raw[:148], raw[156:]


def header(name: str, size: int) -> bytes:
    """Return the USTAR header (512 bytes) of a plain file with an ASCII name of at most 100 bytes, time 0, owner 0."""
    before, after = _template()
    before = name.encode("ascii").ljust(100, b"\0") + before[100:124] + b"%011o\0" % size + before[136:]
    total = sum(before) + sum(after) + 8 * 32
    return before + b"%06o\0 " % total + after


def member(name: str, content: bytes) -> bytes:
    """Return header, content and padding of one file."""
    return header(name, len(content)) + content + bytes(-len(content) % BLOCK)


class WebDataset:
    """One plain tar a shard, three members an image, readable as a stream."""

    suffix = ".tar"

    def name(self, id: int, count: int) -> str:
        """Return data/train-00000-of-00012.tar."""
        return f"data/train-{id:05d}-of-{count:05d}.tar"

    def files(self, rows: Rows) -> Iterator[tuple[str, bytes]]:
        """Yield nothing; all is in one file."""
        return iter(())

    def listed(self, file: Path) -> Iterator[tuple[str, str]]:
        """Yield nothing; all is in one file."""
        return iter(())

    def write(self, file: BinaryIO, rows: Rows) -> None:
        """Write the rows as one tar; class names in KEY.json, the label in KEY.cls."""
        classes = [json.dumps(name, ensure_ascii=True) for name in names.loader_names(rows.classes)]
        columns = zip(rows.labels.tolist(), rows.seeds.tolist(), rows.indices.tolist(), rows.attempts.tolist(), strict=True)
        source = json.dumps(rows.source)
        for row, (label, seed, index, attempt) in enumerate(columns):
            key = names.key(label, index)
            text = f'{{"class": {classes[label]}, "seed": {seed}, "index": {index}, "attempt": {attempt}, "source": {source}, {_scores(rows, row)}}}'
            file.write(member(f"{key}.{rows.suffix}", rows.images[row]) + member(f"{key}.cls", b"%d" % label) + member(f"{key}.json", text.encode("ascii")))
        file.write(bytes(2 * BLOCK))

    def read(self, file: Path) -> Iterator[Rows]:
        """Yield the rows in pieces of 4,096; classes are those that the piece names, "" for others. Nothing is unpacked to disk."""
        piece: list[tuple[str, bytes, int, dict[str, Any]]] = []
        size = 0
        for sample in _samples(file):
            piece.append(sample)
            size += len(sample[1])
            if len(piece) == PIECE or size > PIECE_BYTES:
                yield _rows(piece, file)
                piece, size = [], 0
        if piece:
            yield _rows(piece, file)

    def count(self, file: Path) -> int:
        """Return the number of images."""
        return sum(1 for _ in _samples(file))


def _scores(rows: Rows, row: int) -> str:
    confidence, nearest = (None if column is None else float(column[row]) for column in (rows.confidence, rows.nearest_real))
    probabilities = None if rows.probabilities is None else [float(p) for p in rows.probabilities[row]]
    if confidence is nearest is probabilities is None:
        return '"confidence": null, "probabilities": null, "nearest_real": null'
    return json.dumps({"confidence": confidence, "probabilities": probabilities, "nearest_real": nearest})[1:-1]


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each member of a tar of ours; ArtefactError at anything but plain files, or where it was cut."""
    try:
        with untrusted.opened(path) as file:
            while (head := _exactly(file, BLOCK, path)) != bytes(BLOCK):
                name, size = _parsed(head, path)
                content = _exactly(file, size, path)
                if any(_exactly(file, -size % BLOCK, path)):
                    raise ArtefactError("is damaged: bytes between members", where=path)
                yield name, content
            if file.read(BLOCK + 1) != bytes(BLOCK):
                raise ArtefactError("is cut or has bytes after its end", where=path)
    except OSError as error:
        raise ArtefactError(error.strerror or "cannot be read", where=path) from error


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise ArtefactError("is cut", where=path, hint=untrusted.VERIFY)
    return content


def _parsed(head: bytes, path: Path) -> tuple[str, int]:
    try:
        name, size = head[:100].rstrip(b"\0").decode("ascii"), int(head[124:135], 8)
        whole = head == header(name, size)
    except ValueError:
        whole, name, size = False, "", 0
    if not whole or size > (LARGEST if name.endswith((".png", ".jpg")) else LONGEST) or "/" in name or name.count(".") != 1:
        raise ArtefactError("holds something else than the plain members of a shard", where=path)
    return name, size


def _samples(path: Path) -> Iterator[tuple[str, bytes, int, dict[str, Any]]]:
    """Yield suffix, image, label and the values of KEY.json of each image."""
    found = members(path)
    for name, image in found:
        key, suffix = name.split(".")
        (second, label), (third, text) = next(found, ("", b"")), next(found, ("", b""))
        if suffix not in SUFFIXES or second != f"{key}.cls" or third != f"{key}.json":
            raise ArtefactError(f"does not hold {key}.cls and {key}.json after {name}", where=path)
        try:
            number, value = int(label), json.loads(text)
            described = {name: value.get(name) for name in DESCRIBED}
        except (ValueError, AttributeError, RecursionError) as error:
            raise ArtefactError(f"has a label or description of {key} that cannot be read", where=path) from error
        if not 0 <= number <= MOST_CLASSES:
            raise ArtefactError("has labels that are no class", where=path)
        yield suffix, image, number, described


def _rows(piece: list[tuple[str, bytes, int, dict[str, Any]]], path: Path) -> Rows:
    labels = np.array([label for _, _, label, _ in piece], np.int64)
    values = [value for _, _, _, value in piece]
    classes = [""] * int(labels.max() + 1)
    if any(not isinstance(value["class"], str) or any(type(value[k]) is not int for k in NUMBERS) for value in values):
        raise ArtefactError("has descriptions without class, seed, index or attempt", where=path)
    try:
        for label, value in zip(labels.tolist(), values, strict=True):
            classes[label] = value["class"]
        seeds, indices, attempts = (np.array([value[k] for value in values], np.int64) for k in NUMBERS)
        with np.errstate(all="ignore"):
            confidence, nearest, probabilities = (_column(values, k, dimensions) for k, dimensions in SCORES.items())
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtefactError("has descriptions whose numbers cannot be read", where=path) from error
    return Rows(
        [image for _, image, _, _ in piece],
        labels,
        tuple(classes),
        seeds,
        indices,
        attempts,
        confidence=confidence,
        nearest_real=nearest,
        probabilities=probabilities,
        suffix=piece[0][0],
        source=str(values[0]["source"] or "synthetic"),
    )


def _column(values: list[dict[str, Any]], key: str, dimensions: int) -> np.ndarray | None:
    if any(value[key] is None for value in values):
        return None
    found = np.array([value[key] for value in values])
    if found.ndim != dimensions or found.dtype.kind not in "fiu":
        raise ValueError(key)
    return found.astype(np.float16 if dimensions > 1 else np.float32)
