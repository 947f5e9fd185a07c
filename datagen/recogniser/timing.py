"""A short timing on this machine that chooses precision, memory layout and threads of a recogniser and forecasts images a second."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from datagen.recogniser.fit import Settings, fit, side_by_side

STEPS, ENOUGH = 8, 2.0
"""steps timed, fewer where they take longer than so many seconds"""
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


def choose(settings: Settings, shape: tuple[int, int, int], classes: int, *, device: str = "cpu", plain: bool = False, threads: Sequence[int] = (1,)) -> Timed:
    """Train a few steps on noise under each choice and return the fastest; its number of threads is set.

    Args:
        settings: recogniser and batch are looked at.
        shape: channels, height, width.
        classes: number of classes.
        device: "cpu", "cuda" or "mps".
        plain: keep to fp32 and the contiguous layout, and only measure the rate.
        threads: numbers of compute threads to try; bf16 is tried with the number that won. Where one thread is among them, as many
            trainings side by side as the largest number, of one thread each, are tried at last; `rate` is that of all together.
    """
    rng = np.random.default_rng(0)
    channels, height, width = shape
    images = rng.integers(0, 256, (settings.batch, height, width, channels), dtype=np.uint8)
    labels = rng.integers(0, classes, settings.batch)
    plainest = dataclasses.replace(settings, precision="fp32", layout="contiguous", steps=STEPS)
    rates: dict[str, float] = {}
    best, best_threads, best_rate = plainest, threads[0], 0.0

    def attempt(tried: Settings, many: int) -> None:
        nonlocal best, best_threads, best_rate
        torch.set_num_threads(many)
        rate = _rate(tried, images, labels, classes, device)
        rates[f"{tried.precision} {tried.layout} {many} thread{'s' if many > 1 else ''}"] = round(rate, 1)
        if rate > best_rate * WORTH:
            best, best_threads, best_rate = tried, many, rate

    for many in threads:
        attempt(plainest, many)
        if not plain:
            attempt(dataclasses.replace(plainest, layout="channels-last"), many)
    if not plain:
        attempt(dataclasses.replace(plainest, precision="bf16", layout="channels-last"), best_threads)
    lanes = max(threads) if 1 in threads and not plain and side_by_side(settings.recogniser) else 1
    if lanes > 1:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            together = sum(pool.map(lambda _: _rate(best, images, labels, classes, device), range(lanes)))
        rates[f"{best.precision} {best.layout} {lanes} side by side"] = round(together, 1)
        if together > best_rate * WORTH:
            torch.set_num_threads(1)
            return Timed(dataclasses.replace(best, steps=settings.steps), 1, together, rates, lanes)
    torch.set_num_threads(best_threads)
    return Timed(dataclasses.replace(best, steps=settings.steps), best_threads, best_rate, rates)


class _Enough(Exception):
    """Ends a timing early."""


def _rate(settings: Settings, images: np.ndarray, labels: np.ndarray, classes: int, device: str) -> float:
    """Return the images a second of the median step, the first one left out where there are others."""
    times = [time.perf_counter()]

    def note(count: int, text: str) -> None:
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        if times[-1] - times[0] > ENOUGH:
            raise _Enough

    with contextlib.suppress(_Enough):
        fit(images, labels, classes=classes, settings=settings, seed=0, device=device, progress=note)
    steps = np.diff(times)
    return settings.batch / max(1e-9, float(np.median(steps[1:] if len(steps) > 1 else steps)))
