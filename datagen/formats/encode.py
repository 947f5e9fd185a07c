"""Images to bytes of image files and back: PNG by numpy filters and a fast deflate, JPEG by Pillow."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from datagen import untrusted
from datagen.errors import ArtefactError
from datagen.footprint import USUAL, footprint

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
PIXELS = 64_000_000
PILLOW = (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, RuntimeError, struct.error, zlib.error)
"""what Pillow raises at files that are no images"""
PIECE = 1 << 23
"""bytes of pixels filtered at once"""


MARKS = {"synthetic": "trainedAlgorithmicMedia", "rule": "algorithmicMedia"}
"""IPTC digital source types by what made an image: a trained generator, or a rule without sampled training data"""
_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/{}"/></rdf:RDF></x:xmpmeta>'
)


def packet(mark: str) -> bytes:
    """Return the XMP packet that says how an image was made (IPTC Photo Metadata Standard, digital source type); empty for no mark."""
    return _PACKET.format(mark).encode("ascii") if mark else b""


def described(encoder: str, mark: str = "") -> str:
    """Return what decides the bytes of encoded images: "png-isal-1", "png-zlib-6" where isal is missing, or "jpeg-95-444", and the mark."""
    return (PNG if encoder == "png" else JPEG) + (f", {mark}" if mark else "")


def encode(images: np.ndarray, encoder: str, mark: str = "") -> list[bytes]:
    """Return one image file for each of uint8 [N, H, W, C] (C is 1 or 3).

    Args:
        images: as said.
        encoder: png (lossless) or jpeg (quality 95, 4:4:4).
        mark: a digital source type of MARKS that goes into each file as XMP; "" writes none.
    """
    return encode_png(images, mark) if encoder == "png" else [_jpeg(image, mark) for image in images]


def encode_png(images: np.ndarray, mark: str = "") -> list[bytes]:
    """Return one PNG file for each of uint8 [N, H, W, C]; each row takes the filter Sub or Up with the smaller sum (PNG 1.2, 9.6)."""
    count, height, width, channels = images.shape
    head = png_head((height, width, channels), mark)
    step = max(1, PIECE // max(1, height * width * channels))
    pieces = (filtered(images[i : i + step]) for i in range(0, count, step))
    return [head + _chunk(b"IDAT", _deflate(rows, LEVEL)) + END for piece in pieces for rows in piece]


def png_head(shape: tuple[int, int, int], mark: str) -> bytes:
    """Return what stands before the pixels in every PNG file of ours of one shape (H, W, C) and mark."""
    height, width, channels = shape
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0))
    return SIGNATURE + head + (_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet(mark)) if mark else b"")


def is_own_png(content: bytes, head: bytes) -> bool:
    """Whether bytes are laid out as `encode_png` does: a head of `png_head`, one chunk of pixels, and the end; nothing can hide in them."""
    first = len(head)
    size = int.from_bytes(content[first : first + 4], "big")
    return content.startswith(head) and content[first + 4 : first + 8] == b"IDAT" and content[first + size + 12 :] == END


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


END = _chunk(b"IEND", b"")


def _jpeg(image: np.ndarray, mark: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=95, subsampling=0)
    content = file.getvalue()
    if not mark:
        return content
    said = b"http://ns.adobe.com/xap/1.0/\0" + packet(mark)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(said)) + said + content[2:]


@contextlib.contextmanager
def undecodable(where: object) -> Iterator[None]:
    """Turn whatever Pillow raises or warns of at a damaged or hostile image into an ArtefactError."""
    from PIL import Image

    try:
        yield
    except (*PILLOW, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ArtefactError("holds an image that cannot be decoded", where=where, hint=untrusted.VERIFY) from error


def bearable(image: Image, content: bytes) -> None:
    """Raise ValueError where decoding an opened image takes more memory than 64 million pixels do."""
    if footprint(image, content) > PIXELS * USUAL:
        raise ValueError(f"{image.width} x {image.height} pixels")


def opened(content: bytes, where: object = "") -> Image:
    """Return the Pillow image (mode L or RGB) of an encoded image of ours; ArtefactError where it is none."""
    from PIL import Image

    with undecodable(where):
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        bearable(image, content)
        image.load()
        return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def decode(content: bytes, where: object = "") -> np.ndarray:
    """Return uint8 [H, W, C] of an encoded image of ours; raises as `opened`."""
    pixels = np.asarray(opened(content, where))
    return pixels[..., None] if pixels.ndim == 2 else pixels
