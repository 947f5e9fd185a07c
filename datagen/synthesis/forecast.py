"""Says before the work whether the disk has room, from a few images made and written in memory."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from datagen.contracts import Format, Rows
from datagen.errors import OutputError
from datagen.formats import encode
from datagen.places import Place
from datagen.records import ShardTask
from datagen.synthesis.heartbeat import beat

if TYPE_CHECKING:
    from datagen.synthesis.worker import ShardMaker

PROBED_TILES = 4
PROBED_IMAGES = 16
DISK_BLOCK = 4096
MARGIN = 1.1


@dataclass(frozen=True)
class Probed:
    """What a few images take on disk: bytes and files of an image, bytes of a shard without any."""

    image: float
    files: float
    shard: int


def probing(tasks: Sequence[ShardTask]) -> ShardTask:
    """Return the task of computing a few images of tiles spread over the tasks, in the name of the first of them."""
    tiles = [tile for task in tasks[:: max(1, len(tasks) // PROBED_TILES)][:PROBED_TILES] for tile in task.tiles]
    some = tiles[:: max(1, len(tiles) // PROBED_TILES)][:PROBED_TILES]
    return ShardTask(tasks[0].id, tasks[0].file, tuple((label, first, min(wanted, PROBED_IMAGES)) for label, first, wanted in some), probe=True)


def probe(maker: ShardMaker, task: ShardTask) -> Probed:
    """Return what the images of a task from `probing` take, made and written in memory."""
    images, labels, format = [], [], maker.writer()
    for label, first, wanted in task.tiles:
        found = encode.encode(maker.painted(label, first, wanted).images, maker.encoder, maker.mark)
        beat(0)
        images += found
        labels += [label] * len(found)
    numbers = np.arange(len(images), dtype=np.int64)
    rows = Rows(images, np.array(labels, np.int64), maker.plan.classes, numbers, numbers, numbers, suffix=encode.SUFFIXES[maker.encoder])
    (whole, files), (shard, _) = on_disk(format, rows), on_disk(format, _first(rows, 0))
    return Probed((whole - shard) / len(images), files / len(images), shard)


def require(out: Place, probed: Probed, tasks: Sequence[ShardTask]) -> None:
    """Raise OutputError, with need and free, where the place has too few bytes or inodes left for the tasks."""
    need, files = needs(probed, tasks)
    free, inodes = out.free()
    if need > free:
        raise OutputError(f"needs {size(need)}, {size(free)} are free", where=out, hint="free some space, give another --out, or fewer images")
    if files > inodes:
        raise OutputError(f"needs {files:,} files, the disk has room for {inodes:,}", where=out, hint="--format parquet takes one file a shard")


def needs(probed: Probed, tasks: Sequence[ShardTask]) -> tuple[int, int]:
    """Return bytes on disk, a tenth more than expected, and files that the tasks will take."""
    images = sum(wanted for task in tasks for _, _, wanted in task.tiles)
    return int((images * probed.image + len(tasks) * (probed.shard + 2 * DISK_BLOCK)) * MARGIN), int(images * probed.files) + 2 * len(tasks) + 8


def expected(maker: ShardMaker, tasks: Sequence[ShardTask], workers: int) -> dict[str, Any]:
    """Return what the tasks will take, by a few tiles that are made in memory.

    Args:
        maker: makes their images.
        tasks: at least one.
        workers: that make them side by side.

    Returns:
        bytes (a tenth more than expected), objects (files), seconds without start-up, and "binds": which of sampling, encoding and writing
        takes the largest share of a worker's time, with that share.
    """
    spent, format = dict.fromkeys(("sampling", "encoding", "writing"), 0.0), maker.writer()
    tiles = [task.tiles[0] for task in tasks[:: max(1, len(tasks) // PROBED_TILES)][:PROBED_TILES]]
    maker.painted(*tiles[0])
    for label, first, wanted in tiles:
        moments = [time.perf_counter()]
        images = maker.painted(label, first, wanted).images
        moments.append(time.perf_counter())
        files = encode.encode(images, maker.encoder, maker.mark)
        moments.append(time.perf_counter())
        numbers = np.arange(wanted, dtype=np.int64)
        rows = Rows(files, np.full(wanted, label), maker.plan.classes, numbers, numbers, numbers, suffix=encode.SUFFIXES[maker.encoder])
        on_disk(format, rows)
        moments.append(time.perf_counter())
        for name, took in zip(spent, np.diff(moments).tolist(), strict=True):
            spent[name] += took
    need, objects = needs(probe(maker, probing(tasks)), tasks)
    binds = max(spent, key=lambda name: spent[name])
    seconds = sum(spent.values()) / sum(tile[2] for tile in tiles) * sum(tile[2] for task in tasks for tile in task.tiles) / workers
    return {"bytes": need, "objects": objects, "seconds": round(seconds, 1), "binds": f"{binds} ({100 * spent[binds] / sum(spent.values()):.0f} %)"}


def on_disk(format: Format, rows: Rows) -> tuple[int, int]:
    """Return bytes on disk and the number of files that stand beside the shard's own."""
    file = io.BytesIO()
    format.write(file, rows)
    beside = [-(-len(content) // DISK_BLOCK) * DISK_BLOCK for _, content in format.files(rows)]
    return len(file.getvalue()) + sum(beside), len(beside)


def _first(rows: Rows, count: int) -> Rows:
    columns = {name: getattr(rows, name)[:count] for name in ("images", "labels", "seeds", "indices", "attempts")}
    return dataclasses.replace(rows, **columns)


def size(count: int) -> str:
    """Return bytes in words, such as 1.5 GB."""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
