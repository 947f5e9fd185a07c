"""Judges a set of shards by code of its own: json, hashlib, pyarrow, tarfile and Pillow, nothing of the product."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

Record = tuple[str, int, bytes]
"""class, index and bytes of the image file"""
NOT_OURS = {"status.json", ".lock"}


def records(out: Path) -> Iterator[Record]:
    """Yield every record that lies below data/, in whatever format it is."""
    import pyarrow.parquet as pq

    classes = json.loads((out / "classes.json").read_bytes())
    for path in sorted((out / "data").glob("*.parquet")):
        for row in pq.read_table(path, page_checksum_verification=True).to_pylist():
            assert classes[row["label"]] == row["class"]
            yield row["class"], row["index"], row["image"]["bytes"]
    for path in sorted((out / "data").glob("*.tar")):
        with tarfile.open(path, "r:") as tar:
            found = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
        for name, content in found.items():
            key, suffix = name.split(".")
            if suffix in {"png", "jpg"}:
                said = json.loads(found[f"{key}.json"])
                assert classes[int(found[f"{key}.cls"])] == said["class"]
                yield said["class"], said["index"], content
    yield from _files(out, classes)


def _files(out: Path, classes: list[str]) -> Iterator[Record]:
    folders = sorted(p for p in (out / "data" / "train").glob("*") if p.is_dir())
    names = {folder.name: name for folder, name in zip(folders, classes, strict=True)} if folders else {}
    for folder in folders:
        for path in sorted(folder.glob("[0-9]*")):
            yield names[folder.name], int(path.stem), path.read_bytes()


def problems(out: Path, counts: dict[str, int], drawn: Callable[[str, int], np.ndarray]) -> list[str]:
    """Return what is wrong with a finished set: of its manifest, its hashes, its records, and what lies about.

    Args:
        out: its folder.
        counts: images of each class that were asked for.
        drawn: returns the pixels uint8 [H, W, C] of a class and an index.
    """
    manifest = _json(out / "manifest.json")
    if not manifest:
        return ["no manifest that can be read"]
    seal = manifest.pop("seal")
    found = [] if hashlib.sha256(_text(manifest)).hexdigest() == seal else ["the manifest's seal"]
    found += [f"{name} differs" for name, sha in manifest["files"].items() if _sha(out / name) != sha]
    for note in manifest["shards"]:
        found += _shard(out, note)
    found += [f"temporary {path}" for path in left_over(out)]
    known = {note["file"] for note in manifest["shards"]} | {f"data/{name}" for name in left_over(out)}
    if manifest["format"] != "folder":
        found += [f"stranger {path.name}" for path in (out / "data").rglob("*") if path.is_file() and f"data/{path.name}" not in known]
    return found + _records(out, counts, drawn)


def uncommitted(out: Path) -> list[str]:
    """Return notes of a set, finished or not, whose shard or one of whose images is not there whole; an empty note is a claimed name."""
    import pyarrow.parquet as pq

    found = []
    for path in [path for path in sorted(out.glob(".datagen/notes/[0-9]*.json")) if path.stat().st_size]:
        note = _json(path)
        if not note or _sha(out / note["file"]) != note["sha256"]:
            found.append(f"{path.name} stands for a shard that is not there")
        elif note["file"].startswith(".datagen/"):
            rows = pq.read_table(out / note["file"]).to_pylist()
            found += [f"{path.name} stands for {row['file']}, which is not there" for row in rows if _sha(out / row["file"]) != row["sha256"]]
    return found


def left_over(folder: Path) -> list[str]:
    """Return files whose names say that they are temporary."""
    return [name for _, _, names in os.walk(folder) for name in names if name.startswith(".tmp-")]


def _shard(out: Path, note: dict) -> list[str]:
    sealed = _json(out / f".datagen/notes/{note['id']:05d}.json")
    sealed.pop("seal", None)
    found = [] if sealed == note else [f"note {note['id']} differs"]
    return found if _sha(out / note["file"]) == note["sha256"] else [*found, f"shard {note['file']} differs"]


def _records(out: Path, counts: dict[str, int], drawn: Callable[[str, int], np.ndarray]) -> list[str]:
    seen: dict[tuple[str, int], bytes] = {}
    found = []
    try:
        for name, index, content in records(out):
            found += [f"{name}/{index} is there twice"] * ((name, index) in seen)
            seen[name, index] = content
    except Exception as error:
        return [f"cannot be read: {error!r}"]
    wanted = {(name, index) for name, count in counts.items() for index in range(count)}
    found += [f"{key} is missing" for key in sorted(wanted - set(seen))] + [f"{key} is too much" for key in sorted(set(seen) - wanted)]
    for (name, index), content in seen.items():
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        found += [f"{name}/{index} has other pixels"] * (not np.array_equal(pixels, drawn(name, index).squeeze()))
    return found


def _json(path: Path) -> dict:
    """Return the mapping in a file; an empty one where there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: dict) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else "none"
