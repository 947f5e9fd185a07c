"""Parquet shards as Hugging Face datasets reads and writes them, with page checksums."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from datagen import untrusted
from datagen.contracts import Rows
from datagen.errors import ArtefactError
from datagen.formats import columns, names

GROUP_BYTES = 100_000_000
GROUP_ROWS = 1024
READ_ROWS = 1024
LARGEST_GROUP = 4 * GROUP_BYTES
DICTIONARIES = ("class", "source")
"""columns that are stored as references to a few values"""


@contextlib.contextmanager
def damage(file: Path) -> Iterator[None]:
    """Turn what Arrow says about a damaged file into an ArtefactError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise ArtefactError("cannot be read as Parquet", where=file, hint="datagen describe --verify names what is damaged") from error


def writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer with the settings of every Parquet file of ours: zstd level 1, page checksums, few dictionaries."""
    return pq.ParquetWriter(file, schema, compression="zstd", compression_level=1, write_page_checksum=True, use_dictionary=list(DICTIONARIES))


def groups(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of row groups of at most 1,024 rows and 100 MB of images; one row at least each."""
    first = total = 0
    for row, size in enumerate(sizes):
        if row > first and (total + size > GROUP_BYTES or row - first >= GROUP_ROWS):
            yield first, row
            first, total = row, 0
        total += size
    if first < len(sizes):
        yield first, len(sizes)


def batches(file: Path) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows by 1,024, page checksums verified.

    Raises:
        ArtefactError: the file is damaged, a link, or has columns of other types than ours or row groups that are too large.
    """
    with untrusted.opened(file) as source, damage(file), pq.ParquetFile(source, page_checksum_verification=True) as found:
        columns.own_metadata(found.schema_arrow, file)
        sizes = [found.metadata.row_group(group).total_byte_size for group in range(found.metadata.num_row_groups)]
        if max(sizes, default=0) > LARGEST_GROUP:
            raise ArtefactError(f"has row groups above {LARGEST_GROUP:,} bytes", where=file)
        for group in range(len(sizes)):
            _open_columns(found, group)
        if repeated := _repeated(found.metadata):
            raise ArtefactError(f"stores column {repeated!r} as references to a few values, which ours never are", where=file)
        yield from found.iter_batches(READ_ROWS, use_threads=False)


def _open_columns(found: pq.ParquetFile, group: int) -> None:
    """Read the first row, so that Arrow says what is wrong with the columns' metadata: where it is asked for these themselves, that ends the process."""
    next(found.iter_batches(1, row_groups=[group], use_threads=False), None)


def _repeated(metadata: pq.FileMetaData) -> str:
    """Return the name of a column that a few bytes can make large, as one value may stand for many rows; "" where there is none."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(metadata.num_columns)]
    return next((chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page and chunk.path_in_schema not in DICTIONARIES), "")


def count(file: Path) -> int:
    """Return the number of rows from the footer; raises as `batches`."""
    with untrusted.opened(file) as source, damage(file):
        return int(pq.read_metadata(source).num_rows)


class Parquet:
    """One Parquet file a shard, with an Image and a ClassLabel column for Hugging Face datasets."""

    suffix = ".parquet"

    def name(self, id: int, count: int) -> str:
        """Return data/train-00000-of-00012.parquet."""
        return f"data/train-{id:05d}-of-{count:05d}.parquet"

    def files(self, rows: Rows) -> Iterator[tuple[str, bytes]]:
        """Yield nothing; all is in one file."""
        return iter(())

    def listed(self, file: Path) -> Iterator[tuple[str, str]]:
        """Yield nothing; all is in one file."""
        return iter(())

    def write(self, file: BinaryIO, rows: Rows) -> None:
        """Write the rows as one file, row groups of at most 1,024 images and 100 MB."""
        schema = columns.schema(rows.classes, rows.suffix, [("image", columns.IMAGE)], image=True)
        paths = [f"{names.key(label, index)}.{rows.suffix}" for label, index in zip(rows.labels.tolist(), rows.indices.tolist(), strict=True)]
        plain = columns.arrays(rows)
        with writer(file, schema) as out:
            for first, end in groups([len(image) for image in rows.images]):
                encoded = pa.array(rows.images[first:end], pa.binary())
                image = pa.StructArray.from_arrays([encoded, pa.array(paths[first:end], pa.string())], fields=list(columns.IMAGE))
                part = [image, *(column.slice(first, end - first) for column in plain)]
                out.write_table(pa.Table.from_arrays(part, schema=schema), row_group_size=end - first)

    def read(self, file: Path) -> Iterator[Rows]:
        """Yield the rows in pieces of 1,024, page checksums verified; ArtefactError where the file is damaged."""
        for batch in batches(file):
            classes, suffix = columns.own_metadata(batch.schema, file)
            with damage(file):
                images: list[Any] = batch.column("image").field("bytes").to_pylist()
                if not all(isinstance(image, bytes) for image in images):
                    raise ArtefactError("has rows without an image", where=file)
                rows = columns.rows_of(batch, images, classes, suffix, file)
            yield rows

    def count(self, file: Path) -> int:
        """Return the number of rows from the footer."""
        return count(file)
