"""Filled shapes of random place, size and shade on a noisy ground, with mask and box."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from datagen.contracts import Drawn
from datagen.seeds import stream

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]

SHAPES: Mapping[str, Inside] = MappingProxyType(
    {
        "circle": lambda x, y: x**2 + y**2 <= 1,
        "cross": lambda x, y: (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 1),
        "diamond": lambda x, y: abs(x) + abs(y) <= 1,
        "ring": lambda x, y: (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.3),
        "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.8,
        "triangle": lambda x, y: (abs(y) <= 0.9) & (abs(x) <= (y + 0.9) / 1.8),
    }
)
"""whether a point belongs to the shape; x to the right and y downwards, both in units of half the shape's extent"""


class Shapes:
    """Six shapes, each filled with one shade that stands out from its ground."""

    classes = tuple(SHAPES)
    shape = (3, 32, 32)

    def draw(self, seed: int, label: int, sources: Sequence[np.ndarray] = ()) -> Drawn:
        """Draw one image of a class; equal arguments give equal pixels.

        Args:
            seed: any integer; another seed is another image.
            label: index into `classes`.
            sources: not used.

        Returns:
            image uint8 [32, 32, 3], mask uint8 [32, 32] (255 on the shape), box in pixels around the mask.
        """
        channels, height, width = self.shape
        rng = stream("shapes", int(seed), int(label))
        radius = rng.uniform(0.2, 0.42) * min(height, width)
        top, left = (rng.uniform(radius, extent - radius) for extent in (height, width))
        rows, columns = np.mgrid[:height, :width] + 0.5
        mask = SHAPES[self.classes[label]]((columns - left) / radius, (rows - top) / radius)
        ground = rng.uniform(30, 225, channels)
        shade = (ground + rng.uniform(80, 175, channels)) % 255
        image = np.where(mask[..., None], shade, ground) + rng.normal(0, 12, (height, width, channels))
        ys, xs = np.nonzero(mask)
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        return Drawn(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask.astype(np.uint8) * 255, box)
