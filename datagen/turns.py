"""Timings that compare: on a shared machine settings take turns until two turns of each agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

FEWEST, MOST, LONG = 2, 8, 20.0
"""turns of each setting at least, and at most where they differ; seconds after which there is no further one"""
AGREE = 1.1
"""times as long as a setting's fastest turn its second may take: half a minute may go by at a tenth of the speed"""


def taken(trials: Sequence[Callable[[], float]], *, long: float = LONG) -> list[list[float]]:
    """Return the seconds of every turn of each trial.

    The fastest turn compares trials (`first`), as what slowed the others were other programs; the median one tells what to expect here.

    Args:
        trials: each takes one turn and returns its seconds, for whatever amount of work.
        long: seconds after which no further turns are taken, beyond the first.
    """
    begun = time.perf_counter()
    found: list[list[float]] = [[] for _ in trials]
    for turn in range(MOST):
        if turn and (time.perf_counter() - begun >= long or (turn >= FEWEST and all(_agree(seconds) for seconds in found))):
            break
        for seconds, trial in zip(found, trials, strict=True):
            seconds.append(trial())
    return found


def first(found: Sequence[Sequence[float]], worth: float) -> int:
    """Return the place of the fastest trial so far by its fastest turn, replaced by a later one only where that is faster by a factor `worth`."""
    best = 0
    for place, seconds in enumerate(found):
        best = place if min(seconds) * worth < min(found[best]) else best
    return best


def _agree(seconds: Sequence[float]) -> bool:
    fastest, second = sorted(seconds)[:2]
    return second <= AGREE * fastest
