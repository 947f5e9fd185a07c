"""Images to bytes of image files and back: PNG by numpy filters and a fast deflate, JPEG by Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from datagen.errors import ArtefactError

if TYPE_CHECKING:
    from PIL.Image import Image

try:
    from isal.isal_zlib import compress as _deflate

    PNG = "png-isal-1"
    LEVEL = 1
except ImportError:
    from zlib import compress as _deflate

    PNG = "png-zlib-6"
    LEVEL = 6

JPEG = "jpeg-95-444"
SUFFIXES = {"png": "png", "jpeg": "jpg"}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIECE = 1 << 23
"""bytes of pixels filtered at once"""


def described(encoder: str) -> str:
    """Return what decides the bytes of encoded images: "png-isal-1", "png-zlib-6" where isal is missing, or "jpeg-95-444"."""
    return PNG if encoder == "png" else JPEG


def encode(images: np.ndarray, encoder: str) -> list[bytes]:
    """Return one image file for each of uint8 [N, H, W, C] (C is 1 or 3); encoder is png (lossless) or jpeg (quality 95, 4:4:4)."""
    return encode_png(images) if encoder == "png" else [_jpeg(image) for image in images]


def encode_png(images: np.ndarray) -> list[bytes]:
    """Return one PNG file for each of uint8 [N, H, W, C]; each row takes the filter Sub or Up with the smaller sum (PNG 1.2, 9.6)."""
    count, height, width, channels = images.shape
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0))
    start, end = SIGNATURE + head, _chunk(b"IEND", b"")
    step = max(1, PIECE // max(1, height * width * channels))
    pieces = (filtered(images[i : i + step]) for i in range(0, count, step))
    return [start + _chunk(b"IDAT", _deflate(rows, LEVEL)) + end for piece in pieces for rows in piece]


def filtered(images: np.ndarray) -> np.ndarray:
    """Return uint8 [N, H, 1 + W * C]: the filter's number and the filtered bytes of each row of uint8 [N, H, W, C]."""
    count, height, width, channels = images.shape
    sub, up = images.copy(), images.copy()
    sub[:, :, 1:] -= images[:, :, :-1]
    up[:, 1:] -= images[:, :-1]
    sub, up = (x.reshape(count, height, width * channels) for x in (sub, up))
    costs = [np.minimum(x, -x).sum(axis=2, dtype=np.int64) for x in (sub, up)]
    upper = costs[1] < costs[0]
    rows = np.empty((count, height, 1 + width * channels), np.uint8)
    rows[:, :, 0] = np.where(upper, 2, 1)
    rows[:, :, 1:] = np.where(upper[:, :, None], up, sub)
    return rows


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))


def _jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def opened(content: bytes, where: object = "") -> Image:
    """Return the Pillow image (mode L or RGB) of an encoded image of ours; ArtefactError where it is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        image.load()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ArtefactError("holds an image that cannot be decoded", where=where, hint="datagen describe --verify names what is damaged") from error
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def decode(content: bytes, where: object = "") -> np.ndarray:
    """Return uint8 [H, W, C] of an encoded image of ours; raises as `opened`."""
    pixels = np.asarray(opened(content, where))
    return pixels[..., None] if pixels.ndim == 2 else pixels
