"""The one shape that every image is brought to, and in words how it was decided."""

from __future__ import annotations

import math

import numpy as np

from datagen.errors import InputError
from datagen.records import Dataset, Recipe

SMALLEST, LARGEST = 8, 64
SQUARE = 1.25


def plan_shape(dataset: Dataset, recipe: Recipe) -> tuple[tuple[int, int, int], str]:
    """Decide channels, height and width for a set.

    Grey sets keep one channel. The size is the recipe's, else planned from the median image: a square of about its area,
    or its height and width where one is more than 1.25 times the other; sides from 8 to 64 pixels in steps of 4 (8 above 32).

    Returns:
        (channels, height, width), and a sentence that says why and what happens to the images.

    Raises:
        InputError: the set is empty.
    """
    if not len(dataset):
        raise InputError("has no images", where=dataset.root)
    channels = {"rgb": 3, "grey": 1, "auto": 1 if dataset.grey else 3}[recipe.colour]
    middle = np.median(dataset.sizes, axis=0)
    height, width = recipe.size or _planned(float(middle[0]), float(middle[1]))
    colour = "grey" if channels == 1 else "RGB"
    why = "every image is grey" if dataset.grey and recipe.colour == "auto" else f"--colour {recipe.colour}" if recipe.colour != "auto" else ""
    size = f"--size {height}x{width}" if recipe.size else f"planned from the median image of {middle[0]:.0f}x{middle[1]:.0f}, at most {LARGEST} a side; --size"
    reasons = ", ".join(filter(None, [size, why]))
    return (channels, height, width), f"images become {height}x{width} {colour} ({reasons}): {_effects(dataset.sizes, height, width, recipe.resize)}"


def _planned(height: float, width: float) -> tuple[int, int]:
    longer, shorter = max(height, width), min(height, width)
    if longer <= SQUARE * shorter:
        side = _rounded(math.sqrt(height * width))
        return side, side
    scale = min(1.0, LARGEST / longer)
    return _rounded(height * scale), _rounded(width * scale)


def _rounded(side: float) -> int:
    step = 4 if side < 34 else 8
    return int(min(LARGEST, max(SMALLEST, step * math.floor(side / step + 0.5))))


def _effects(sizes: np.ndarray, height: int, width: int, resize: str) -> str:
    """Say of sizes int32 [N, 2] how many are used as they are, enlarged, reduced, and cropped, padded or stretched."""
    total = len(sizes)
    across = np.array([height, width]) / sizes
    scale = across.min(axis=1) if resize == "pad" else across.max(axis=1)
    same = (sizes == (height, width)).all(axis=1)
    excess = np.abs(sizes * scale[:, None] - (height, width)).max(axis=1)
    counts = {
        "used as they are": int(same.sum()),
        "enlarged": int((~same & (scale > 1)).sum()),
        "reduced": int((~same & (scale < 1)).sum()),
        {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[resize]: int((excess >= 1).sum()),
    }
    told = [f"{'all' if count == total else f'{count:,} of {total:,}'} {what}" for what, count in counts.items() if count]
    lost = 1 - float(np.mean((height * width) / np.maximum(1, (sizes * scale[:, None]).prod(axis=1))))
    if resize == "crop" and lost >= 0.005:
        told[-1] += f" (mean {100 * lost:.0f} % of the area; --resize pad or stretch keeps it)"
    return ", ".join(told)
