"""Croissant metadata of a set of shards (MLCommons, version 1.1): what loaders and catalogues need to know without opening a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datagen
from datagen import storage
from datagen.formats.names import loader_names
from datagen.records import ShardNote

KINDS = {"parquet": "application/x-parquet", "webdataset": "application/x-tar"}
MARK = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TERMS = (
    "arrayShape",
    "citeAs",
    "column",
    "containedIn",
    "equivalentProperty",
    "extract",
    "field",
    "fileProperty",
    "fileObject",
    "fileSet",
    "format",
    "includes",
    "isArray",
    "isLiveDataset",
    "jsonPath",
    "key",
    "md5",
    "parentField",
    "path",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "separator",
    "source",
    "subField",
    "transform",
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in TERMS},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
}
"""the context that the specification asks for, whole"""
COLUMNS = {"label": "sc:Integer", "class": "sc:Text", "seed": "sc:Integer", "index": "sc:Integer", "attempt": "sc:Integer", "source": "sc:Text"}


def croissant(plan: Mapping[str, Any], notes: Sequence[ShardNote]) -> bytes:
    """Return croissant.json: every shard with its SHA-256, the classes, and for Parquet the columns of the rows.

    Licence and origin are those that were given; nothing is guessed, and no date is written, so that equal orders give equal bytes.
    """
    kind, images = str(plan["format"]), sum(sum(note.rows.values()) for note in notes)
    said = {key: plan[key] for key in ("license", "origin") if plan.get(key)}
    value = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"synthetic-{str(plan['production'])[:16]}",
        "description": f"{images:,} synthetic labelled images of {len(plan['classes']):,} classes, made by datagen {datagen.__version__}.",
        "version": f"0.0.0+{str(plan['production'])[:16]}",
        "creator": {"@type": "sc:Organization", "name": f"datagen {datagen.__version__}"},
        "keywords": ["synthetic"],
        **({"license": said["license"]} if "license" in said else {}),
        **({"isBasedOn": said["origin"]} if "origin" in said else {}),
        **({"digitalSourceType": MARK + str(plan["mark"])} if plan.get("mark") else {}),
        "distribution": _distribution(kind, notes),
        "recordSet": [_labels(plan["classes"]), *([_images()] if kind == "parquet" else [])],
    }
    return storage.to_json(value)


def _distribution(kind: str, notes: Sequence[ShardNote]) -> list[dict[str, Any]]:
    if kind not in KINDS:
        return [{"@type": "cr:FileSet", "@id": "shards", "name": "shards", "encodingFormat": "image/*", "includes": "data/train/**"}]
    files = [
        {"@type": "cr:FileObject", "@id": note.file, "name": note.file, "contentUrl": note.file, "encodingFormat": KINDS[kind], "sha256": note.sha256}
        for note in sorted(notes, key=lambda note: note.id)
    ]
    suffix = "parquet" if kind == "parquet" else "tar"
    return [*files, {"@type": "cr:FileSet", "@id": "shards", "name": "shards", "encodingFormat": KINDS[kind], "includes": f"data/*.{suffix}"}]


def _labels(classes: Sequence[str]) -> dict[str, Any]:
    fields = [_field("labels/label", "sc:Integer"), _field("labels/name", "sc:Text")]
    data = [{"labels/label": label, "labels/name": name} for label, name in enumerate(loader_names(classes))]
    return {
        "@type": "cr:RecordSet",
        "@id": "labels",
        "name": "labels",
        "dataType": "sc:Enumeration",
        "key": {"@id": "labels/label"},
        "field": fields,
        "data": data,
    }


def _images() -> dict[str, Any]:
    def of(column: str, **more: Any) -> dict[str, Any]:
        return {"source": {"fileSet": {"@id": "shards"}, "extract": {"column": column}, **more}}

    fields = [_field("images/image", "sc:ImageObject") | of("image", transform={"jsonPath": "bytes"})]
    fields += [_field(f"images/{name}", kind) | of(name) for name, kind in COLUMNS.items()]
    fields[1] |= {"dataType": ["sc:Integer", "cr:Label"], "references": {"field": {"@id": "labels/label"}}}
    return {"@type": "cr:RecordSet", "@id": "images", "name": "images", "field": fields}


def _field(id: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": id, "name": id, "dataType": kind}
