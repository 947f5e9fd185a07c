"""Who may work in a folder of shards: one process alone, or the ranks of one plan side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datagen import storage
from datagen.reading.manifest import DATA, NOTES, SIDE
from datagen.synthesis import commit

WAIT = 20.0
"""seconds that a rank waits for the folder while another one begins or ends"""
LOCK = "rank-{:05d}.lock"


@contextlib.contextmanager
def held(out: Path, plan: Mapping[str, Any], place: tuple[int, int]) -> Iterator[bool]:
    """Make a folder the place of a plan and hold it within the block; yields whether it was begun before.

    Alone, a process holds the folder and clears what a killed one left half-written. A rank holds the folder only to
    begin, then its own place, so that the ranks of one plan work side by side and nobody takes a place twice.

    Args:
        out: the folder, which is there.
        plan: as plan.json holds it.
        place: rank and number of ranks, (0, 1) alone.

    Raises:
        OutputError: another process holds the folder, or this rank's place in it.
        UsageError, ArtefactError: as `commit.claim`.
    """
    rank, ranks = place
    with contextlib.ExitStack() as working, contextlib.ExitStack() as beginning:
        beginning.enter_context(storage.lock(out, wait=WAIT if ranks > 1 else 0))
        begun = commit.claim(out, plan)
        if ranks > 1:
            working.enter_context(storage.lock(out / SIDE, LOCK.format(rank)))
            beginning.close()
        else:
            for path in sorted((out / SIDE).glob(LOCK.replace("{:05d}", "*"))):
                with storage.lock(path.parent, path.name):
                    pass
            storage.sweep(out)
        yield begun


@contextlib.contextmanager
def finishing(out: Path, place: tuple[int, int]) -> Iterator[None]:
    """Let one rank at a time write what comes last, once every shard is there; clears what killed ranks left half-written."""
    if place[1] == 1:
        yield
        return
    with storage.lock(out, wait=WAIT):
        for folder in (out / DATA, out / NOTES):
            storage.sweep(folder)
        yield
