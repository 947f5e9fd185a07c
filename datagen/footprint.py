"""What decoding an image takes of memory, known from its header."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

USUAL = 8
"""bytes a pixel that most formats take: four of Pillow's, three of ours, and one for a strip on its way"""
WEBP, SCANS = 20, 13
"""of WebP, whose library holds the canvas three times over, and of JPEG in several scans, whose coefficients are all held; benchmarks/LOG.md"""
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


def footprint(image: Image, content: bytes) -> int:
    """Return the bytes that decoding an opened image takes at most, without its file.

    Args:
        image: opened by Pillow, not decoded.
        content: its file.
    """
    several = image.format in ("JPEG", "MPO") and not _one_scan(content)
    return image.width * image.height * (WEBP if image.format == "WEBP" else SCANS if several else USUAL)


def segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of a JPEG file in order, each with the place behind it (ITU-T T.81, B.1.1.2 to B.1.1.4); compressed data are passed over."""
    place = 2
    while found := JPEG_MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        yield marker, place
        if marker not in (0x01, 0xD8):
            place += int.from_bytes(content[place : place + 2], "big")


def _one_scan(content: bytes) -> bool:
    """Whether the first scan of a sequential JPEG holds all of its components (ITU-T T.81, B.2.2 and B.2.3)."""
    components = None
    for marker, place in segments(content):
        if marker == 0xDA:
            return components is not None and content[place + 2 : place + 3] == components
        if marker in (0xC0, 0xC1):
            components = content[place + 7 : place + 8]
    return False
