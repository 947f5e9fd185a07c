"""A short timing on this machine that chooses precision and memory layout, and forecasts images a second."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from datagen.contracts import Stage, State

STEPS = 4
CHOICES = (("fp32", "contiguous"), ("fp32", "channels-last"), ("bf16", "channels-last"), ("bf16", "contiguous"))
WORTH = 1.05


@dataclass(frozen=True)
class Timed:
    """What a timing chose: precision, layout, images a second, and every rate measured by "precision layout"."""

    precision: str
    layout: str
    rate: float
    rates: dict[str, float]


def step(stage: Stage, state: State, images: torch.Tensor, labels: torch.Tensor, done: float, *, precision: str, layout: str) -> dict[str, torch.Tensor]:
    """Take one step of a stage under a precision and a layout; returns its losses."""
    if layout == "channels-last":
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return dict(stage.step(state, images, labels, done))


def arrange(state: State, layout: str) -> None:
    """Bring all nets of a state into a memory layout."""
    if layout == "channels-last":
        for net in state.modules.values():
            net.to(memory_format=torch.channels_last)


def choose(stage: Stage, fresh: Callable[[], State], images: torch.Tensor, labels: torch.Tensor, *, allowed: tuple[tuple[str, str], ...]) -> Timed:
    """Time a few steps of a stage under each allowed pair and return the fastest; a pair must win by 5 % over those before it.

    Args:
        stage: the stage to time.
        fresh: makes a new state with the stage built; it is thrown away.
        images: float32 [batch, C, H, W]; labels: int64 [batch].
        allowed: pairs of precision and layout, the plainest first.
    """
    rates: dict[str, float] = {}
    best, best_rate = allowed[0], 0.0
    start = fresh()
    for precision, layout in allowed:
        state = copy.deepcopy(start)
        rate = _rate(stage, state, images, labels, (precision, layout), slowest=best_rate / 3)
        rates[f"{precision} {layout}"] = round(rate, 1)
        if rate > best_rate * WORTH:
            best, best_rate = (precision, layout), rate
    return Timed(*best, rate=best_rate, rates=rates)


def _rate(stage: Stage, state: State, images: torch.Tensor, labels: torch.Tensor, pair: tuple[str, str], *, slowest: float) -> float:
    precision, layout = pair
    arrange(state, layout)
    best = 0.0
    for i in range(STEPS + 1):
        begun = time.perf_counter()
        step(stage, state, images, labels, 0.5, precision=precision, layout=layout)
        if images.is_cuda:
            torch.cuda.synchronize()
        rate = len(images) / (time.perf_counter() - begun)
        best = max(best, rate if i else 0.0)
        if rate < slowest and i:
            return rate
    return best
