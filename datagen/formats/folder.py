"""One folder a class as torchvision's ImageFolder reads it; where the images came from is listed apart, a Parquet file a shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from datagen.contracts import Rows
from datagen.errors import ArtefactError
from datagen.formats import columns, names
from datagen.formats.parquet import READ_ROWS, damage, writer

TRAIN = "data/train"
FIRST = [("file", pa.string()), ("sha256", pa.string())]


def image_names(rows: Rows) -> list[str]:
    """Return data/train/CLASS/INDEX.png of each row."""
    folders = names.class_folders(rows.classes)
    return [f"{TRAIN}/{folders[label]}/{index:08d}.{rows.suffix}" for label, index in zip(rows.labels.tolist(), rows.indices.tolist(), strict=True)]


class Folder:
    """Image files in a folder a class, listed with their hashes in .datagen/notes."""

    suffix = ""

    def name(self, id: int, count: int) -> str:
        """Return the name of the list of the shard's images."""
        return f".datagen/notes/{id:05d}.parquet"

    def files(self, rows: Rows) -> Iterator[tuple[str, bytes]]:
        """Yield data/train/CLASS/INDEX.png and its bytes for each row."""
        return zip(image_names(rows), rows.images, strict=True)

    def listed(self, file: Path) -> Iterator[tuple[str, str]]:
        """Yield name and SHA-256 of each image of the list."""
        for batch in _batches(file):
            yield from zip(batch.column("file").to_pylist(), batch.column("sha256").to_pylist(), strict=True)

    def write(self, file: BinaryIO, rows: Rows) -> None:
        """Write the list of the rows: name, SHA-256 and all columns but the image."""
        hashes = [hashlib.sha256(image).hexdigest() for image in rows.images]
        schema = columns.schema(rows.classes, rows.suffix, FIRST, image=False)
        first = [pa.array(image_names(rows), pa.string()), pa.array(hashes, pa.string())]
        with writer(file, schema) as out:
            out.write_table(pa.Table.from_arrays([*first, *columns.arrays(rows)], schema=schema))

    def read(self, file: Path) -> Iterator[Rows]:
        """Yield the rows with their images, each compared with its hash; ROOT is two folders above the list's."""
        with damage(file):
            classes, suffix = columns.own_metadata(pq.read_schema(file), file)
        root = file.parent.parent.parent
        for batch in _batches(file):
            pairs = zip(batch.column("file").to_pylist(), batch.column("sha256").to_pylist(), strict=True)
            yield columns.rows_of(batch, [read_image(root, name, sha) for name, sha in pairs], classes, suffix, file)

    def count(self, file: Path) -> int:
        """Return the number of images of the list."""
        with damage(file):
            return int(pq.read_metadata(file).num_rows)


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    with damage(file), pq.ParquetFile(file, page_checksum_verification=True) as found:
        for batch in found.iter_batches(READ_ROWS, use_threads=False):
            if any(not plain(name) for name in batch.column("file").to_pylist()):
                raise ArtefactError("lists a name outside its set", where=file)
            yield batch


def plain(name: object) -> bool:
    """Whether a name from a file is relative, without empty parts, "." or "..", backslashes or NUL."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name


def read_image(root: Path, name: str, sha256: str) -> bytes:
    """Return the bytes of one image of a set; links are not followed, ArtefactError where it is missing or differs."""
    path = root / name
    try:
        if path.is_symlink():
            raise ArtefactError("is a link", where=path)
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactError(error.strerror or "cannot be read", where=path) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArtefactError("is damaged: its SHA-256 differs from the list's", where=path)
    return content
