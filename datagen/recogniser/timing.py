"""A short timing on this machine that chooses precision, memory layout and threads of a recogniser and forecasts images a second."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from datagen import turns
from datagen.recogniser.fit import Settings, fit, side_by_side

STEPS, ENOUGH = 5, 2.0
"""steps of a turn, fewer where they take longer than so many seconds"""
WORTH = 1.05
"""a later choice must win by this factor"""


@dataclass(frozen=True)
class Timed:
    """Settings with the fastest precision and layout, threads, images a second, every rate by "precision layout threads", trainings side by side."""

    settings: Settings
    threads: int
    rate: float
    rates: dict[str, float]
    lanes: int = 1


def choose(
    settings: Settings,
    shape: tuple[int, int, int],
    classes: int,
    *,
    device: str = "cpu",
    plain: bool = False,
    threads: Sequence[int] = (1,),
    long: float = turns.LONG,
) -> Timed:
    """Train a few steps on noise under each choice, in turns, and return the fastest; its number of threads is set.

    Args:
        settings: recogniser and batch are looked at.
        shape: channels, height, width.
        classes: number of classes.
        device: "cpu", "cuda" or "mps".
        plain: keep to fp32 and the contiguous layout, and only measure the rate.
        threads: numbers of compute threads to try; bf16 is tried with the number that won. Where one thread is among them, as many
            trainings side by side as the largest number, of one thread each, are tried at last; `rate` is that of all together.
        long: seconds after which what is compared takes no further turns.
    """
    rng = np.random.default_rng(0)
    channels, height, width = shape
    images = rng.integers(0, 256, (settings.batch, height, width, channels), dtype=np.uint8)
    labels = rng.integers(0, classes, settings.batch)
    plainest = dataclasses.replace(settings, precision="fp32", layout="contiguous", steps=STEPS)
    rates: dict[str, float] = {}

    def turn(tried: Settings, many: int) -> float:
        torch.set_num_threads(many)
        return 1 / _rate(tried, images, labels, classes, device)

    def fastest(choices: Sequence[tuple[Settings, int]]) -> tuple[Settings, int, float]:
        seconds = turns.taken([functools.partial(turn, *choice) for choice in choices], long=long)
        rates.update({_name(tried, many): _typical(each) for (tried, many), each in zip(choices, seconds, strict=True)})
        place = turns.first(seconds, WORTH)
        return *choices[place], _typical(seconds[place])

    layouts = [plainest] if plain else [plainest, dataclasses.replace(plainest, layout="channels-last")]
    best, many, rate = fastest([(tried, many) for many in threads for tried in layouts])
    if not plain:
        best, many, rate = fastest([(best, many), (dataclasses.replace(plainest, precision="bf16", layout="channels-last"), many)])
    lanes = max(threads) if 1 in threads and not plain and side_by_side(settings.recogniser) else 1
    if lanes > 1:
        with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def beside() -> float:
                return 1 / sum(pool.map(lambda _: _rate(best, images, labels, classes, device), range(lanes)))

            seconds = turns.taken([functools.partial(turn, best, many), beside], long=long)
        rate, together = map(_typical, seconds)
        rates |= {_name(best, many): rate, f"{best.precision} {best.layout} {lanes} side by side": together}
        if turns.first(seconds, WORTH):
            torch.set_num_threads(1)
            return Timed(dataclasses.replace(best, steps=settings.steps), 1, together, rates, lanes)
    torch.set_num_threads(many)
    return Timed(dataclasses.replace(best, steps=settings.steps), many, rate, rates)


def _typical(seconds: Sequence[float]) -> float:
    """Return what a median turn makes a second."""
    return round(1 / statistics.median(seconds), 1)


def _name(tried: Settings, many: int) -> str:
    return f"{tried.precision} {tried.layout} {many} thread{'s' if many > 1 else ''}"


class _Enough(Exception):
    """Ends a timing early."""


def _rate(settings: Settings, images: np.ndarray, labels: np.ndarray, classes: int, device: str) -> float:
    """Return the images a second of the median step, the first one left out where there are others."""
    times = [time.perf_counter()]

    def note(count: int, text: str) -> None:
        if device != "cpu":
            getattr(torch, device).synchronize()
        times.append(time.perf_counter())
        if times[-1] - times[0] > ENOUGH:
            raise _Enough

    with contextlib.suppress(_Enough):
        fit(images, labels, classes=classes, settings=settings, seed=0, device=device, progress=note)
    steps = np.diff(times)
    return settings.batch / max(1e-9, float(np.median(steps[1:] if len(steps) > 1 else steps)))
