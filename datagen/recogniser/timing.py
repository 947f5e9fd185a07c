"""A short timing on this machine that chooses precision and memory layout of a recogniser and forecasts images a second."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import torch

from datagen.recogniser.fit import Settings, fit

CHOICES = (("fp32", "contiguous"), ("fp32", "channels-last"), ("bf16", "channels-last"))
WARM, STEPS = 2, 6
WORTH = 1.05
"""another pair than the plainest must win by this factor"""


@dataclass(frozen=True)
class Timed:
    """Settings with the fastest precision and layout, their images a second, and every rate by "precision layout"."""

    settings: Settings
    rate: float
    rates: dict[str, float]


def choose(settings: Settings, shape: tuple[int, int, int], classes: int, *, device: str = "cpu", plain: bool = False) -> Timed:
    """Train a few steps on noise under each pair of precision and layout and return the fastest.

    Args:
        settings: recogniser and batch are looked at.
        shape: channels, height, width.
        classes: number of classes.
        device: "cpu", "cuda" or "mps".
        plain: keep to fp32 and the contiguous layout, and only measure the rate.
    """
    rng = np.random.default_rng(0)
    channels, height, width = shape
    images = rng.integers(0, 256, (settings.batch, height, width, channels), dtype=np.uint8)
    labels = rng.integers(0, classes, settings.batch)
    rates: dict[str, float] = {}
    best, best_rate = settings, 0.0
    for precision, layout in CHOICES[:1] if plain else CHOICES:
        tried = dataclasses.replace(settings, precision=precision, layout=layout, steps=WARM + STEPS)
        rate = _rate(tried, images, labels, classes, device)
        rates[f"{precision} {layout}"] = round(rate, 1)
        if rate > best_rate * WORTH:
            best, best_rate = dataclasses.replace(settings, precision=precision, layout=layout), rate
    return Timed(best, best_rate, rates)


def _rate(settings: Settings, images: np.ndarray, labels: np.ndarray, classes: int, device: str) -> float:
    """Return the images a second of the fastest of a few steps, the first ones left out."""
    times: list[float] = []

    def note(count: int, text: str) -> None:
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    fit(images, labels, classes=classes, settings=settings, seed=0, device=device, progress=note)
    return settings.batch / max(1e-9, float(np.diff(times)[WARM - 1 :].min()))
