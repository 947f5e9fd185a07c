"""Real and synthetic images in one labelled folder, for a training script that reads nothing else."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datagen import holding, seeds, storage
from datagen.errors import InputError, OutputError, nearest
from datagen.formats import encode
from datagen.formats.names import key
from datagen.progress import Progress
from datagen.reading.located import Found, locate
from datagen.reading.manifest import is_set, open_set
from datagen.sources.whole import without_tail

LIST = "merged.json"


def merge(shards: str | Path, real: str | Path, out: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Write real and synthetic images as one folder with a folder a class, every image file as it is, without what hangs on behind its end.

    Class folders are those of the real images, also where the shards have no image of a class, so that labels stay the same. The
    folder appears when it is whole; the same call continues one that was stopped, and says of a finished one that it is. A train/ inside
    `real` is taken alone.

    Args:
        shards: a finished set of shards.
        real: labelled folder.
        out: new or empty folder.
        progress: where to say what is going on; None is quiet.

    Returns:
        out, images, real, synthetic, classes (both numbers of each), finished (it was there already), seconds.

    Raises:
        InputError: a synthetic class is none of the real ones, REAL is a set of shards, or holds files of an earlier merge.
        ArtefactError: the shards are damaged or not finished.
        OutputError: the folder is not empty or lies inside one that is read, or the disk fails.
    """
    progress, began, target = progress or Progress(quiet=True), time.monotonic(), Path(out)
    if is_set(real):
        raise InputError("is a set of shards, no labelled folder", where=real, hint="datagen export REAL --format folder, and merge with its data/train")
    made, known = locate(shards), locate(real)
    names, manifest = _names(known, made), open_set(shards).manifest
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise InputError(f"has a file that is called as a synthetic one will be ({twice[0]})", where=real, hint="merge with the real images alone")
    for source in (Path(shards), Path(real)):
        if source.resolve() in [target.resolve(), *target.resolve().parents]:
            raise OutputError("lies inside a folder that is read", where=out, hint="give a folder outside of it to --out")
    counts, production = _counts(known, made, real), manifest["production"] if manifest else None
    key_of = seeds.digest("merge", str(production), str(Path(real).resolve()), *names).hex()[:16]
    finished = _holds(target, key_of, zip(names, _contents(known, made, Progress(quiet=True)), strict=True))
    total = {kind: sum(each[kind] for each in counts.values()) for kind in ("real", "synthetic")}
    told = {"out": str(out), "images": sum(total.values()), **total, "classes": counts, "finished": finished}
    if finished:
        progress.say(f"{target} is finished already; nothing to do")
        return told | {"seconds": round(time.monotonic() - began, 3)}
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise OutputError("is there already and not empty", where=out, hint="give a new folder to --out")
    storage.make_folder(target.absolute().parent)
    begun = target.absolute().parent / f".{target.name}.{key_of}.merging"
    storage.make_folder(begun)
    with holding.lock(begun), progress.stage("images", len(known.labels) + len(made.labels), 0):
        for name in known.classes:
            storage.make_folder(begun / name)
        storage.create_all(begun, zip(names, _contents(known, made, progress), strict=True))
        storage.write_json(begun / LIST, {"schema": 1, "classes": counts, "production": production, "key": key_of})
    storage.sweep(begun)
    storage.remove(begun / ".lock")
    storage.rename_folder(begun, target)
    return told | {"seconds": round(time.monotonic() - began, 3)}


def _counts(real: Found, made: Found, where: str | Path) -> dict[str, dict[str, int]]:
    """Return how many real and synthetic images each class has; InputError where a synthetic one is none of the real ones."""
    counts = {name: {"real": int((real.labels == label).sum()), "synthetic": 0} for label, name in enumerate(real.classes)}
    for label, name in enumerate(made.classes):
        if count := int((made.labels == label).sum()):
            if name not in counts:
                raise InputError(f"class {name!r} of the shards is none of the real ones", where=where, hint=nearest(name, counts))
            counts[name]["synthetic"] = count
    return counts


def _holds(target: Path, key_of: str, files: Iterator[tuple[str, bytes]]) -> bool:
    """Whether a folder is this very merge, finished, and all its files are as they would be written."""
    if not (target / LIST).is_file():
        return False
    told = storage.read_json(target / LIST)
    if not isinstance(told, dict) or told.get("key") != key_of:
        return False
    return all((target / name).is_file() and (target / name).read_bytes() == content for name, content in files)


def _names(real: Found, made: Found) -> list[str]:
    """Return the name of every file: real ones their own, synthetic ones CLASS/synthetic-LABEL-INDEX."""
    names = [os.path.relpath(real.name(row), real.root) for row in range(len(real.labels))]
    taken: Counter[int] = Counter()
    for row, label in enumerate(made.labels.tolist()):
        suffix = encode.SUFFIXES["png" if made.content(row).startswith(encode.SIGNATURE) else "jpeg"]
        names.append(f"{made.classes[label]}/synthetic-{key(label, taken[label])}.{suffix}")
        taken[label] += 1
    return names


def _contents(real: Found, made: Found, progress: Progress) -> Iterator[bytes]:
    """Yield the bytes of every file in the order of `_names`, real ones without a tail that is no part of the image."""
    cut = 0
    for source in (real, made):
        for row in range(len(source.labels)):
            content = source.content(row)
            image = without_tail(content) if source is real else content
            cut += len(image) < len(content)
            yield image
            progress.advance(1)
    if cut:
        progress.warn(f"{cut:,} real files hold more behind the end of the image; it was left out")
