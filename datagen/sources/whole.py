"""What the bytes of an image file say before it is decoded: whether it is whole, and where it ends."""

from __future__ import annotations

import zlib

from datagen.footprint import segments


def whole(data: bytes, kind: str | None) -> bool:
    """Whether JPEG and PNG are whole, where Pillow would fill up what is missing or wrong; it notices by itself in the others."""
    if kind in ("JPEG", "MPO"):
        return _jpeg_end(data) is not None
    return _png_end(data) is not None if kind == "PNG" else True


def without_tail(data: bytes) -> bytes:
    """Return a PNG, JPEG, GIF or WebP file without the bytes behind its end, which no reader of images looks at; other files as they are."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data[: _png_end(data)]
    if data.startswith(b"\xff\xd8\xff"):
        return data[: _jpeg_end(data)]
    if data.startswith((b"GIF87a", b"GIF89a")):
        return data[: _gif_end(data)]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return data[: 8 + int.from_bytes(data[4:8], "little")]
    return data


def _png_end(data: bytes) -> int | None:
    """Return the place behind IEND; None where it is missing or a checksum before it is wrong."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        critical = data[place + 4] & 0x20 == 0
        if critical and zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4].ljust(4), "big"):
            return None
        if data[place + 4 : place + 8] == b"IEND":
            return end + 4
        place = end + 4
    return None


def _jpeg_end(data: bytes) -> int | None:
    """Return the place behind the end marker that follows a scan; None without one."""
    scanned = False
    for marker, place in segments(data):
        if marker == 0xD9:
            return place if scanned else None
        scanned = scanned or marker == 0xDA
    return None


def _gif_end(data: bytes) -> int | None:
    """Return the place behind the trailer; None without one (GIF89a, 20 to 27)."""
    place = 13 + _table(data[10:11])
    while place < len(data):
        kind = data[place]
        if kind == 0x3B:
            return place + 1
        if kind not in (0x21, 0x2C):
            return None
        place += 2 if kind == 0x21 else 11 + _table(data[place + 9 : place + 10])
        while place < len(data) and data[place]:
            place += 1 + data[place]
        place += 1
    return None


def _table(flags: bytes) -> int:
    """Return the bytes of the colour table that a byte of flags announces."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
