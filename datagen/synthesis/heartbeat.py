"""How whoever makes a shard says that it goes on, to whoever listens in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_listener: ContextVar[Callable[[int], None]] = ContextVar("listener", default=lambda images: None)


def beat(images: int) -> None:
    """Say that `images` more are done (negative: undone); raises what the listener raises to stop the work."""
    _listener.get()(images)


@contextlib.contextmanager
def listening(listener: Callable[[int], None]) -> Iterator[None]:
    """Let `listener` hear every beat within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
