"""What image files are called, and what they begin with."""

from __future__ import annotations

import os
import re

IMAGES = frozenset(("png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"))
_MAGIC = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|BM|GIF8[79]a|II\*\0|MM\0\*|II\+\0|MM\0\+|P[1-7yfF]", re.DOTALL)
HEAD = 16
"""bytes of a file that tell whether it is an image"""


def suffix_of(path: str) -> str:
    """Return the ending of a file's name in lower case without its dot, "" where it has none."""
    return os.path.splitext(path)[1][1:].lower()


def looks_like_image(path: str) -> bool:
    """Whether a file's ending is one of images; what a file is, its content decides."""
    return suffix_of(path) in IMAGES


def begins_like_image(head: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of an image of a known format."""
    return _MAGIC.match(head) is not None
