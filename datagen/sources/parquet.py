"""Labelled Parquet as Hugging Face writes it: which column is which, the rows as images, and the bytes of a row."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.errors import InputError, nearest
from datagen.sources import trust
from datagen.sources.listing import SPLITS, Listing, part_of, parts_said, problem

ROW = re.compile(r"(.*\.parquet)#(\d+)", re.DOTALL | re.IGNORECASE)
IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "class", "target", "category")
_BATCH = 64


@dataclass(frozen=True)
class Columns:
    """Names of the image and label columns of one file, class names by number (None where labels are names), and all columns."""

    image: str
    label: str
    names: tuple[str, ...] | None
    all: tuple[str, ...]


def opened(file: str | Path) -> Any:
    """Return pyarrow's reader of a Parquet file, its page checksums verified; InputError where it is damaged or unreadable."""
    import pyarrow
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (OSError, pyarrow.ArrowException) as error:
        raise _damaged(file, error) from error


def _damaged(file: str | Path, error: Exception) -> InputError:
    return InputError(f"cannot be read as Parquet ({str(error)[:80]})", where=file, hint="copy it again from its source")


def columns_of(file: str | Path, schema: Any) -> Columns:
    """Find the image and the label column by Hugging Face's features, else by type and name.

    Raises:
        InputError: there is none, or several that could be it.
    """
    features = _features(schema)
    images = [name for name in schema.names if _holds_images(schema.field(name).type)]
    by_feature = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    usual = [name for name in LABEL_COLUMNS if name in schema.names]
    image = _one(file, images, IMAGE_COLUMNS, "image", schema.names)
    label = _one(file, by_feature or usual[:1], LABEL_COLUMNS, "label", schema.names)
    names = features.get(label, {}).get("names")
    return Columns(image, label, tuple(map(str, names)) if isinstance(names, list) else None, tuple(schema.names))


def _features(schema: Any) -> Mapping[str, Any]:
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" and _is_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or (types.is_dictionary(kind) and _is_text(kind.value_type)))


def _one(file: str | Path, found: Sequence[str], usual: Sequence[str], what: str, every: Sequence[str]) -> str:
    chosen = [name for name in usual if name in found][:1] or list(found)
    if len(chosen) == 1:
        return chosen[0]
    if not chosen and what == "image" and (texts := [name for name in usual if name in every]):
        raise InputError(f"has text or numbers in the column {texts[0]!r}, no image files", where=file, hint="a column of bytes, each a PNG or JPEG file")
    if not chosen:
        raise InputError(f"has no {what} column", where=file, hint=f"name it {usual[0]!r}; {nearest(usual[0], every)}")
    raise InputError(f"has several columns that could be the {what}: {', '.join(chosen)}", where=file, hint=f"name one {usual[0]!r}")


def list_parquet(root: Path, files: Sequence[str], group: str | None) -> Listing:
    """List the rows of Parquet files as images "FILE#ROW".

    Args:
        root: a Parquet file, or the folder that `files` are relative to.
        files: in the order of reading; a file or folder name that begins with train, test or val says which part it is, or else a column split,
            set, subset or partition that says so of every row.
        group: a column's name, kept where there is one so called.

    Raises:
        InputError: a file is damaged, or its columns are unclear or differ from the other files'.
    """
    base = os.path.realpath(root if root.is_dir() else root.parent)
    listing = Listing(str(root), base)
    parts = [_part(name) for name in files]
    held_back = "test" if "test" in parts else "val"
    for name, part in zip(files, parts, strict=True):
        reader = opened(f"{base}/{name}")
        columns = columns_of(name, reader.schema_arrow)
        if listing.columns and set(listing.columns) != set(columns.all):
            raise InputError("has other columns than the files before it", where=name, hint="give one kind of file at a time")
        listing.columns = columns.all
        _add_rows(listing, name, reader, columns, group, part == held_back and "train" in parts)
    column = next((name for name in listing.columns if name.casefold() in SPLITS), None)
    if column is not None and len(set(parts)) == 1 and (said := parts_said(_said(base, files, column, listing), listing, column)) is not None:
        listing.test = said
    if "train" in parts and held_back in parts:
        listing.notes.append(f"the {held_back} files by name are the test part, the others the training images")
    return listing


def _said(base: str, files: Sequence[str], column: str, listing: Listing) -> list[str]:
    """Return what a column says of each listed row."""
    import pyarrow

    rows = {}
    for name in files:
        try:
            rows[name] = opened(f"{base}/{name}").read(columns=[column]).column(column).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise _damaged(name, error) from error
    return [str(rows[name][int(row)]) for name, _, row in (path.rpartition("#") for path in listing.paths)]


def _part(name: str) -> str:
    stem = re.split(r"[-_.]", os.path.basename(name))[0]
    found = [part for piece in (*os.path.dirname(name).split("/"), stem) if (part := part_of(piece))]
    return found[-1] if found else "train"


def _add_rows(listing: Listing, name: str, reader: Any, columns: Columns, group: str | None, test: bool) -> None:
    import pyarrow

    fields = {name: reader.schema_arrow.field(name).type for name in columns.all if name != columns.label}
    says = trust.COLUMN if trust.COLUMN in fields and _is_text(fields[trust.COLUMN]) else None
    wanted = list(dict.fromkeys([columns.label, *(name for name in (group, says) if name is not None and name in columns.all)]))
    try:
        table = reader.read(columns=wanted)
    except (OSError, pyarrow.ArrowException) as error:
        raise _damaged(name, error) from error
    if group in columns.all and listing.groups is None:
        listing.groups = []
    groups = table.column(group).to_pylist() if listing.groups is not None else []
    sources = table.column(says).to_pylist() if says is not None else []
    for row, value in enumerate(table.column(columns.label).to_pylist()):
        if value is None or (columns.names and value == -1):
            listing.problems.append(problem(f"{name}#{row}", "has no label", "give it one or remove the row"))
            continue
        if columns.names is not None and isinstance(value, int) and not 0 <= value < len(columns.names):
            raise InputError(f"row {row} has label {value}, there are {len(columns.names)} names", where=name, hint="make the file anew")
        if sources and trust.says_so(sources[row]):
            listing.made.add(len(listing.paths))
        listing.paths.append(f"{name}#{row}")
        listing.names.append(str(value) if columns.names is None or not isinstance(value, int) else columns.names[value])
        listing.test.append(test)
        if listing.groups is not None:
            listing.groups.append("" if groups[row] is None else str(groups[row]))


def row_bytes(base: str, name: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes | InputError]]:
    """Yield (row, bytes of the image file) of one Parquet file, in order.

    Args:
        base: folder that `name` is relative to.
        rows: row numbers, ascending.

    Raises:
        InputError: the file is damaged or has fewer rows.
    """
    import pyarrow

    path = f"{base}/{name}"
    reader = opened(path)
    column = columns_of(name, reader.schema_arrow).image
    wanted, given = set(rows), 0
    try:
        for row, value in _values(reader, column, wanted):
            if row in wanted:
                given += 1
                yield row, _content(value)
    except (OSError, pyarrow.ArrowException) as error:
        raise _damaged(path, error) from error
    if given < len(wanted):
        raise InputError("has fewer rows than when it was scanned", where=path, hint="give the same command again")


def _values(reader: Any, column: str, wanted: set[int]) -> Iterator[tuple[int, Any]]:
    start = 0
    for group in range(reader.num_row_groups):
        count = reader.metadata.row_group(group).num_rows
        if not wanted.isdisjoint(range(start, start + count)):
            batches = reader.iter_batches(batch_size=_BATCH, row_groups=[group], columns=[column])
            values = (value.as_py() for batch in batches for value in batch.column(0))
            yield from enumerate(values, start)
        start += count


def _content(value: Any) -> bytes | InputError:
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    return InputError("has no bytes, at most a path", hint="embed the images in the Parquet file")
