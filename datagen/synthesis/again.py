"""One image of a set of shards made again, without the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from datagen.errors import UsageError
from datagen.formats import encode
from datagen.places import Place
from datagen.records import ShardTask
from datagen.synthesis.plan import TILE, Plan
from datagen.synthesis.worker import ShardMaker


def place(plan: Plan, tasks: list[ShardTask], only: str) -> tuple[int, int, tuple[int, int, int], int]:
    """Return shard, row, tile (label, first index, images wanted), and place within it of the image that SHARD:ROW names, both counted from 0.

    Raises:
        UsageError: it names none.
    """
    shard, found, row = only.partition(":")
    if not (found and shard.isascii() and row.isascii() and shard.isdigit() and row.isdigit() and len(only) < 40):
        raise UsageError(f"{only!r} names no image", where="--only", hint="SHARD:ROW, both counted from 0, such as 3:17")
    id, number = int(shard), int(row)
    if id >= len(tasks):
        raise UsageError(f"there is no shard {id:,}", where="--only", hint=f"this order has {len(tasks):,}, from 0")
    wanted = np.array([count for _, _, count in tasks[id].tiles])
    if number >= wanted.sum():
        raise UsageError(f"shard {id:,} has no row {number:,}", where="--only", hint=f"it has {int(wanted.sum()):,}, from 0")
    at = int(plan.order(id, int(wanted.sum()))[number])
    tile = int(np.searchsorted(np.cumsum(wanted), at, side="right"))
    return id, number, tasks[id].tiles[tile], at - int(wanted[:tile].sum())


def make(maker: ShardMaker, tasks: list[ShardTask], only: str, out: Place) -> dict[str, Any]:
    """Make the image that SHARD:ROW names again and write it into a place; its whole tile of 64 is computed for it.

    Returns:
        out (the file), class, index, shard, row, attempt, confidence, computed (images).

    Raises:
        UsageError: it names none.
        OutputError: the file is there already or cannot be written.
    """
    id, row, (label, first, wanted), within = place(maker.plan, tasks, only)
    painted = maker.painted(label, first, wanted)
    content = encode.encode(painted.images[within : within + 1], maker.encoder, maker.mark)[0]
    name = f"shard-{id:05d}-row-{row:06d}.{encode.SUFFIXES[maker.encoder]}"
    out.create(name, content)
    value = {"out": out.where(name), "class": maker.plan.classes[label], "index": first + within, "shard": id, "row": row}
    sure = None if painted.confidence is None else round(float(painted.confidence[within]), 6)
    return value | {"attempt": int(painted.attempts[within]), "confidence": sure, "computed": TILE}
