"""Who may work at a place of shards: one process alone, or the ranks of one plan side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datagen import holding, storage
from datagen.places import Place
from datagen.reading.manifest import DATA, NOTES, SIDE
from datagen.synthesis import commit

WAIT = 20.0
"""seconds that a rank waits for the folder while another one begins or ends"""
LOCK = "rank-{:05d}.lock"


@contextlib.contextmanager
def held(out: Place, plan: Mapping[str, Any], rank: tuple[int, int]) -> Iterator[bool]:
    """Make a place that of a plan and hold it within the block; yields whether it was begun before.

    Alone, a process holds the place and clears what a killed one left half-written. A rank holds the folder only to
    begin, then its own number in it, so that the ranks of one plan work side by side and no number works twice. An object
    store cannot be held; there as everywhere a second writer of the same plan comes to the same bytes.

    Args:
        out: the place.
        plan: as plan.json holds it.
        rank: its number and how many there are, (0, 1) alone.

    Raises:
        OutputError: another process holds the folder, or this rank's number in it.
        UsageError, ArtefactError: as `commit.claim`.
    """
    folder = out.folder
    if folder is None or rank[1] == 1:
        with out.held():
            begun = commit.claim(out, plan)
            if folder is not None:
                _refuse_ranks(folder / SIDE)
            if rank[1] == 1:
                out.sweep()
            yield begun
        return
    storage.make_folder(folder)
    with contextlib.ExitStack() as working:
        with holding.lock(folder, wait=WAIT):
            begun = commit.claim(out, plan)
            working.enter_context(holding.lock(folder / SIDE, LOCK.format(rank[0])))
        yield begun


def _refuse_ranks(side: Path) -> None:
    """Raise OutputError where a rank holds its number."""
    for path in sorted(side.glob(LOCK.replace("{:05d}", "*"))):
        with holding.lock(side, path.name):
            pass


@contextlib.contextmanager
def finishing(out: Place, rank: tuple[int, int]) -> Iterator[None]:
    """Let one rank at a time write what comes last, once every shard is there; clears what killed workers and ranks left half-written."""
    if rank[1] == 1 or out.folder is None:
        out.sweep()
        yield
        return
    with holding.lock(out.folder, wait=WAIT):
        for inner in (DATA, NOTES):
            storage.sweep(out.folder / inner)
        yield
