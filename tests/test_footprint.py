"""Memory of decoding is known from the header, so that no image within the cap takes more than 500 MB (F4)."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from made_files import saved
from PIL import Image
from test_strange_outputs import forget, peak

from datagen.errors import ArtefactError, InputError
from datagen.footprint import SCANS, USUAL, WEBP, footprint
from datagen.formats import encode
from datagen.reading.shards import picture
from datagen.records import Recipe
from datagen.sources.decode import decode

SIDE, STRIP = 3_000, 32 << 20
"""pixels of a side, and bytes of a strip on its way to sRGB, whatever the size"""
KINDS: dict[str, tuple[str, str, dict[str, object], int]] = {
    "baseline": ("JPEG", "RGB", {"subsampling": 0}, USUAL),
    "progressive": ("JPEG", "RGB", {"subsampling": 0, "progressive": True}, SCANS),
    "progressive inks": ("JPEG", "CMYK", {"progressive": True}, SCANS),
    "colour": ("PNG", "RGB", {"compress_level": 1}, USUAL),
    "clear": ("PNG", "RGBA", {"compress_level": 1}, USUAL),
    "palette": ("GIF", "P", {}, USUAL),
    "lossy": ("WEBP", "RGB", {"method": 0}, WEBP),
    "lossless": ("WEBP", "RGBA", {"method": 0, "lossless": True}, WEBP),
    "packed": ("TIFF", "RGB", {"compression": "tiff_lzw"}, USUAL),
}


def made(kind: str, side: int = SIDE) -> bytes:
    """Return a file of a kind whose colours run slowly."""
    format, mode, how, _ = KINDS[kind]
    ramp = np.arange(side, dtype=np.uint32)
    colours = (ramp[None, :, None] // 64 + ramp[:, None, None] // 64 * 3 + np.array([0, 50, 90])).astype(np.uint8)
    image = Image.fromarray(colours).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(colours[..., 1]))
    return saved(image, format, **how)


def header(content: bytes) -> Image.Image:
    """Open a file without decoding it."""
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_takes_what_the_header_says(kind: str) -> None:
    content = made(kind)
    said = footprint(header(content), content)
    assert said == SIDE * SIDE * KINDS[kind][3]
    decode(made("colour", 8), max_pixels=64_000_000)
    held = forget()
    assert decode(content, max_pixels=64_000_000).pixels.shape[:2] == (SIDE, SIDE)
    assert peak() - held < said + len(content) + STRIP


def test_a_format_that_takes_more_has_a_lower_cap() -> None:
    for kind in ("lossy", "progressive"):
        content, pixels = made(kind, 100), 100 * 100
        needed = -(-pixels * KINDS[kind][3] // USUAL)
        assert decode(content, max_pixels=needed).pixels.shape == (100, 100, 3)
        with pytest.raises(InputError, match="too much memory") as caught:
            decode(content, max_pixels=needed - 1)
        assert "max_pixels" in caught.value.hint and len(caught.value.line()) <= 300


def test_shards_hold_the_same_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    content = made("progressive", 100)
    for read in (encode.decode, lambda data: picture(data, "x")):
        monkeypatch.setattr(encode, "PIXELS", 100 * 100 * SCANS // USUAL)
        read(content)
        monkeypatch.setattr(encode, "PIXELS", 100 * 100 * SCANS // USUAL - 1)
        with pytest.raises(ArtefactError, match="decoded"):
            read(content)


def test_a_sequential_jpeg_in_several_scans_counts_as_such() -> None:
    content = made("baseline", 16)
    scan = re.search(rb"\xff\xda\x00\x0c\x03", content)
    assert scan
    apart = content[: scan.start() + 4] + b"\1" + content[scan.start() + 5 :]
    assert footprint(header(content), content) == 16 * 16 * USUAL
    assert footprint(header(content), apart) == footprint(header(content), b"\xff\xd8\xff\xd9") == 16 * 16 * SCANS


def test_the_default_cap_is_half_a_gigabyte() -> None:
    assert Recipe().max_pixels * USUAL < 500 << 20 and encode.PIXELS * USUAL < 500 << 20
