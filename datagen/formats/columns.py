"""The columns of a set as an Arrow table: names and types as Hugging Face datasets, pandas and pyarrow read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from datagen.contracts import Rows
from datagen.errors import ArtefactError
from datagen.formats.names import loader_names

PLAIN: dict[str, tuple[pa.DataType, Any]] = {
    "seed": (pa.int64(), {"dtype": "int64", "_type": "Value"}),
    "index": (pa.int64(), {"dtype": "int64", "_type": "Value"}),
    "attempt": (pa.int64(), {"dtype": "int64", "_type": "Value"}),
    "source": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "confidence": (pa.float32(), {"dtype": "float32", "_type": "Value"}),
    "probabilities": (pa.list_(pa.float16()), {"feature": {"dtype": "float16", "_type": "Value"}, "_type": "Sequence"}),
    "nearest_real": (pa.float32(), {"dtype": "float32", "_type": "Value"}),
}
"""columns after label and class: Arrow type and Hugging Face feature"""
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
OWN = b"datagen"


def features(classes: Sequence[str]) -> dict[str, Any]:
    """Return the Hugging Face features of the columns after the image."""
    label = {"names": list(loader_names(classes)), "_type": "ClassLabel"}
    return {"label": label, "class": {"dtype": "string", "_type": "Value"}} | {name: feature for name, (_, feature) in PLAIN.items()}


def schema(classes: Sequence[str], suffix: str, first: Sequence[tuple[str, pa.DataType]], image: bool) -> pa.Schema:
    """Return the schema: the first columns, label, class, and the plain ones, with metadata for Hugging Face and for ourselves.

    Args:
        classes: every class of the set.
        suffix: of the image files.
        first: columns before the label.
        image: whether the first column is a Hugging Face Image.
    """
    fields = [*first, ("label", pa.int64()), ("class", pa.string()), *((name, kind) for name, (kind, _) in PLAIN.items())]
    metadata = {OWN: json.dumps({"classes": list(classes), "suffix": suffix}).encode("ascii")}
    if image:
        described = {"image": {"_type": "Image"}, **features(classes)}
        metadata[b"huggingface"] = json.dumps({"info": {"features": described}}).encode("ascii")
    return pa.schema(fields, metadata=metadata)


def arrays(rows: Rows) -> list[pa.Array]:
    """Return label, class and the plain columns of the rows as Arrow arrays, null where nothing scored them."""
    count, names = len(rows.labels), loader_names(rows.classes)
    classes = pa.DictionaryArray.from_arrays(pa.array(rows.labels, pa.int32()), pa.array(names, pa.string())).cast(pa.string())
    found = [pa.array(rows.labels, pa.int64()), classes]
    values: dict[str, Any] = {"seed": rows.seeds, "index": rows.indices, "attempt": rows.attempts, "source": pa.repeat(rows.source, count)}
    values |= {"confidence": rows.confidence, "nearest_real": rows.nearest_real, "probabilities": _lists(rows.probabilities)}
    for name, (kind, _) in PLAIN.items():
        value = values[name]
        found.append(pa.nulls(count, kind) if value is None else value if isinstance(value, pa.Array) else pa.array(value, kind))
    return found


def _lists(matrix: np.ndarray | None) -> pa.Array | None:
    if matrix is None:
        return None
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix, np.float16).reshape(-1)))


def own_metadata(found: pa.Schema, where: object) -> tuple[tuple[str, ...], str]:
    """Return (classes, suffix) from a schema of ours; ArtefactError where it is another's."""
    try:
        value = json.loads((found.metadata or {})[OWN])
        classes, suffix = tuple(map(str, value["classes"])), str(value["suffix"])
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ArtefactError("is no shard of datagen", where=where) from error
    wanted = {"label": pa.int64(), "class": pa.string()} | {name: kind for name, (kind, _) in PLAIN.items()}
    if any(name not in found.names or found.field(name).type != kind for name, kind in wanted.items()):
        raise ArtefactError("has other columns than a shard of datagen", where=where)
    return classes, suffix


def rows_of(batch: pa.RecordBatch, images: Sequence[bytes], classes: tuple[str, ...], suffix: str, where: object) -> Rows:
    """Return the rows of a record batch with their images; ArtefactError where a label is no class."""
    labels = _numbers(batch, "label", np.int64)
    sources = batch.column("source")
    if labels is None or (len(labels) and not 0 <= labels.min() <= labels.max() < len(classes)):
        raise ArtefactError("has labels that are no class", where=where)
    columns = {name: _numbers(batch, name, np.int64) for name in ("seed", "index", "attempt")}
    if any(column is None for column in columns.values()):
        raise ArtefactError("has rows without seed, index or attempt", where=where)
    probabilities = batch.column("probabilities")
    matrix = None if probabilities.null_count else probabilities.flatten().to_numpy(zero_copy_only=False).reshape(len(labels), -1)
    return Rows(
        images,
        labels,
        classes,
        columns["seed"],
        columns["index"],
        columns["attempt"],
        confidence=_numbers(batch, "confidence", np.float32),
        nearest_real=_numbers(batch, "nearest_real", np.float32),
        probabilities=matrix,
        suffix=suffix,
        source=str(sources[0]) if len(labels) else "synthetic",
    )


def _numbers(batch: pa.RecordBatch, name: str, kind: type) -> Any:
    column = batch.column(name)
    return None if column.null_count else np.asarray(column.to_numpy(zero_copy_only=False), kind)
