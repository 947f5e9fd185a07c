"""One of several processes, as torchrun or a job array starts them, that share the shards of one set with no word between them."""

from __future__ import annotations

import os

from datagen.errors import UsageError
from datagen.synthesis.engines.local import Local

NAMES = ("RANK", "WORLD_SIZE")


class Ranks(Local):
    """Worker processes on this machine, for the shards of this rank alone."""

    def rank(self) -> tuple[int, int]:
        """Return this process's rank, from 0, and how many ranks there are, as the environment says.

        Raises:
            UsageError: RANK or WORLD_SIZE is missing, or they make no sense.
        """
        given = [os.environ.get(name, "") for name in NAMES]
        if not all(value.isascii() and value.isdigit() for value in given):
            shown = ", ".join(f"{name}={value or 'nothing'}" for name, value in zip(NAMES, given, strict=True))
            raise UsageError(
                f"needs whole numbers in RANK and WORLD_SIZE ({shown})", where="--engine ranks", hint="torchrun sets them; in a job array export them"
            )
        rank, count = map(int, given)
        if rank >= count:
            raise UsageError(f"RANK={rank} is none of WORLD_SIZE={count} ranks, counted from 0", where="--engine ranks")
        return rank, count
