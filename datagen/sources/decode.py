"""One image file into upright 8-bit pixels, whole or refused, and pixels into the shape that a net takes."""

from __future__ import annotations

import io
import os
import stat
import threading
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from PIL import Image

from datagen.colour import eight_bits, load
from datagen.errors import InputError
from datagen.footprint import USUAL, footprint
from datagen.pictures import HEAD, begins_like_image
from datagen.silence import silence
from datagen.sources import trust
from datagen.sources.whole import whole

VERSION = 3
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_HEADROOM = 1 << 24
_LARGE = 16_000_000
_large = threading.Lock()
_KNOWN = "use PNG, JPEG, WebP, BMP, GIF, TIFF or PPM"
_DAMAGED = "copy the file again from its source, or remove it"


@dataclass(frozen=True)
class Decoded:
    """One image: pixels uint8 [H, W] or [H, W, 3], upright, on white; notes say what was unusual about the file; `made` is its AI mark, or ""."""

    pixels: np.ndarray
    notes: tuple[str, ...] = ()
    made: str = ""


class UnknownFormat(InputError):
    """A file that begins like none of the image formats that are read."""


class Unreadable(InputError):
    """A file that could not be read this time, whatever is in it."""


def decode(source: str | os.PathLike[str] | bytes, *, max_pixels: int) -> Decoded:
    """Decode one image whole, the first frame where there are many.

    Args:
        source: path, or the bytes of the file.
        max_pixels: height x width in pixels above which the image is refused from its header; WebP from 2/5 of it, JPEG of several scans 8/13.

    Returns:
        upright pixels (EXIF or XMP orientation applied), transparency laid on white, 16 bits cut to their upper 8, colours of
        an ICC profile brought to sRGB.

    Raises:
        InputError: no regular file, unreadable, of another format, too large, or damaged anywhere; the hint is the remedy.
    """
    data = source if isinstance(source, bytes) else read_file(source, max_pixels)
    with silence():
        return _decode(data, max_pixels)


def read_file(path: str | os.PathLike[str], max_pixels: int) -> bytes:
    """Return the bytes of an image file; devices and pipes are never read, nor more than an image of `max_pixels` can need.

    Raises:
        InputError: it cannot be opened or read, is no regular file, begins like no known image, or changes meanwhile.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb", buffering=0) as file:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                raise InputError("is no regular file", hint="remove it")
            head = file.read(16)
            _check_head(head)
            if before.st_size > max_pixels * USUAL + _HEADROOM:
                raise InputError(f"is too large ({before.st_size:,} bytes)", hint="make it smaller, or raise --set max_pixels")
            data = head + file.readall()
            if len(data) != before.st_size or os.fstat(handle).st_mtime_ns != before.st_mtime_ns:
                raise Unreadable("changed while it was read", hint="wait until nothing writes into the folder")
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})", hint="check its permissions and the disk") from error
    return data


def _check_head(head: bytes) -> None:
    if not head:
        raise InputError("is empty", hint=_DAMAGED)
    if not begins_like_image(head):
        raise UnknownFormat("is no image of a known format", hint=_KNOWN)


def _decode(data: bytes, max_pixels: int) -> Decoded:
    """Decode under `silence`; large images one at a time, so that many threads need no more memory than one."""
    _check_head(data[:HEAD])
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise InputError(f"has {image.width:,} x {image.height:,} pixels, more than {max_pixels:,}", hint="make it smaller, or raise --set max_pixels")
            if footprint(image, data) > max_pixels * USUAL:
                what = f"has {image.width:,} x {image.height:,} pixels, and decoding this {image.format} takes too much memory"
                raise InputError(what, hint="make it smaller, save it as PNG, or raise --set max_pixels")
            if not whole(data, image.format):
                raise InputError("is cut short or damaged", hint=_DAMAGED)
            alone = _large if image.width * image.height > _LARGE else nullcontext()
            notes = ["animated or of several pages: the first is used"] if _many(image) else []
            with alone:
                pixels = eight_bits(_upright(load(image), notes), notes)
                return Decoded(np.ascontiguousarray(pixels), tuple(notes), trust.mark(image.info))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError("has more pixels than Pillow reads at all", hint="make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise InputError("is no image of a known format, or its header is damaged", hint=_KNOWN) from error
    except MemoryError as error:
        raise Unreadable("does not fit into memory", hint="make it smaller") from error
    except Exception as error:  # Pillow's plug-ins raise whatever a damaged file makes them trip over
        raise InputError(f"is damaged ({str(error)[:80] or type(error).__name__})", hint=_DAMAGED) from error


def _many(image: Image.Image) -> bool:
    return image.format in ("GIF", "WEBP", "PNG", "TIFF") and bool(getattr(image, "is_animated", False))


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF is anything; the pixels are still good
        orientation = None
    if orientation == 1:
        return image
    if orientation not in _TURNED:
        notes.append("broken EXIF orientation: taken as upright")
        return image
    return image.transpose(_TURNED[orientation])


def is_grey(pixels: np.ndarray) -> bool:
    """Whether uint8 [H, W] or [H, W, 3] has one channel or three equal ones."""
    if pixels.ndim == 2:
        return True
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())


def to_shape(image: np.ndarray, shape: tuple[int, int, int], resize: str) -> np.ndarray:
    """Bring uint8 [H, W] or [H, W, 3] to uint8 [height, width, channels].

    Antialiased bicubic on the stored values (no linear light), as clean-fid does (Parmar et al. 2022, arXiv 2104.11222);
    an image that has the size already is returned unchanged. Colour to grey is ITU-R 601-2 luma.

    Args:
        image: upright pixels.
        shape: channels (1 or 3), height, width.
        resize: crop (the middle), pad (with the mean colour of the image's rim) or stretch.
    """
    channels, height, width = shape
    if channels == 1 and image.ndim == 3:
        image = image[..., 0] if is_grey(image) else np.asarray(Image.fromarray(image).convert("L"))
    if image.shape[:2] != (height, width):
        image = _resized(image, height, width, resize)
    image = image[..., None] if image.ndim == 2 else image
    return np.repeat(image, 3, axis=2) if channels == 3 and image.shape[2] == 1 else image


def _resized(image: np.ndarray, height: int, width: int, resize: str) -> np.ndarray:
    old_height, old_width = image.shape[:2]
    picture = Image.fromarray(image)
    box = (0.0, 0.0, float(old_width), float(old_height))
    if resize == "crop":
        scale = min(old_height / height, old_width / width)
        left, top = (old_width - width * scale) / 2, (old_height - height * scale) / 2
        box = (max(0.0, left), max(0.0, top), min(old_width, left + width * scale), min(old_height, top + height * scale))
    if resize != "pad":
        return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box))
    scale = min(height / old_height, width / old_width)
    inner = max(1, round(old_height * scale)), max(1, round(old_width * scale))
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    canvas = np.empty((height, width, *image.shape[2:]), np.uint8)
    canvas[:] = np.round(rim.mean(axis=0)).astype(np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = np.asarray(picture.resize(inner[::-1], Image.Resampling.BICUBIC))
    return canvas
