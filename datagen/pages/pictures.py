"""Images as PNG inside the page: reduced where they are large, single or several on one sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

GAP = 1
THUMBNAIL = 96
"""longest side, in pixels, of an image that is shown; larger ones are reduced"""


def png(image: np.ndarray) -> str:
    """Return an image uint8 [H, W, C] (C 1, 3 or 4) as a data URI."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def thumbnail(image: np.ndarray, longest: int = THUMBNAIL) -> np.ndarray:
    """Return an image uint8 [H, W, C] reduced by a whole factor, by means over blocks, where its longest side is above `longest` pixels."""
    factor = -(-max(image.shape[:2]) // longest)
    if factor == 1:
        return np.asarray(image)
    down, across = (min(factor, side) for side in image.shape[:2])
    height, width = image.shape[0] // down * down, image.shape[1] // across * across
    blocks = image[:height, :width].reshape(height // down, down, width // across, across, -1)
    reduced: np.ndarray = np.round(blocks.mean((1, 3))).astype(np.uint8)
    return reduced


def sheet(images: Sequence[np.ndarray], columns: int) -> tuple[str, int, int]:
    """Return images uint8 [H, W, C] of one shape as one PNG (data URI, width, height in pixels), row by row.

    Between them lies a clear gap of one pixel, and one more for each 32 pixels of an image's side.
    """
    height, width, channels = images[0].shape
    gap = GAP + max(height, width) // 32
    rows = -(-len(images) // columns)
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for place, image in enumerate(images):
        top, left = (place // columns) * (height + gap), (place % columns) * (width + gap)
        colour = np.broadcast_to(image, (height, width, 3)) if channels == 1 else image
        whole[top : top + height, left : left + width, :3] = colour
        whole[top : top + height, left : left + width, 3] = 255
    return png(whole), whole.shape[1], whole.shape[0]
