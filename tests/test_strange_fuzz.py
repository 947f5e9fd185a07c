"""Thousands of broken images by mutation: read or refused, never a crash, a hang, much memory, or anything executed (F1 to F5, P7)."""

from __future__ import annotations

import os
import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType

import audit
import numpy as np
import pytest
from made_files import cmyk_jpeg, grey_profile, noise, patches, png, press_profile, rgb_profile, saved
from PIL import Image, PngImagePlugin
from strange import corpus
from test_strange_outputs import forget, peak

from datagen.colour import BROKEN
from datagen.errors import ArtefactError, DatagenError, InputError
from datagen.reading import shards
from datagen.records import Recipe
from datagen.sources.decode import Decoded, decode
from datagen.sources.scan import scan
from datagen.sources.whole import without_tail

SECONDS = float(os.environ.get("FUZZ_SECONDS", "600"))
"""how long the slow tier goes on"""
FAST = 400
LONGEST, MOST_MEMORY, CAP = 10.0, 500 << 20, Recipe().max_pixels
"""seconds and bytes that an image may take, and the pixels that the tool takes unless told otherwise"""
Mutation = Callable[[bytes, np.random.Generator], bytes]


class Hangs(BaseException):
    """One input took too long; no handler of ours may catch it."""


@cache
def valid() -> tuple[bytes, ...]:
    """Return whole files of all seven formats in many makes, and the small files of the corpus."""
    image = Image.fromarray(np.kron(noise(3, 4), np.ones((8, 5, 1), np.uint8)))
    grey, palette, clear = image.convert("L"), image.quantize(16), image.convert("RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x DigitalSourceType='a'/>", zip=True)
    text.add_text("a", "b" * 99, zip=True)
    many: dict[str, object] = {"save_all": True, "append_images": [image.rotate(90)]}
    made = [
        *(saved(image, "PNG", **how) for how in ({}, {"exif": exif}, {"icc_profile": rgb_profile()}, {"pnginfo": text}, many)),
        *(saved(palette, "PNG", **how) for how in ({}, {"transparency": 3})),
        *(png(noise(9, 7), 2, 8, interlaced=flag) for flag in (False, True)),
        *(png(noise(9, 7)[..., 0].astype(np.uint16) * 200, 0, 16, interlaced=flag) for flag in (False, True)),
        *(saved(each, "JPEG", **how) for each in (image, grey) for how in ({}, {"progressive": True}, {"exif": exif}, {"icc_profile": grey_profile(2)})),
        *(cmyk_jpeg(patches([(0, 99, 200, 40)]), how, icc) for how, icc in (("plain", b""), ("ycck", press_profile()))),
        *(saved(each, "WEBP", **how) for each in (image, clear) for how in ({}, {"lossless": True}, {"exif": exif}, many)),
        *(saved(each, "BMP") for each in (image, grey, palette, image.convert("1"))),
        *(saved(each, "GIF", **how) for each in (palette, grey) for how in ({}, many)),
        *(saved(image, "TIFF", **how) for how in ({}, many, *({"compression": kind} for kind in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")))),
        *(saved(each, "TIFF") for each in (clear, grey, palette, Image.fromarray(np.arange(99, dtype=np.uint16).reshape(9, 11)))),
        saved(image.convert("1"), "TIFF", compression="group4"),
        *(saved(each, "PPM") for each in (image, grey, image.convert("1"))),
        b"P3 3 2 255\n" + b"1 2 3 " * 6,
    ]
    return (*made, *(each.content for each in corpus() if 8 < len(each.content) < 5000))


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip a few bits."""
    raw = bytearray(data)
    for place in rng.integers(0, len(raw), int(rng.integers(1, 9))):
        raw[place] ^= 1 << int(rng.integers(8))
    return bytes(raw)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Take a piece out, often the end."""
    begin, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:begin] if rng.random() < 0.5 else data[:begin] + data[end:]


def splice(data: bytes, rng: np.random.Generator) -> bytes:
    """Go on with the rest of another file."""
    other = valid()[int(rng.integers(len(valid())))]
    return data[: int(rng.integers(len(data)))] + other[int(rng.integers(len(other))) :]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    """Put a piece in several times."""
    begin, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:end] + data[begin:end][:2000] * int(rng.integers(1, 20)) + data[end:]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    """Put noise in."""
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 50))) + data[place:]


def enlarge(data: bytes, rng: np.random.Generator) -> bytes:
    """Write a number at the edge of its range over a few bytes, mostly of the header."""
    raw = bytearray(data)
    number = int(rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 8000, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0]))
    packed = struct.pack(("<" if rng.random() < 0.5 else ">") + ("I" if number > 0xFFFF or rng.random() < 0.5 else "H"), number)
    place = int(rng.integers(max(1, min(len(raw), 120 if rng.random() < 0.8 else len(raw)))))
    raw[place : place + len(packed)] = packed
    return bytes(raw[: max(len(data), place)])


MUTATIONS: tuple[Mutation, ...] = (flip, cut, splice, repeat, insert, enlarge, enlarge)


def mended(data: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks made anew, so that what is wrong gets past them."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, place = data[:8], 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        out += data[place:end] + struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return out + data[place:]


def mutant(index: int) -> bytes:
    """Return a file that is broken in one to four ways; the same for the same index."""
    rng = np.random.default_rng([7, index])
    data = valid()[int(rng.integers(len(valid())))]
    for _ in range(int(rng.integers(1, 5))):
        data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng) or b"\0"
    return mended(data) if rng.random() < 0.7 else data


@contextmanager
def alarm() -> Iterator[None]:
    """Raise Hangs where the block takes too long."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(data: bytes) -> bool:
    """Read one broken file in every way, one after the other; returns whether the scan would use it."""
    used = check_decode(data)
    with alarm(), suppress(ArtefactError):
        assert shards.picture(data, "x").mode in {"L", "RGB"}
    return used


def check_decode(data: bytes) -> bool:
    """Decode one broken file as the scan does; returns whether it could be read."""
    with alarm():
        try:
            found: Decoded | None = decode(data, max_pixels=CAP)
        except InputError as error:
            assert error.hint and len(error.line()) <= 300 and error.line().isprintable()
            found = None
    with alarm():
        if found is not None:
            assert found.pixels.dtype == np.uint8 and found.pixels.ndim in (2, 3) and 0 < found.pixels.shape[0] * found.pixels.shape[1] <= CAP
            assert found.pixels.ndim == 2 or found.pixels.shape[2] == 3
            if len(kept := without_tail(data)) < len(data):
                digest, found = zlib.crc32(found.pixels), replace(found, pixels=found.pixels[:1])
                as_long = kept + bytes(len(data) - len(kept))  # of a damaged stream a JPEG reader makes other things where more bytes follow
                assert digest == zlib.crc32(decode(as_long, max_pixels=CAP).pixels), "a tail holds nothing of the image"
    return found is not None


def check_scan(root: Path, contents: list[bytes]) -> None:
    """Scan a folder of broken files with whole ones among them: a set or an error of ours."""
    for i, content in enumerate(contents):
        file = root / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    with alarm():
        try:
            assert len(scan(root, Recipe(on_conflict="drop", drop_small=True, allow_synthetic=True))) > 1
        except DatagenError as error:
            assert error.code == 3 and error.hint


def fuzz(root: Path, first: int, goes_on: Callable[[int], bool]) -> tuple[int, int]:
    """Try mutants from `first` on for as long as that says; returns how many were tried and how many could be read."""
    decode(valid()[0], max_pixels=CAP)
    held, index, used = forget(), first, 0
    last = os.open(root / "last", os.O_WRONLY | os.O_CREAT)
    with audit.recorded() as seen:
        while goes_on(index):
            os.pwrite(last, f"{index:12}".encode(), 0)
            try:
                used += check(mutant(index))
            except BaseException as error:
                error.add_note(f"mutant({index}), {len(mutant(index))} bytes")
                raise
            seen.opened.clear()
            assert not seen.events, (index, seen.events)
            assert peak() - held < MOST_MEMORY, f"mutant({index}) took {(peak() - held) >> 20} MB"
            index += 1
            if (index - first) % 2000 == 0:
                check_scan(root / f"r{index}", [mutant(k) for k in range(index - 64, index)])
    os.close(last)
    return index - first, used


@pytest.mark.parametrize("count", [60, pytest.param(4_000, marks=pytest.mark.slow)])
def test_broken_profiles_are_used_or_noted(count: int) -> None:
    """A colour profile lies packed in a PNG, so that mutants of whole files seldom reach into it."""
    files = {mode: Image.fromarray(noise(5, 5)).convert(mode) for mode in ("RGB", "L", "CMYK")}
    profiles = {"RGB": rgb_profile(), "L": grey_profile(2), "CMYK": press_profile()}
    held = forget()
    for index in range(count):
        rng = np.random.default_rng([8, index])
        mode = ("RGB", "L", "CMYK")[index % 3]
        broken = MUTATIONS[int(rng.integers(len(MUTATIONS)))](profiles[mode], rng)
        with alarm():
            found = decode(saved(files[mode], "TIFF" if mode == "CMYK" else "PNG", icc_profile=broken), max_pixels=CAP)
        assert found.pixels.shape[:2] == (5, 5) and found.notes in ((), (BROKEN,)), index
    assert peak() - held < MOST_MEMORY


def test_a_few_hundred_mutants(tmp_path: Path) -> None:
    tried, used = fuzz(tmp_path, 0, lambda index: index < FAST)
    check_scan(tmp_path / "r", [mutant(k) for k in range(64)])
    assert tried == FAST and 0.02 * FAST < used < 0.9 * FAST, "mutants must be neither all harmless nor all refused at once"


@pytest.mark.slow
@pytest.mark.timeout(int(SECONDS) + 600)
def test_ten_minutes_of_mutants(tmp_path: Path) -> None:
    end = time.monotonic() + SECONDS
    tried, used = fuzz(tmp_path, FAST, lambda index: time.monotonic() < end)
    print(f"{tried:,} mutants, {used:,} read")
    assert used
