"""What decoders say about damaged files by themselves, kept off stderr."""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its words about damaged files go to stderr


class _Silence:
    """Keeps Pillow's warnings and libtiff's words off stderr while any thread decodes; both are global, so the first sets and the last restores."""

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if self.users == 0:
                self.saved = warnings.catch_warnings()
                self.saved.__enter__()
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self.handlers = _libtiff((None, None))
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if self.users == 0:
                    _libtiff(self.handlers)
                    self.saved.__exit__(None, None, None)


def _libtiff(handlers: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Set the handlers of libtiff's errors and warnings, addresses or None for none, and return those before, () where Pillow hides its libtiff."""
    return tuple(setter(handler) for setter, handler in zip(_SETTERS, handlers, strict=True)) if _SETTERS else ()


def _setters() -> tuple[Callable[..., int | None], ...]:
    """Return libtiff's functions that set the handlers of errors and warnings, as the core of Pillow is linked to them; () where they are not found."""
    try:
        core = ctypes.CDLL(Image.core.__file__)
        found = core.TIFFSetErrorHandler, core.TIFFSetWarningHandler
    except (OSError, AttributeError):
        return ()
    for function in found:
        function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    return found


_SETTERS = _setters()
silence = _Silence()
