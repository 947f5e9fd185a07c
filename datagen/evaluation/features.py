"""The user's own features of images, called and checked."""

from __future__ import annotations

import numpy as np

from datagen.errors import UsageError
from datagen.recogniser import nets

WHERE, WANTED = "--features", "it must return finite numbers [N, F] for images uint8 [N, H, W, C]"


class Given:
    """Features by a function of the user's.

    Args:
        name: MODULE:FUNCTION or FILE.py:FUNCTION.

    Raises:
        UsageError: there is no such function.
    """

    def __init__(self, name: str) -> None:
        self.name, self._function = name, nets.function(name)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return features float32 [N, F] of images uint8 [N, H, W, C]; UsageError where the function fails or returns something else."""
        try:
            found = np.asarray(self._function(images), np.float32)
        except Exception as error:
            raise UsageError(f"{self.name} failed: {type(error).__name__}: {error}", where=WHERE, hint=WANTED) from error
        if found.ndim != 2 or len(found) != len(images) or not np.isfinite(found).all():
            kind = "numbers that are not finite" if found.ndim == 2 and len(found) == len(images) else f"the shape {list(found.shape)}"
            raise UsageError(f"{self.name} returned {kind} for {len(images)} images", where=WHERE, hint=WANTED)
        return found
