"""A short timing on this machine that chooses precision, memory layout and threads, and forecasts images a second."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from datagen.contracts import Stage, State

STEPS = 5
PARTS = ((16, 3), (4, 1))
"""parts of a batch that are tried first, and how many times slower than a batch they may be: what is hopeless costs little"""
Pairs = tuple[tuple[str, str], ...]
CHOICES = (("fp32", "contiguous"), ("fp32", "channels-last"), ("bf16", "channels-last"), ("bf16", "contiguous"))
WORTH = 1.05


@dataclass(frozen=True)
class Timed:
    """What a timing chose: precision, layout, threads, images a second, and every rate measured by "precision layout threads"."""

    precision: str
    layout: str
    threads: int
    rate: float
    rates: dict[str, float]


def step(stage: Stage, state: State, images: torch.Tensor, labels: torch.Tensor, done: float, *, precision: str, layout: str) -> dict[str, torch.Tensor]:
    """Take one step of a stage under a precision and a layout; returns its losses."""
    if layout == "channels-last" and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return dict(stage.step(state, images, labels, done))


def arrange(state: State, layout: str) -> None:
    """Bring all nets of a state into a memory layout."""
    if layout == "channels-last":
        for net in state.modules.values():
            net.to(memory_format=torch.channels_last)


def label(precision: str, layout: str, threads: int) -> str:
    """Return what a timed setting is called."""
    return f"{precision} {layout} {threads} threads"


def choose(stage: Stage, fresh: Callable[[], State], batch: tuple[torch.Tensor, torch.Tensor], *, allowed: Pairs, threads: Sequence[int]) -> Timed:
    """Time a few steps of a stage and return the fastest setting; a later one must win by 5 % over those before it.

    Precision and layout are timed with the first number of threads, the other numbers with the pair that won: where
    other programs keep the processors busy, fewer threads are often faster.

    Args:
        stage: the stage to time.
        fresh: makes a new state with the stage built; it is thrown away.
        batch: images float32 [batch, C, H, W] and labels int64 [batch].
        allowed: pairs of precision and layout, the plainest first.
        threads: numbers of compute threads, the largest first.
    """
    start = fresh()
    tried: dict[tuple[str, str, int], float] = {}
    best, rate = (*allowed[0], threads[0]), 0.0
    for many in threads:
        torch.set_num_threads(many)
        for precision, layout in allowed if many == threads[0] else [best[:2]]:
            found = _rate(stage, copy.deepcopy(start), batch, (precision, layout), slowest=rate / 4)
            tried[precision, layout, many] = found
            if found > rate * WORTH:
                best, rate = (precision, layout, many), found
    torch.set_num_threads(best[2])
    rates = {label(p, layout, many): round(value, 1) for (p, layout, many), value in tried.items()}
    return Timed(*best, rate=rate, rates=rates)


def _rate(stage: Stage, state: State, batch: tuple[torch.Tensor, torch.Tensor], pair: tuple[str, str], *, slowest: float) -> float:
    """Return images a second over full batches; a pair below `slowest` is given up at once."""
    precision, layout = pair
    arrange(state, layout)
    images, labels = batch
    seconds = []
    for part, grace in (*PARTS, *[(1, 1)] * STEPS):
        some = max(2, len(images) // part)
        begun = time.perf_counter()
        step(stage, state, images[:some], labels[:some], 0.5, precision=precision, layout=layout)
        if images.is_cuda:
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - begun) / some)
        if grace / seconds[-1] < slowest:
            break
    return 1 / statistics.median(seconds[len(PARTS) :] or seconds)
