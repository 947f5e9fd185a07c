"""One folder a class as torchvision's ImageFolder reads it; where the images came from is listed apart, a Parquet file a shard."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from datagen import untrusted
from datagen.contracts import Rows
from datagen.errors import ArtefactError
from datagen.formats import columns, names
from datagen.formats.parquet import batches, count, damage, writer

TRAIN = "data/train"
SHA256 = re.compile("[0-9a-f]{64}")
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
        root = file.parent.parent.parent
        for batch in _batches(file):
            classes, suffix = columns.own_metadata(batch.schema, file)
            pairs = zip(batch.column("file").to_pylist(), batch.column("sha256").to_pylist(), strict=True)
            images = [untrusted.checked(root / name, sha256, root, of="list") for name, sha256 in pairs]
            with damage(file):
                rows = columns.rows_of(batch, images, classes, suffix, file)
            yield rows

    def count(self, file: Path) -> int:
        """Return the number of images of the list."""
        return count(file)


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    for batch in batches(file):
        with damage(file):
            names, hashes = (batch.column(name).to_pylist() for name in ("file", "sha256"))
            good = all(untrusted.plain(name) and name.startswith(f"{TRAIN}/") for name in names) and all(SHA256.fullmatch(each or "") for each in hashes)
        if not good:
            raise ArtefactError("lists a name outside its set, or no hash", where=file)
        yield batch
