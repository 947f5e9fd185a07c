"""How whoever makes a shard says that it goes on, to whoever listens in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

Listener = Callable[[int, Mapping[str, float]], None]
_listener: ContextVar[Listener] = ContextVar("listener", default=lambda images, spent: None)


def beat(images: int, **spent: float) -> None:
    """Say that `images` more are done (negative: undone) and the seconds spent by stage; raises what the listener raises to stop the work."""
    _listener.get()(images, spent)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `listener` hear every beat within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
