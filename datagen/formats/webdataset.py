"""Tar shards as webdataset reads them: KEY.png, KEY.cls and KEY.json of each image, equal bytes for equal rows."""

from __future__ import annotations

import functools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from datagen.contracts import Rows
from datagen.errors import ArtefactError
from datagen.formats import names

BLOCK = 512
PIECE = 4096
LARGEST = 1 << 28


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
        for sample in _samples(file):
            piece.append(sample)
            if len(piece) == PIECE:
                yield _rows(piece, file)
                piece = []
        if piece:
            yield _rows(piece, file)

    def count(self, file: Path) -> int:
        """Return the number of images."""
        return sum(name.endswith(".cls") for name, _ in members(file))


def _scores(rows: Rows, row: int) -> str:
    confidence, nearest = (None if column is None else float(column[row]) for column in (rows.confidence, rows.nearest_real))
    probabilities = None if rows.probabilities is None else [float(p) for p in rows.probabilities[row]]
    if confidence is nearest is probabilities is None:
        return '"confidence": null, "probabilities": null, "nearest_real": null'
    return json.dumps({"confidence": confidence, "probabilities": probabilities, "nearest_real": nearest})[1:-1]


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each member of a tar of ours; ArtefactError at anything but plain files, or where it was cut."""
    try:
        with open(path, "rb") as file:
            while (head := _exactly(file, BLOCK, path)) != bytes(BLOCK):
                name, size = _parsed(head, path)
                content = _exactly(file, size, path)
                if any(_exactly(file, -size % BLOCK, path)):
                    raise ArtefactError("is damaged: bytes between members", where=path)
                yield name, content
            if file.read() != bytes(BLOCK):
                raise ArtefactError("is cut or has bytes after its end", where=path)
    except OSError as error:
        raise ArtefactError(error.strerror or "cannot be read", where=path) from error


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise ArtefactError("is cut", where=path, hint="datagen describe --verify names what is damaged")
    return content


def _parsed(head: bytes, path: Path) -> tuple[str, int]:
    try:
        name, size = head[:100].rstrip(b"\0").decode("ascii"), int(head[124:135], 8)
        whole = head == header(name, size)
    except ValueError:
        whole, name, size = False, "", 0
    if not whole or size > LARGEST or "/" in name or name.count(".") != 1:
        raise ArtefactError("holds something else than the plain members of a shard", where=path)
    return name, size


def _samples(path: Path) -> Iterator[tuple[str, bytes, int, dict[str, Any]]]:
    """Yield suffix, image, label and the values of KEY.json of each image."""
    found = members(path)
    for name, image in found:
        key, suffix = name.split(".")
        (second, label), (third, text) = next(found, ("", b"")), next(found, ("", b""))
        if suffix not in {"png", "jpg"} or second != f"{key}.cls" or third != f"{key}.json":
            raise ArtefactError(f"does not hold {key}.cls and {key}.json after {name}", where=path)
        try:
            yield suffix, image, int(label), dict(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise ArtefactError(f"has a label or description of {key} that cannot be read", where=path) from error


def _rows(piece: list[tuple[str, bytes, int, dict[str, Any]]], path: Path) -> Rows:
    labels = np.array([label for _, _, label, _ in piece], np.int64)
    values = [value for _, _, _, value in piece]
    if labels.min() < 0 or labels.max() > 10**6:
        raise ArtefactError("has labels that are no class", where=path)
    classes = [""] * int(labels.max() + 1)
    try:
        for label, value in zip(labels.tolist(), values, strict=True):
            classes[label] = str(value["class"])
        seeds, indices, attempts = (np.array([int(v[k]) for v in values], np.int64) for k in ("seed", "index", "attempt"))
        confidence, nearest, probabilities = (_column(values, k) for k in ("confidence", "nearest_real", "probabilities"))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise ArtefactError("has descriptions without class, seed, index or attempt", where=path) from error
    return Rows(
        [image for _, image, _, _ in piece],
        labels,
        tuple(classes),
        seeds,
        indices,
        attempts,
        confidence=confidence,
        nearest_real=nearest,
        probabilities=None if probabilities is None else probabilities.astype(np.float16),
        suffix=piece[0][0],
        source=str(values[0].get("source", "synthetic")),
    )


def _column(values: list[dict[str, Any]], key: str) -> np.ndarray | None:
    return None if any(value.get(key) is None for value in values) else np.array([value[key] for value in values], np.float32)
