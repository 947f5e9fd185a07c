"""The dataset card (README.md) that tells Hugging Face datasets and people what a set of shards holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from datagen.formats.columns import features
from datagen.formats.names import class_folders, loader_names
from datagen.pages.markdown import plain
from datagen.records import ShardNote

PATTERNS = {"parquet": "data/train-*.parquet", "webdataset": "data/train-*.tar", "folder": "data/train/**"}
ADDRESS = re.compile(r"https?://[\w./%-]+")
"""shown as it is; what else is said of the real images is escaped"""
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def dataset_card(plan: Mapping[str, Any], notes: Sequence[ShardNote]) -> bytes:
    """Return README.md: a YAML head with the data files by pattern and the names of the classes, then a page for people."""
    images = sum(sum(note.rows.values()) for note in notes)
    classes, kind = list(plan["classes"]), str(plan["format"])
    size = next((name for limit, name in SIZES if images < limit), "n>10M")
    names = class_folders(classes) if kind == "folder" else loader_names(classes)
    names = loader_names(names)
    lines = [
        "---",
        *([f"license: {text(plan['license'])}"] if plan.get("license") else []),
        "task_categories:",
        "- image-classification",
        "size_categories:",
        f"- {size}",
        "tags:",
        "- synthetic",
    ]
    lines += ["configs:", "- config_name: default", "  data_files:", "  - split: train", f"    path: {text(PATTERNS.get(kind, 'data/**'))}"]
    lines += ["dataset_info:", "  features:", *_features(kind, names, str(plan["suffix"])), "---", ""]
    lines += ["# Synthetic images", "", *_page(plan, images), ""]
    return "\n".join(lines).encode("utf-8")


def _features(kind: str, names: Sequence[str], suffix: str) -> list[str]:
    label = ["    dtype:", "      class_label:", "        names:", *(f"          '{i}': {text(name)}" for i, name in enumerate(names))]
    image = "image" if kind != "webdataset" else suffix
    lines = [f"  - name: {image}", "    dtype: image", f"  - name: {'cls' if kind == 'webdataset' else 'label'}", *label]
    if kind == "folder":
        return lines
    plain = [(name, feature) for name, feature in features(names).items() if name != "label"]
    if kind == "webdataset":
        return [*lines, "  - name: json", "    struct:", *_plain(plain, "    "), *_plain([(n, {"dtype": "string"}) for n in ("__key__", "__url__")], "  ")]
    return [*lines, *_plain(plain, "  ")]


def _plain(columns: Sequence[tuple[str, Any]], indent: str) -> list[str]:
    lines = []
    for name, feature in columns:
        inner = feature.get("feature")
        lines += [f"{indent}- name: {name}", f"{indent}  sequence: {inner['dtype']}" if inner else f"{indent}  dtype: {feature['dtype']}"]
    return lines


def _page(plan: Mapping[str, Any], images: int) -> list[str]:
    channels, height, width = plan["shape"]
    what = "drawn by a rule" if plan["source"] == "rule" else "computed by a generator that was fitted to real images"
    copies = {
        "thrown away": "Images that nearly repeat a training image were thrown away while they were made.",
        "none": "They repeat no image, as none was learnt from.",
    }
    near = str(plan.get("near_copies", "not looked for"))
    return [
        f"{images:,} labelled images of {len(plan['classes']):,} classes, {height} x {width} pixels, {'grey' if channels == 1 else 'RGB'},",
        f"{what}. None of them is a photograph. Made by datagen; production `{plan['production'][:16]}`, seed {plan['seed']}.",
        "",
        *_marked(str(plan.get("mark", ""))),
        *([f"The real images: {_said(str(plan['origin']))}.", ""] if plan.get("origin") else []),
        copies.get(near, f"Near-copies of training images were {plain(near)}."),
        *(["", f"Evaluated with images of the same generator and settings: {plain(str(plan['verdict']))}"] if plan.get("verdict") else []),
        "",
        "`manifest.json` lists every shard with its SHA-256; `classes.json` has the class of each label.",
    ]


def _marked(mark: str) -> list[str]:
    if not mark:
        return ["The image files carry no mark that says so; `source` in every row does.", ""]
    return [f"Every image file says so: its XMP has the IPTC digital source type `{mark}`.", ""]


def _said(origin: str) -> str:
    return origin if ADDRESS.fullmatch(origin) else plain(origin)


def text(value: str) -> str:
    """Return a string as a YAML double-quoted scalar, everything that is not printable escaped."""
    out = []
    for char in value:
        code = ord(char)
        if char.isprintable() and code < 0xD800:
            out.append("\\" + char if char in '"\\' else char)
        else:
            out.append(f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}")
    return '"' + "".join(out) + '"'
