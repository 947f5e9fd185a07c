"""Colours and bits as they are meant: ICC profiles (I2), CMYK (I4), 16 bits (I5), the same pixels on every machine (I7)."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from made_files import (
    ADOBE,
    INKS,
    SRGB,
    centres,
    chunk,
    cmyk_jpeg,
    grey_profile,
    noise,
    patches,
    png,
    press_profile,
    rgb_profile,
    saved,
    srgb_of_lab,
    srgb_of_xyz,
    tiff,
)
from PIL import Image

from datagen import colour
from datagen.errors import InputError
from datagen.sources.decode import Decoded, decode

CAP = 10**6
STEPS = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), axis=-1).reshape(18, -1, 3).astype(np.uint8)
KINDS = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}, "TIFF": {}}
SWAPPED = rgb_profile(SRGB[:, [1, 2, 0]])
"""columns are green, blue, red: the first channel of the file is the green of the picture"""


def seen(data: bytes) -> Decoded:
    return decode(data, max_pixels=CAP)


def furthest(pixels: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(pixels.astype(float) - expected).max())


def from_adobe(pixels: np.ndarray) -> np.ndarray:
    """Return what Adobe RGB (1998) means in sRGB, float levels [..., 3]."""
    return srgb_of_xyz((pixels / 255) ** (563 / 256) @ ADOBE.T)


@pytest.mark.parametrize("kind", KINDS)
def test_srgb_stays_swapped_channels_turn_back_and_adobe_rgb_is_brought_over(kind: str) -> None:
    plain = seen(saved(STEPS, kind, **KINDS[kind])).pixels
    assert np.array_equal(seen(saved(STEPS, kind, icc_profile=rgb_profile(), **KINDS[kind])).pixels, plain)
    turned = seen(saved(STEPS, kind, icc_profile=SWAPPED, **KINDS[kind]))
    assert turned.notes == () and furthest(turned.pixels, plain[..., [2, 0, 1]]) <= 1
    adobe = seen(saved(STEPS, kind, icc_profile=rgb_profile(ADOBE, 563 / 256), **KINDS[kind]))
    assert adobe.notes == () and furthest(adobe.pixels, from_adobe(plain)) <= 1
    assert furthest(plain, from_adobe(plain)) > 20, "else the profile does nothing and the test says nothing"


@pytest.mark.parametrize("icc", [b"broken", bytes(200), rgb_profile()[:300], press_profile(), grey_profile(2.0), rgb_profile()[:128] + b"\xff" * 400])
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_or_foreign_profile_is_srgb_and_noted(kind: str, icc: bytes) -> None:
    found = seen(saved(STEPS, kind, icc_profile=icc, **KINDS[kind]))
    assert np.array_equal(found.pixels, seen(saved(STEPS, kind, **KINDS[kind])).pixels)
    assert found.notes == (colour.BROKEN,)


def test_profiles_hold_for_palettes_alpha_and_grey() -> None:
    few = patches([(10, 200, 60), (255, 255, 255), (0, 0, 0), (90, 20, 240)])
    expected = from_adobe(few)
    adobe = rgb_profile(ADOBE, 563 / 256)
    palette = Image.fromarray(few).quantize(4, dither=Image.Dither.NONE)
    assert furthest(seen(saved(palette, icc_profile=adobe)).pixels, from_adobe(np.asarray(palette.convert("RGB")))) <= 1
    clear = np.dstack([few, np.full(few.shape[:2], 255, np.uint8)])
    clear[:, :16, 3] = 0
    found = seen(saved(clear, icc_profile=adobe)).pixels
    assert (found[:, :16] == 255).all() and furthest(found[:, 16:], expected[:, 16:]) <= 1
    grey = np.arange(256, dtype=np.uint8).reshape(8, 32)
    darker = seen(saved(grey, icc_profile=grey_profile(3.0))).pixels
    light = (grey / 255) ** 3
    assert darker.ndim == 2 and furthest(darker, 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)) <= 1
    assert np.array_equal(seen(saved(grey, icc_profile=rgb_profile())).pixels, grey)


def test_a_profile_turns_and_cuts_with_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = seen(saved(STEPS, icc_profile=SWAPPED)).pixels
    assert np.array_equal(seen(saved(STEPS, icc_profile=SWAPPED, exif=exif)).pixels, np.rot90(wide, -1))
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    eight = seen(saved((grey >> 8).astype(np.uint8), icc_profile=grey_profile(3.0))).pixels
    assert np.array_equal(seen(saved(Image.fromarray(grey), icc_profile=grey_profile(3.0))).pixels, eight)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_large_images_are_converted_in_strips_to_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(ALL) if mode == "I;16" else Image.fromarray(noise(50, 30)).convert(mode)
    image.info["icc_profile"] = {"CMYK": press_profile(), "L": grey_profile(2.0), "RGB": SWAPPED}.get(mode, b"broken")
    image.info |= {"transparency": 3} if mode == "P" else {}
    whole, notes = colour.eight_bits(image, []), []
    monkeypatch.setattr(colour, "_STRIP", 7 * image.width)
    assert np.array_equal(colour.eight_bits(image, notes), whole) and len(notes) == (mode not in ("CMYK", "L", "RGB"))


def test_many_threads_share_profiles() -> None:
    files = [saved(STEPS, icc_profile=icc) for icc in (SWAPPED, rgb_profile(ADOBE, 563 / 256), rgb_profile())] * 20
    with ThreadPoolExecutor(4) as pool:
        found = [decoded.pixels.tobytes() for decoded in pool.map(seen, files)]
    assert len(set(found)) == 3 and found == found[:3] * 20


NAIVE = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 255, 0, 0): (255, 0, 255), (0, 0, 255, 0): (255, 255, 0)}
NAIVE |= {(0, 0, 0, 255): (0, 0, 0), (255, 255, 0, 0): (0, 0, 255), (100, 30, 60, 0): (155, 225, 195), (40, 80, 120, 128): (107, 87, 67)}
"""eight patches of ink (255 is full) and their colour without a profile: (255 - C) * (255 - K) / 255"""
WAYS = ("inverted", "plain", "ycck", "tiff")


def cmyk(inks: np.ndarray, how: str, icc: bytes = b"") -> bytes:
    if how != "tiff":
        return cmyk_jpeg(inks, how, icc)
    return saved(Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes()), "TIFF", **({"icc_profile": icc} if icc else {}))


@pytest.mark.parametrize("how", WAYS)
def test_inks_without_a_profile(how: str) -> None:
    found = centres(seen(cmyk(patches(list(NAIVE)), how)).pixels)
    assert furthest(found, np.array(list(NAIVE.values()))) <= 3
    assert (found[0] == 255).all(), "paper is white"


@pytest.mark.parametrize("how", WAYS)
def test_inks_with_a_profile_have_its_colours(how: str) -> None:
    """The oracle is CIELAB by its formulas, not LittleCMS itself."""
    corners = patches([[255 * ink for ink in inks] for inks in INKS])
    found = seen(cmyk(corners, how, press_profile()))
    expected = srgb_of_lab(np.array(list(INKS.values()), float))
    assert found.notes == () and furthest(centres(found.pixels), expected) <= 3
    assert (centres(found.pixels)[0] >= 254).all()
    naive = centres(seen(cmyk(corners, how)).pixels)
    assert furthest(naive, expected) > 50, "else the profile does nothing"


@pytest.mark.parametrize("icc", [b"broken", rgb_profile(), grey_profile(2.0)])
def test_inks_with_a_broken_profile_are_as_without(icc: bytes) -> None:
    found = seen(cmyk(patches(list(NAIVE)), "inverted", icc))
    assert found.notes == (colour.BROKEN,) and furthest(centres(found.pixels), np.array(list(NAIVE.values()))) <= 3


ALL = np.arange(65536, dtype=np.uint16).reshape(256, 256)
UPPER = (ALL >> 8).astype(np.uint8)
THREE = np.dstack([ALL, ALL[::-1], ALL.T])


def big_endian(values: np.ndarray) -> bytes:
    return saved(Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes()), "TIFF")


def rgb_tiff(values: np.ndarray) -> bytes:
    height, width, _ = values.shape
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [16] * 3), 259: (3, [1]), 262: (3, [2]), 273: (4, [8]), 277: (3, [3])}
    return tiff(tags | {278: (4, [height]), 279: (4, [values.nbytes])}, values.astype("<u2").tobytes())


def test_every_value_of_sixteen_bits_of_grey() -> None:
    for data in (saved(ALL), saved(ALL, "TIFF"), big_endian(ALL), saved(ALL, "PPM"), png(ALL, 0, 16), png(ALL, 0, 16, interlaced=True)):
        assert np.array_equal(seen(data).pixels, UPPER)
    assert Image.open(io.BytesIO(big_endian(ALL))).mode == "I;16B"


def test_every_value_of_sixteen_bits_of_colour() -> None:
    expected = (THREE >> 8).astype(np.uint8)
    for data in (png(THREE, 2, 16), png(THREE, 2, 16, interlaced=True), rgb_tiff(THREE)):
        assert np.array_equal(seen(data).pixels, expected)
    opaque = np.full_like(ALL, 65535)
    assert np.array_equal(seen(png(np.dstack([THREE, opaque]), 6, 16)).pixels, expected)
    assert (seen(png(np.dstack([ALL, opaque]), 4, 16)).pixels == UPPER[..., None]).all()
    assert (seen(png(np.dstack([THREE, 0 * ALL]), 6, 16)).pixels == 255).all()


def test_one_clear_value_of_sixteen_bits_is_that_value_alone() -> None:
    clear = seen(png(ALL, 0, 16, before=chunk(b"tRNS", struct.pack(">H", 0x1234)))).pixels
    assert np.array_equal(clear, np.where(ALL == 0x1234, 255, UPPER))
    three = np.dstack([ALL] * 3)
    clear = seen(png(three, 2, 16, before=chunk(b"tRNS", struct.pack(">HHH", 0x1234, 0x1234, 0x1234)))).pixels
    assert np.array_equal(clear, np.where(three >> 8 == 0x12, 255, three >> 8)), "Pillow has cut the pixels before they are compared"


@pytest.mark.parametrize("values", [np.zeros((3, 3), np.float32), np.zeros((3, 3), np.int32)])
def test_floats_and_whole_numbers_of_32_bits_are_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="32-bit"):
        seen(saved(values, "TIFF"))


@pytest.mark.parametrize(("colour_type", "depth", "channels"), [(0, 1, 1), (0, 2, 1), (0, 4, 1), (0, 8, 1), (2, 8, 3)])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 3), (7, 7), (8, 8), (9, 17), (33, 20)])
def test_png_is_exact_and_interlaced_the_same(colour_type: int, depth: int, channels: int, size: tuple[int, int]) -> None:
    values = np.random.default_rng(depth).integers(0, 2**depth, (*size, channels), dtype=np.uint8)
    expected = (values * (255 // (2**depth - 1))).astype(np.uint8)
    for interlaced in (False, True):
        found = seen(png(values, colour_type, depth, interlaced=interlaced)).pixels
        assert np.array_equal(found if found.ndim == 3 else found[..., None], expected)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 75, 100])
def test_progressive_is_baseline(subsampling: int, quality: int) -> None:
    image = np.asarray(Image.fromarray(noise(9, 7)).resize((61, 83), Image.Resampling.BICUBIC))
    how = {"quality": quality, "subsampling": subsampling}
    baseline, progressive = (seen(saved(image, "JPEG", progressive=flag, **how)).pixels for flag in (False, True))
    assert furthest(baseline, progressive) <= 2 and furthest(baseline, image) < 130


GOLDEN = {
    "jpeg": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%z"
        "Pft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2A01*fP5dati0U`hb5di}c0sq7R82|wQ0|5a50000000000000031O)~M|HJ?%5C8!L00jXF0000000000"
        "009630|W&I5iwD55)>67GBY(pVgJMc836zS0|5X40000000000000360s{mF|HJ?z5dZ-L0tE#C0000000000009630|YY#5fmX&A~a!ff&bb73<CiG0ucid06ze&do<h)(!_cLz)%Z#"
        "j1YK?4QX!r9o36jj}L2ff(WH2kfJs0+lReG-y`*nm5<cKNij9K>`y)rrmT2oPjLkB6cOep;)k_$rLG(VS`;c+k($X)HXp!?KBUFazyKT_lw^p9Ta5c4AG@v&4|Tm)reMDo-iV2oJzygZ"
        "#;q#8f{2TprnV9+SG#)u*#",
        "ed8346c8d6007c36a930c0fb849e9208",
    ),
    "jpeg grey": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`kO^PyfIG3kU!a02l!Q5di<h02crN0|5X4"
        "0000000000000031O*5G!~iD{000I70S5&D0000000000009C61O)~W2NDxAK~ixcF*H$P|Jncu0RaF2KLA-fN0j-JUu#1Aq(1IjaEM%Z%_PyMQuPo{%98QUHbmpCJY9qV3m}OFTg}5|"
        "<N8uX7H#hAUDh>ITqEdS!R6!ilM}yqqJ-~i2xhEv6Xa`HUnRc)8OO;X|Je",
        "2c09eb3a79d7b3ff55651f4ff7d5dcfb",
    ),
    "webp": (
        "Qb|Te_y7O^S4BclR!}$~>;M1&a0dXL0V)^(5dc21Or1%mB%+}(7z_a5771(soic=eFxs}9#)`mTnf|KT%YL_Y%7DQNv*XMfJ5Bg+ct7@@I3&wJ0RF}YBO90l-*!EF=l3c-E~rYj6v);-"
        "L~NQ^^`kN~wp%A_*6uxT;*=x8(e(%a$m>F6NCib%r}a?d>W_W^7`5|)J(pMk@kRFfd^2`A<-#Svt(I{i?o2;Wp*a%-p`DJ1b&;ZL!wi&WEHBuA^c^yY7X@ZNuJq!1kEoY$TS!#D{+w7J"
        "LdFFe*(_^$_=L^EX>dFlJD??Hw$`{>6*#Urpx^)i",
        "42c4e32963311780a91087ec2ddd242e",
    ),
}
"""files of lossy formats in base 85, and the first half of the SHA-256 of their pixels with the decoders of Pillow's wheels for Linux"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may have other versions of libjpeg")
@pytest.mark.parametrize("name", GOLDEN)
def test_lossy_files_have_the_pixels_that_they_always_had(name: str) -> None:
    text, expected = GOLDEN[name]
    assert hashlib.sha256(seen(base64.b85decode(text)).pixels.tobytes()).hexdigest()[:32] == expected


def test_lossless_files_have_the_pixels_that_they_always_had() -> None:
    image = noise(33, 20, 7)
    for data in (png(image, 2), png(image, 2, interlaced=True), *(saved(image, kind, **KINDS[kind]) for kind in ("PNG", "TIFF", "WEBP")), saved(image, "BMP")):
        assert hashlib.sha256(seen(data).pixels.tobytes()).hexdigest()[:32] == "51dc0bbcddb8962c08acd51c9d9ff705"
