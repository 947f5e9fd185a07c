"""Ctrl-C and SIGTERM as a wish to stop that is heard between two tiles."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from datagen.errors import Stopped


class Stopping:
    """Context in which the first signal is remembered and a second one acts as it did before.

    Outside the main thread, where no signal can be caught, it does nothing.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._heard)
            except ValueError:
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def check(self, where: object) -> None:
        """Raise Stopped where a signal came: code 130 after Ctrl-C, 75 after SIGTERM."""
        if self.signal:
            interrupted = self.signal == signal.SIGINT
            name = "Ctrl-C" if interrupted else "SIGTERM"
            raise Stopped(f"stopped by {name}; what is finished is kept", where=where, hint="the same command continues", interrupted=interrupted)
