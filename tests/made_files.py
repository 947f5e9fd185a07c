"""Image files that Pillow does not write, byte by byte: any PNG, ICC profiles, CMYK of every kind, bombs; all by fixed seeds."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""of Adam7: first column, first row, steps between columns and rows (PNG specification, third edition, 8.1)"""
D50 = (0.9642, 1.0, 0.8249)
SRGB = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]])
ADOBE = np.array([[0.6097559, 0.2052401, 0.1492240], [0.3111242, 0.6256560, 0.0632197], [0.0194811, 0.0608902, 0.7448387]])
"""linear RGB to XYZ under D50 (Bradford); columns are red, green and blue"""
INKS = {(0, 0, 0, 0): (100, 0, 0), (1, 0, 0, 0): (57, -22, -40), (0, 1, 0, 0): (52, 60, 2), (0, 0, 1, 0): (90, -6, 70), (0, 0, 0, 1): (18, 0, 0)}
INKS |= {(1, 1, 0, 0): (28, 18, -38), (1, 0, 1, 0): (52, -45, 22), (0, 1, 1, 0): (50, 55, 35)}
"""CIELAB of eight corners of inks as the made press profile has them; darker ones are black"""


def noise(height: int = 24, width: int = 20, seed: int = 0) -> np.ndarray:
    """Return uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(image: np.ndarray | Image.Image, kind: str = "PNG", **how: object) -> bytes:
    """Return an image file that Pillow wrote."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **how)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """Return one chunk of PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(values: np.ndarray, colour: int, depth: int = 8, *, interlaced: bool = False, before: bytes = b"") -> bytes:
    """Return a PNG of unsigned values [H, W] or [H, W, C]; `before` are chunks between IHDR and IDAT."""
    values = values[..., None] if values.ndim == 2 else values
    height, width = values.shape[:2]
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(_row(row, depth) for left, top, right, down in passes for row in values[top::down, left::right] if row.size)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _row(row: np.ndarray, depth: int) -> bytes:
    if depth >= 8:
        return b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes()
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, -depth:]
    return b"\0" + np.packbits(bits).tobytes()


def profile(tags: dict[bytes, bytes], space: bytes, kind: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """Return an ICC profile, version 2.1, with these tags beside its white point and texts."""
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50)} | tags
    table, body, place = b"", b"", 128 + 4 + 12 * len(tags)
    padded = {name: content + bytes(-len(content) % 4) for name, content in tags.items()}
    for name, content in padded.items():
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content
    size = struct.pack(">I", place + len(body))
    head = size + b"lcms\2\x10\0\0" + kind + space + pcs + bytes(12) + b"acsp" + bytes(28) + b"".join(_fixed(v) for v in D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in values)


def _gamma(power: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(power * 256)) + b"\0\0"


def _srgb_curve() -> bytes:
    x = np.arange(1024) / 1023
    y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + np.round(y * 65535).astype(">u2").tobytes()


def rgb_profile(matrix: np.ndarray = SRGB, power: float | None = None) -> bytes:
    """Return a profile of RGB by its columns in XYZ and a power, None for the curve of sRGB."""
    curve = _srgb_curve() if power is None else _gamma(power)
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), (_xyz(column) for column in matrix.T), strict=True))
    return profile(columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve), b"RGB ")


def grey_profile(power: float) -> bytes:
    """Return a profile of grey by a power."""
    return profile({b"kTRC": _gamma(power)}, b"GRAY")


def press_profile() -> bytes:
    """Return a profile of CMYK inks: a table of two steps an ink, with the colours of INKS at its corners."""
    corners = [INKS.get((c, m, y, k), (0, 0, 0)) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    cells = bytes(value for light, a, b in corners for value in (round(light * 2.55), a + 128, b + 128))
    identity = b"".join(_fixed(value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + bytes(range(256)) * 4 + cells + bytes(range(256)) * 3
    return profile({b"A2B0": table}, b"CMYK", b"prtr", b"Lab ")


def srgb_of_xyz(xyz: np.ndarray) -> np.ndarray:
    """Return float levels 0 to 255 [..., 3] in sRGB of XYZ under D50 (IEC 61966-2-1, matrix adapted by Bradford)."""
    light = np.clip(xyz @ np.linalg.inv(SRGB).T, 0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_of_lab(lab: np.ndarray) -> np.ndarray:
    """Return float levels 0 to 255 [..., 3] in sRGB of CIELAB under D50 (CIE 15:2004, 8.2.1)."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    return srgb_of_xyz(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50)


def patches(colours: Sequence[Sequence[int]], side: int = 16) -> np.ndarray:
    """Return uint8 [side, side * N, C] of N flat patches beside each other."""
    return np.concatenate([np.full((side, side, len(colour)), colour, np.uint8) for colour in colours], axis=1)


def centres(pixels: np.ndarray, side: int = 16) -> np.ndarray:
    """Return the middle pixel of each patch [N, C]."""
    return pixels[side // 2, side // 2 :: side]


def cmyk_jpeg(inks: np.ndarray, how: str, icc: bytes = b"") -> bytes:
    """Return a JPEG of CMYK uint8 [H, W, 4] (255: full ink) as "inverted" (Adobe's), "plain" (no marker) or "ycck" (Adobe's, transformed)."""
    stored = 255 - inks if how == "plain" else inks
    if how == "ycck":
        rgb = inks[..., :3].astype(float)
        luma = rgb @ [0.299, 0.587, 0.114]
        blue, red = 128 + (rgb[..., 2] - luma) / 1.772, 128 + (rgb[..., 0] - luma) / 1.402
        stored = np.dstack([255 - np.clip(np.round(np.dstack([luma, blue, red])), 0, 255).astype(np.uint8), inks[..., 3]])
    how_to = {"quality": 98, "subsampling": 0} | ({"icc_profile": icc} if icc else {})
    data = saved(Image.frombytes("CMYK", stored.shape[1::-1], np.ascontiguousarray(stored).tobytes()), "JPEG", **how_to)
    place = data.index(b"\xff\xee")
    if how == "plain":
        return data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4], "big") :]
    return data[: place + 15] + (b"\2" if how == "ycck" else data[place + 15 : place + 16]) + data[place + 16 :]


def tiff(tags: dict[int, tuple[int, Sequence[int]]], data: bytes = b"") -> bytes:
    """Return a little-endian TIFF of one directory: by tag its type (3 short, 4 long) and values; `data` lies at byte 8."""
    place = 8 + len(data) + len(data) % 2
    beyond = place + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        entries += struct.pack("<HHI", tag, kind, len(values))
        entries += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", beyond + len(tail))
        tail += packed if len(packed) > 4 else b""
    return b"II*\0" + struct.pack("<I", place) + data.ljust(place - 8, b"\0") + struct.pack("<H", len(tags)) + entries + bytes(4) + tail


def grey_tiff(height: int, width: int, data: bytes, **more: tuple[int, Sequence[int]]) -> bytes:
    """Return a TIFF of 8-bit grey, deflated; `more` are further tags as t322=(4, [16])."""
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 259: (3, [8]), 262: (3, [1]), 277: (3, [1])}
    tags |= {int(name[1:]): value for name, value in more.items()}
    if 322 not in tags:
        tags |= {273: (4, [8]), 278: (4, [height]), 279: (4, [len(data)])}
    return tiff(tags, data)


@cache
def bombs() -> dict[str, bytes]:
    """Return small files that would need far more memory than they hold: by their size, their texts or their tiles."""
    zeros = zlib.compress(bytes(1 << 20))
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    long = struct.pack(">IIBBBBB", 10_000_000, 1, 1, 0, 0, 0, 0)
    packed = zlib.compress(bytes(70 << 20))
    start, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)), chunk(b"IDAT", zlib.compress(bytes(72)))
    webp = [b"VP8L" + struct.pack("<I", 6) + b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + b"\0" for side in (9_500, 16_383)]
    jpeg = bytearray(saved(np.zeros((8, 8), np.uint8), "JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 65_000, 65_000)
    return {
        "png 20,000 x 20,000": start + chunk(b"IHDR", head) + chunk(b"IDAT", zeros) + end,
        "png 10,000,000 x 1": start + chunk(b"IHDR", long) + chunk(b"IDAT", zlib.compress(bytes(1_250_001), 9)) + end,
        "png text": start + small[0] + chunk(b"zTXt", b"Comment\0\0" + packed) + small[1] + end,
        "png profile": start + small[0] + chunk(b"iCCP", b"made\0\0" + packed) + small[1] + end,
        "gif 65,535 x 65,535": b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        "webp 9,500 x 9,500": b"RIFF" + struct.pack("<I", 4 + len(webp[0])) + b"WEBP" + webp[0],
        "webp 16,383 x 16,383": b"RIFF" + struct.pack("<I", 4 + len(webp[1])) + b"WEBP" + webp[1],
        "jpeg 65,000 x 65,000": bytes(jpeg),
        "tiff tile of 1 GB": grey_tiff(16, 16, zlib.compress(bytes(70 << 20)), t322=(4, [32_768]), t323=(4, [32_768]), t324=(4, [8]), t325=(4, [1 << 20])),
        "tiff strip of 70 MB": grey_tiff(16, 16, zlib.compress(bytes(70 << 20))),
        "bmp 60,000 x 60,000": b"BM" + struct.pack("<IIIIiiHHIIIIII", 100, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 46, 0, 0, 0, 0) + bytes(46),
        "ppm 60,000 x 60,000": b"P6 60000 60000 255\n" + bytes(60),
    }
