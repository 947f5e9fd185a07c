"""One corpus of strange image files and tables, made by fixed seeds, every one with what must come of it beside it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from made_files import (
    INKS,
    SRGB,
    bombs,
    chunk,
    cmyk_jpeg,
    grey_tiff,
    noise,
    patches,
    png,
    press_profile,
    rgb_profile,
    saved,
    srgb_of_lab,
)
from PIL import Image

CANARY = b"CANARY-7f3a9c"
"""what hangs on behind or hides inside images, and must not travel"""


@dataclass(frozen=True)
class Strange:
    """A file and what must come of it.

    Attributes:
        row: of the reliability page.
        name: of the file, with the ending that it pretends to have.
        content: its bytes.
        pixels: uint8 [H, W] or [H, W, 3] that it is read with; None where it is skipped.
        says: part of the reason of a skip, or of the note beside an image that is used, "" without one.
        most: levels that a pixel may be away from `pixels`.
        later: it can be decoded, and is skipped for its proportions by the scan alone.
    """

    row: str
    name: str
    content: bytes
    pixels: np.ndarray | None = None
    says: str = ""
    most: int = 0
    later: bool = False


@cache
def corpus() -> tuple[Strange, ...]:
    """Return every file of the corpus; names are unique, and so are the pixels of those that are read."""
    return (*_damaged(), *_formats(), *_animated(), *_bombs(), *polyglots(), *_colours())


def _damaged() -> Iterator[Strange]:
    whole = saved(noise(seed=1))
    photo = saved(noise(seed=2), "JPEG")
    yield Strange("F1", "empty.png", b"", says="is empty")
    yield Strange("F1", "cut.png", whole[: len(whole) // 2], says="cut short or damaged")
    yield Strange("F1", "cut.jpg", photo[: len(photo) // 2], says="damaged")
    yield Strange("F1", "half zeros.jpg", photo[: len(photo) // 2] + bytes(len(photo) // 2), says="cut short or damaged")
    yield Strange("F1", "noise.png", np.random.default_rng(3).bytes(500), says="no image of a known format")
    yield Strange("F1", "noise after its mark.png", whole[:8] + np.random.default_rng(4).bytes(500), says="damaged")
    yield Strange("F1", "flipped.png", whole[:200] + bytes([whole[200] ^ 8]) + whole[201:], says="damaged")
    yield Strange("F1", "html.jpg", b"<!doctype html><title>404</title>", says="no image of a known format")


OTHERS = {
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch /tmp/x) system\nshowpage\n",
    "photoshop.jpg": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(60),
    "fits.tif": b"SIMPLE  =                    T" + bytes(2850),
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><image href='http://localhost:9/x.png'/></svg>",
    "icon.bmp": b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0h\4\0\0\x16\0\0\0" + bytes(1100),
    "avif.webp": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(80),
}


def _formats() -> Iterator[Strange]:
    """Fifteen formats under a wrong name or none: content decides."""
    ways = {
        "png without an ending": ("PNG", {}),
        "jpeg.png": ("JPEG", {"quality": 100, "subsampling": 0}),
        "webp.jpg": ("WEBP", {"lossless": True}),
        "bmp.gif": ("BMP", {}),
        "gif.txt": ("GIF", {}),
        "tiff.jpeg": ("TIFF", {"compression": "tiff_lzw"}),
        "ppm.webp": ("PPM", {}),
    }
    for seed, (name, (kind, how)) in enumerate(ways.items(), 10):
        image = noise(seed=seed)
        if kind == "GIF":
            image = np.kron(noise(3, 4, seed), np.ones((8, 5, 1), np.uint8))
        yield Strange("F2", name, saved(image, kind, **how), image, most=6 if kind == "JPEG" else 0)
    grey = noise(seed=20)[..., 0]
    yield Strange("F2", "pgm.tiff", b"P5\n# a comment\n20 24\n255\n" + grey.tobytes(), grey)
    bits = noise(seed=21)[..., 0] > 100
    plain = "P1 20 24\n" + "\n".join(" ".join(str(int(not bit)) for bit in row) for row in bits) + "\n"
    yield Strange("F2", "pbm.jpe", plain.encode(), bits * np.uint8(255))
    for name, content in OTHERS.items():
        yield Strange("F2", name, content, says="no image of a known format")


def _animated() -> Iterator[Strange]:
    flat = [np.kron(noise(3, 4, seed), np.ones((8, 5, 1), np.uint8)) for seed in range(30, 42)]
    for i, (kind, name, how) in enumerate((("GIF", "gif", {}), ("WEBP", "webp", {"lossless": True}), ("PNG", "png", {}), ("TIFF", "tif", {}))):
        first, *others = flat[3 * i : 3 * i + 3]
        data = saved(Image.fromarray(first), kind, save_all=True, append_images=[Image.fromarray(image) for image in others], **how)
        yield Strange("F3", f"many.{name}", data, first, "animated or of several pages")


def _bombs() -> Iterator[Strange]:
    for name, content in bombs().items():
        used = np.zeros((16, 16), np.uint8) if name == "tiff strip of 70 MB" else None
        later = name == "png 10,000,000 x 1"
        says = "times as long as wide" if later else "pixels" if " x " in name else "tiles far larger" if "tile" in name else "damaged"
        yield Strange("F4", f"bomb {name}.png", content, used, "" if used is not None else says, later=later)


def _zip() -> bytes:
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(zipfile.ZipInfo("x.txt"), CANARY)
    return buffer.getvalue()


@cache
def polyglots() -> tuple[Strange, ...]:
    """Return images that are something else besides, each with the canary in its tail or in a text inside."""
    page = b"<html><script>alert('" + CANARY + b"')</script></html>"
    images = [np.kron(noise(3, 4, seed), np.ones((8, 5, 1), np.uint8)) for seed in range(50, 58)]
    photo = saved(images[0], "JPEG", quality=98, subsampling=0)
    inside = png(images[5], 2, before=chunk(b"tEXt", b"Comment\0" + CANARY) + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(CANARY)))
    return (
        Strange("F5", "photo and zip.jpg", photo + _zip(), images[0], most=6),
        Strange("F5", "picture and page.png", saved(images[1]) + page, images[1]),
        Strange("F5", "animation and script.gif", saved(images[2], "GIF") + b"/*" + CANARY + b"*/", images[2]),
        Strange("F5", "webp and pdf.webp", saved(images[3], "WEBP", lossless=True) + b"%PDF-1.7 " + CANARY, images[3]),
        Strange("F5", "progressive and page.jpg", saved(images[6], "JPEG", quality=98, subsampling=0, progressive=True) + page, images[6], most=6),
        Strange("F5", "bmp and tail.bmp", saved(images[4], "BMP") + CANARY * 9, images[4]),
        Strange("F5", "texts.png", inside, images[5]),
    )


def _colours() -> Iterator[Strange]:
    image = noise(seed=70)
    yield Strange("I2", "swapped channels.png", saved(image, icc_profile=rgb_profile(SRGB[:, [1, 2, 0]])), image[..., [2, 0, 1]], most=1)
    yield Strange("I2", "srgb.png", saved(noise(seed=71), icc_profile=rgb_profile()), noise(seed=71))
    yield Strange("I2", "broken profile.png", saved(noise(seed=72), icc_profile=b"broken" * 40), noise(seed=72), "colour profile")
    inks = patches([[255 * ink for ink in each] for each in INKS])
    printed = np.round(patches(srgb_of_lab(np.array(list(INKS.values()), float)).tolist()))
    yield Strange("I4", "press.jpg", cmyk_jpeg(inks, "ycck", press_profile()), printed.astype(np.uint8), most=12)
    deep = np.random.default_rng(73).integers(0, 65536, (24, 20, 3), dtype=np.uint16)
    yield Strange("I5", "sixteen bits.png", png(deep, 2, 16), (deep >> 8).astype(np.uint8))
    yield Strange("I5", "sixteen grey bits.png", png(deep[::-1, :, 0], 0, 16), (deep[::-1, :, 0] >> 8).astype(np.uint8))
    yield Strange("I5", "sixteen bits.pgm", b"P5 20 24 65535\n" + deep[..., 1].astype(">u2").tobytes(), (deep[..., 1] >> 8).astype(np.uint8))
    yield Strange("I5", "floats.tif", saved(np.zeros((9, 9), np.float32), "TIFF"), says="32-bit")
    yield Strange("I7", "interlaced.png", png(noise(seed=74), 2, interlaced=True), noise(seed=74))
    tiled = np.random.default_rng(75).integers(0, 256, (16, 16), dtype=np.uint8)
    packed = zlib.compress(tiled.tobytes())
    tiles = {"t322": (4, [16]), "t323": (4, [16]), "t324": (4, [8]), "t325": (4, [len(packed)])}
    yield Strange("I7", "tiled.tif", grey_tiff(16, 16, packed, **tiles), tiled)


def plant(root: Path, beside: int) -> dict[str, Strange]:
    """Write the corpus into class "strange" and `beside` plain images into each of two classes; return the files by path."""
    for i in range(2 * beside):
        file = root / ("plain", "strange")[i % 2] / f"good {i:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(noise(8, 8, 1000 + i), 2))
    for each in corpus():
        (root / "strange" / each.name).write_bytes(each.content)
    return {f"strange/{each.name}": each for each in corpus()}
