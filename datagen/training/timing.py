"""A short timing on this machine that chooses precision, memory layout and threads, and forecasts images a second."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from datagen import turns
from datagen.contracts import Stage, State

STEPS = 4
"""steps of a turn"""
PARTS, HOPELESS = (16, 4), 6.0
"""parts of a batch that are tried first, and how many times as long as the first setting they may take: what is hopeless costs little"""
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

    def together(self, processes: int) -> Timed:
        """Return what so many processes reach that each take such a batch."""
        return replace(self, rate=processes * self.rate, rates={name: processes * rate for name, rate in self.rates.items()})


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


class _Trial:
    """A setting under trial, with a state of its own."""

    def __init__(self, stage: Stage, state: State, pair: tuple[str, str], threads: int, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.stage, self.state, self.pair, self.threads, self.batch = stage, state, pair, threads, batch
        arrange(state, pair[1])

    def seconds(self, some: int, seed: int) -> float:
        """Return the seconds of one step over some images; one seed leads to the same step in every setting, with or without a penalty."""
        images, labels = (part[:some] for part in self.batch)
        torch.set_num_threads(self.threads)
        torch.manual_seed(seed)
        begun = time.perf_counter()
        step(self.stage, self.state, images, labels, 0.5, precision=self.pair[0], layout=self.pair[1])
        if images.device.type != "cpu":
            getattr(torch, images.device.type).synchronize()
        return time.perf_counter() - begun

    def begins(self, limits: Sequence[float]) -> list[float]:
        """Return the seconds of parts of a batch, the better of two tries; ends with the first part that takes longer than its limit."""
        found: list[float] = []
        for part, limit in zip(PARTS, limits, strict=True):
            found.append(min(self.seconds(self.part(part), seed) for seed in range(2)))
            if found[-1] > limit:
                break
        return found

    def part(self, part: int) -> int:
        """Return the images of one of so many parts of a batch."""
        return max(2, len(self.batch[0]) // part)

    def turn(self) -> float:
        """Return the mean seconds of a step."""
        return statistics.mean(self.seconds(len(self.batch[0]), seed) for seed in range(STEPS))


def choose(
    stage: Stage, fresh: Callable[[], State], batch: tuple[torch.Tensor, torch.Tensor], *, allowed: Pairs, threads: Sequence[int], long: float = turns.LONG
) -> Timed:
    """Time a few steps of a stage and return the fastest setting; one is replaced by a later one only where that wins by 5 %.

    Precision and layout are timed with the first number of threads, the other numbers with the pair that won: where
    other programs keep the processors busy, fewer threads are often faster. Settings take turns.

    Args:
        stage: the stage to time.
        fresh: makes a new state with the stage built; it is thrown away.
        batch: images float32 [batch, C, H, W] and labels int64 [batch].
        allowed: pairs of precision and layout, the plainest first.
        threads: numbers of compute threads, the largest first.
        long: seconds after which settings take no further turns.
    """
    start = fresh()
    best, rates = _fastest(*_hopeful([_Trial(stage, copy.deepcopy(start), pair, threads[0], batch) for pair in allowed]), long)
    if len(threads) > 1:
        fewer = [_Trial(stage, copy.deepcopy(start), best.pair, many, batch) for many in threads[1:]]
        best, rates = _fastest([best, *fewer], rates, long)
    torch.set_num_threads(best.threads)
    rate = rates[label(*best.pair, best.threads)]
    return Timed(*best.pair, best.threads, rate=rate, rates={name: round(rate, 1) for name, rate in rates.items()})


def _hopeful(trials: Sequence[_Trial]) -> tuple[list[_Trial], dict[str, float]]:
    """Return the settings that are worth full batches, and the images a second of the others by their names, from the part that gave them up.

    What is slow is tried once more after all others: another program may have been at work.
    """
    hopeful, rates, limits = [trials[0]], {}, [HOPELESS * seconds for seconds in trials[0].begins([math.inf] * len(PARTS))]
    waiting = list(trials[1:])
    for _ in range(2):
        slow: list[_Trial] = []
        for trial in waiting:
            seconds = trial.begins(limits)
            given_up = seconds[-1] > limits[len(seconds) - 1]
            (slow if given_up else hopeful).append(trial)
            rates[label(*trial.pair, trial.threads)] = trial.part(PARTS[len(seconds) - 1]) / seconds[-1]
        waiting = slow
    return sorted(hopeful, key=trials.index), rates


def _fastest(trials: Sequence[_Trial], known: dict[str, float], long: float) -> tuple[_Trial, dict[str, float]]:
    """Return the setting that wins, and the images a second by name, those that are known already with them.

    A GPU chooses and loads its kernels when a shape comes for the first time: a turn that does not count.
    """
    for trial in trials if trials[0].batch[0].device.type != "cpu" else ():
        trial.turn()
    seconds = turns.taken([trial.turn for trial in trials], long=long)
    rates = {label(*trial.pair, trial.threads): len(trial.batch[0]) / statistics.median(each) for trial, each in zip(trials, seconds, strict=True)}
    return trials[turns.first(seconds, WORTH)], known | rates
