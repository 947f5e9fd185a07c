"""Trains arms one after another or several side by side, keeps finished ones, and says how each did."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from datagen.evaluation import arms, choose
from datagen.evaluation.arms import Arm, Trial
from datagen.evaluation.kept import Kept
from datagen.progress import Progress
from datagen.records import ArmResult

Asked = tuple[Arm, int]
"""an arm and its repeat"""


class Halted(Exception):
    """Ends a training whose siblings were stopped."""


class Side:
    """What trainings side by side report their steps to: one progress, one at a time.

    Args:
        progress: of them all.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress, self.halted = progress, threading.Event()
        self._turn = threading.Lock()

    def advance(self, count: int = 1, text: str = "") -> None:
        """Count steps; Halted once the trainings are to end."""
        if self.halted.is_set():
            raise Halted
        with self._turn:
            self.progress.advance(count, text)


@dataclass(frozen=True)
class Runner:
    """Trains arms of a trial.

    Attributes:
        trial: the images and how to train.
        kept: finished arms; they are not trained again.
        progress: shows one stage for each arm and repeat, or for all that train side by side.
        lanes: arms that train side by side, one compute thread each; results do not depend on it.
    """

    trial: Trial
    kept: Kept
    progress: Progress
    lanes: int = 1

    def one(self, arm: Arm, repeat: int = 0) -> ArmResult:
        """Return the result of one repeat of an arm, trained now or kept from before."""
        return self.each([(arm, repeat)])[0]

    def all(self, wanted: Iterable[Arm], repeats: int = 1) -> list[ArmResult]:
        """Return the results of several arms, all arms of a repeat before the next repeat."""
        listed = list(wanted)
        return self.each([(arm, repeat) for repeat in range(repeats) for arm in listed], repeats)

    def each(self, asked: Sequence[Asked], repeats: int = 1) -> list[ArmResult]:
        """Return the result of each arm and repeat in order, trained now or kept from before."""
        found = {place: self.kept.get(self.trial, *pair) for place, pair in enumerate(asked)}
        missing = [place for place, result in found.items() if result is None]
        for place in set(found) - set(missing):
            self._say(asked[place], found[place], repeats)
        if self.lanes > 1 and len(missing) > 1:
            found |= self._together({place: asked[place] for place in missing}, repeats)
        else:
            for place in missing:
                with self.progress.stage(_title(asked[place], repeats), self._steps(asked[place])):
                    found[place] = self._trained(asked[place], repeats, self.progress)
        return [result for place in range(len(asked)) if (result := found[place]) is not None]

    def _together(self, asked: dict[int, Asked], repeats: int) -> dict[int, ArmResult]:
        """Train side by side; where one fails or the user stops, all end at their next step."""
        names = list(dict.fromkeys(arm.title for arm, _ in asked.values()))
        title = f"{len(asked)} trainings ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
        side = Side(self.progress)
        with (
            self.progress.stage(title, sum(map(self._steps, asked.values()))),
            ThreadPoolExecutor(self.lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            waiting = {place: pool.submit(self._trained, pair, repeats, side) for place, pair in asked.items()}
            try:
                return {place: future.result() for place, future in waiting.items()}
            except BaseException:
                side.halted.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _steps(self, asked: Asked) -> int:
        return asked[0].steps or self.trial.settings.steps

    def _trained(self, asked: Asked, repeats: int, progress: Progress | Side) -> ArmResult:
        result = arms.run(self.trial, *asked, progress)
        self.kept.put(self.trial, asked[0], result)
        self._say(asked, result, repeats)
        return result

    def _say(self, asked: Asked, result: ArmResult | None, repeats: int) -> None:
        if result is not None:
            images = "validation" if _chooses(asked[0]) else "unseen real"
            self.progress.say(f"{_title(asked, repeats)}: {100 * result.correct.mean():.1f} % of {len(result.correct):,} {images} images right")


def _title(asked: Asked, repeats: int) -> str:
    arm, repeat = asked
    return arm.title + (f", repeat {repeat + 1} of {repeats}" if repeats > 1 else "") + (", on validation" if _chooses(arm) else "")


def _chooses(arm: Arm) -> bool:
    """Whether an arm is a candidate, tested on validation images."""
    return arm.tested.startswith((choose.SELECT, choose.WHOLE))
