"""A picture of what a run, shards or a labelled folder hold: images by class."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from datagen import storage
from datagen.errors import ArtefactError, UsageError
from datagen.records import Recipe

if TYPE_CHECKING:
    import numpy as np

CLASSES, EACH = 20, 8


def write(path: str | Path, kind: str, target: Path, recipe: Recipe) -> Path:
    """Write a PNG file of at most 20 classes (rows) and 8 images each (columns) and return its name.

    Args:
        path: what to look at.
        kind: "run", "shards" or "folder".
        target: the file to write; OutputError where it exists.
        recipe: how labelled folders are read.

    Raises:
        UsageError: the target is no .png.
        ArtefactError: a run without samples, or damaged shards.
    """
    if target.suffix.lower() != ".png":
        raise UsageError("is not the name of a PNG file", where=target, hint="--preview FILE.png")
    if kind == "run":
        grids = sorted((Path(path) / "samples").glob("*.png"))
        if not grids:
            raise ArtefactError("has no sample grid", where=path, hint="synthesize some shards and preview those")
        content = grids[-1].read_bytes()
    else:
        from datagen.training.watch import picture

        content = picture(_of_shards(path) if kind == "shards" else _of_folder(Path(path), recipe))
    storage.make_folder(target.parent)
    storage.create(target, content)
    return target


def _chosen(classes: tuple[str, ...]) -> list[int]:
    return list(range(len(classes)))[:: max(1, -(-len(classes) // CLASSES))]


def _grid(found: dict[int, list[np.ndarray]]) -> np.ndarray:
    import numpy as np

    blank = np.zeros_like(next(iter(found.values()))[0])
    return np.stack([np.stack((images + [blank] * EACH)[:EACH]) for _, images in sorted(found.items())])


def _of_shards(path: str | Path) -> np.ndarray:
    from datagen.reading.manifest import open_set
    from datagen.reading.shards import decoded, whole

    opened = open_set(path, allow_partial=True)
    channels, height, width = opened.plan["shape"]
    wanted = set(_chosen(opened.classes))
    found: dict[int, list[np.ndarray]] = defaultdict(list)
    for note in opened.notes:
        with whole(opened, note) as file:
            chosen = [(image, label) for rows in opened.format.read(file) for image, label in zip(rows.images, rows.labels.tolist(), strict=True)]
        for image, label in chosen:
            if label in wanted and len(found[label]) < EACH:
                found[label].append(decoded([image], (height, width, channels), note.file)[0])
        if all(len(found[label]) == EACH for label in wanted):
            break
    if not found:
        raise ArtefactError("has no finished shard yet", where=path, hint="give its synthesize command again")
    return _grid(found)


def _of_folder(path: Path, recipe: Recipe) -> np.ndarray:
    import numpy as np

    from datagen.sources import cache, scan, shape

    data = scan.scan(path, recipe.changed("describe", allow_synthetic=True))
    pixels = cache.pixels(data, shape.plan_shape(data, recipe)[0], recipe)
    return _grid({label: list(pixels[np.flatnonzero(data.labels == label)[:EACH]]) for label in _chosen(data.classes)})
