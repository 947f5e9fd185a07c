"""One file into pixels: whole or refused (F1, F2, F4), upright (I1), on white (I3), resized with antialiasing (I6)."""

from __future__ import annotations

import io
import struct
import subprocess
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from datagen.errors import ArtefactError, InputError
from datagen.reading.shards import picture
from datagen.sources.decode import Unreadable, decode, to_shape

CAP = 64_000_000
Transpose = Image.Transpose
TURNS = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
FILES = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "jpeg progressive": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "ppm": ("PPM", {}),
}


def made(height: int = 24, width: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(image: np.ndarray | Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **how)
    return buffer.getvalue()


def refusal(data: bytes | Path, cap: int = CAP) -> str:
    with pytest.raises(InputError) as caught:
        decode(data, max_pixels=cap)
    assert caught.value.hint and "\n" not in caught.value.line()
    return caught.value.what


def cut_everywhere(name: str, step: int, first: int) -> None:
    kind, how = FILES[name]
    data = saved(made(), kind, **how)
    whole = decode(data, max_pixels=CAP).pixels
    refused = 0
    for length in range(first, len(data), step):
        try:
            assert np.array_equal(decode(data[:length], max_pixels=CAP).pixels, whole), f"half an image from {length} of {len(data)} bytes"
        except InputError:
            refused += 1
    assert refused >= len(range(first, len(data), step)) - 2


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_never_half_decoded(name: str) -> None:
    cut_everywhere(name, 140, 0)
    cut_everywhere(name, 10**9, len(saved(made(), FILES[name][0], **FILES[name][1])) - 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_every_seventh_byte_is_never_half_decoded(name: str) -> None:
    cut_everywhere(name, 7, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_that_ends_in_zeros_is_refused(kind: str) -> None:
    data = saved(made(), kind)
    for length in (len(data) // 3, len(data) - 40):
        refusal(data[:length] + bytes(len(data) - length))


def test_a_flipped_byte_inside_png_pixels_is_refused() -> None:
    data = bytearray(saved(made()))
    data[len(data) // 2] ^= 1
    assert "damaged" in refusal(bytes(data))


def test_noise_and_nothing_are_refused() -> None:
    rng = np.random.default_rng(1)
    assert refusal(b"") == "is empty"
    for _ in range(50):
        refusal(rng.bytes(int(rng.integers(1, 400))))
        refusal(b"\x89PNG\r\n\x1a\n" + rng.bytes(200))
        refusal(b"\xff\xd8\xff\xe0" + rng.bytes(200))


OTHERS = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "psd": b"8BPS\0\1" + bytes(60),
    "fits": b"SIMPLE  =                    T" + bytes(60),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "pdf": b"%PDF-1.7\n",
    "ico": b"\0\0\1\0\1\0" + bytes(40),
    "zip": b"PK\3\4" + bytes(40),
    "html": b"<!doctype html>",
    "xcf": b"gimp xcf v011\0" + bytes(40),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_without_starting_anything(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    file = tmp_path / "x.png"
    file.write_bytes(OTHERS[name])
    assert "no image of a known format" in refusal(file)


@pytest.mark.parametrize("suffix", ["", ".txt", ".jpg", ".eps"])
def test_content_decides_and_not_the_name(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_bytes(saved(made()))
    assert np.array_equal(decode(file, max_pixels=CAP).pixels, made())


def bomb(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width,height", [(20_000, 20_000), (10_000_000, 1), (1, 2_000_000_000), (9_500, 9_500), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_from_its_header(width: int, height: int) -> None:
    data = bomb(width, height)
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        cap = CAP if width * height > CAP else 1_000_000
        assert "pixels" in refusal(data, cap)
    assert time.monotonic() - began < 0.2
    assert not heard


def test_the_cap_is_a_setting() -> None:
    data = saved(made(20, 30))
    assert decode(data, max_pixels=600).pixels.shape == (20, 30, 3)
    assert "30 x 20 pixels, more than 599" in refusal(data, 599)


def test_a_compressed_text_bomb_is_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * (80 << 20), zip=True)
    data = saved(made(), pnginfo=info)
    began = time.monotonic()
    refusal(data)
    assert time.monotonic() - began < 0.5


def test_a_folder_or_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.png"):
        with pytest.raises(InputError):
            decode(path, max_pixels=CAP)
    with pytest.raises(Unreadable, match="cannot be read"):
        decode(tmp_path / "no.png", max_pixels=CAP)


def test_only_the_first_frame_is_used_and_said() -> None:
    frames = [Image.fromarray(made(seed=i)).quantize(16).convert("P") for i in range(3)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    seen = decode(data, max_pixels=CAP)
    assert np.array_equal(seen.pixels, np.asarray(frames[0].convert("RGB")))
    assert "animated" in seen.notes[0]


def an_f(scale: int = 1) -> np.ndarray:
    """An F in colour uint8 [7 * scale, 5 * scale, 3]: no turn or mirror image of it equals it."""
    shape = ["#####", "#....", "#....", "####.", "#....", "#....", "#...."]
    mask = np.array([[c == "#" for c in row] for row in shape])
    image = np.where(mask[..., None], np.uint8([200, 40, 40]), np.uint8([20, 90, 240]))
    return np.kron(image, np.ones((scale, scale, 1), np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind,how,most", [("PNG", {}, 0), ("TIFF", {}, 0), ("WEBP", {"lossless": True, "exact": True}, 0), ("JPEG", {"subsampling": 0}, 12)])
def test_every_orientation_comes_out_upright(orientation: int, kind: str, how: dict[str, object], most: int) -> None:
    upright = Image.fromarray(an_f(8))
    turned = upright if TURNS[orientation] is None else upright.transpose(TURNS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = decode(saved(turned, kind, exif=exif, **how), max_pixels=CAP)
    assert seen.notes == ()
    assert seen.pixels.shape == an_f(8).shape
    assert np.abs(seen.pixels.astype(int) - an_f(8)).max() <= most


def test_orientation_by_xmp() -> None:
    info = PngImagePlugin.PngInfo()
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    info.add_itxt("XML:com.adobe.xmp", xmp)
    turned = Image.fromarray(an_f()).transpose(Transpose.ROTATE_90)
    assert np.array_equal(decode(saved(turned, pnginfo=info), max_pixels=CAP).pixels, an_f())


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0" + bytes(range(60)), b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x63\0\0\0\0\0\0"])
def test_broken_orientation_is_upright(exif: bytes) -> None:
    seen = decode(saved(an_f(8), "JPEG", exif=exif, subsampling=0), max_pixels=CAP)
    assert seen.pixels.shape == an_f(8).shape
    assert np.abs(seen.pixels.astype(int) - an_f(8)).max() <= 12
    assert all("orientation" in note for note in seen.notes)


def test_an_orientation_out_of_range_is_noted() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    assert "orientation" in decode(saved(an_f(), exif=exif), max_pixels=CAP).notes[0]


CANARY = (250, 1, 250)


def has_canary(pixels: np.ndarray) -> bool:
    return bool((pixels == CANARY).all(axis=-1).any()) if pixels.ndim == 3 else False


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_on_white_and_hides_its_colour(kind: str) -> None:
    image = np.zeros((4, 6, 4), np.uint8)
    image[..., :3], image[:, 3:, :3], image[:, 3:, 3], image[0, 3:, 3] = CANARY, (10, 20, 30), 255, 128
    seen = decode(saved(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})), max_pixels=CAP).pixels
    assert not has_canary(seen)
    assert (seen[:, :3] == 255).all()
    assert (seen[1:, 3:] == (10, 20, 30)).all()
    assert np.abs(seen[0, 3:].astype(int) - np.round(np.array([10, 20, 30]) * 128 / 255 + 127)).max() <= 1


def test_palette_with_and_without_transparency() -> None:
    palette = Image.new("P", (3, 2))
    palette.putpalette([*CANARY, 5, 6, 7, 255, 0, 0] + [0] * (256 - 3) * 3)
    palette.putdata([0, 1, 2, 2, 1, 0])
    opaque = decode(saved(palette), max_pixels=CAP).pixels
    assert np.array_equal(opaque, np.asarray(palette.convert("RGB")))
    for clear in (0, bytes([0, 255, 255])):
        seen = decode(saved(palette, transparency=clear), max_pixels=CAP).pixels
        assert not has_canary(seen)
        assert seen[0].tolist() == [[255] * 3, [5, 6, 7], [255, 0, 0]]


def test_grey_with_alpha_and_grey_with_one_clear_value_stay_grey() -> None:
    both = np.dstack([np.uint8([[7, 50], [7, 200]]), np.uint8([[0, 255], [0, 255]])])
    assert decode(saved(both), max_pixels=CAP).pixels.tolist() == [[255, 50], [255, 200]]
    assert decode(saved(both[..., 0], transparency=7), max_pixels=CAP).pixels.tolist() == [[255, 50], [255, 200]]


def test_colour_with_one_clear_value() -> None:
    image = np.full((2, 2, 3), 9, np.uint8)
    image[0, 0] = CANARY
    seen = decode(saved(image, transparency=CANARY), max_pixels=CAP).pixels
    assert seen[0, 0].tolist() == [255] * 3 and (seen[1] == 9).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_one_bit_images_are_black_and_white(kind: str) -> None:
    bits = np.random.default_rng(3).random((9, 11)) < 0.5
    seen = decode(saved(Image.fromarray(bits), kind), max_pixels=CAP).pixels
    assert np.array_equal(seen if seen.ndim == 2 else seen[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_upper_eight(kind: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(decode(saved(values, kind), max_pixels=CAP).pixels, (values >> 8).astype(np.uint8))


def test_floats_are_refused() -> None:
    assert "32-bit" in refusal(saved(np.zeros((3, 3), np.float32), "TIFF"))


@pytest.mark.parametrize("icc", [b"", b"broken", bytes(200)])
def test_cmyk_and_broken_profiles_do_not_crash(icc: bytes) -> None:
    data = saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG", icc_profile=icc)
    assert (decode(data, max_pixels=CAP).pixels == 255).all()


def test_warnings_of_the_caller_are_as_before() -> None:
    before = list(warnings.filters)
    refusal(bomb(9_500, 9_500), 10)
    assert warnings.filters == before


def test_libtiff_says_nothing_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    data = saved(made(20, 30), "TIFF", compression="tiff_deflate")
    broken = data[:9] + bytes(8) + data[17:]
    refusal(broken)
    with pytest.raises(ArtefactError):
        picture(broken, "x")
    assert capfd.readouterr().err == ""
    with pytest.raises(OSError):
        Image.open(io.BytesIO(broken)).load()
    assert "ZIPDecode" in capfd.readouterr().err, "afterwards it says what it likes"


def test_same_size_is_identity() -> None:
    for resize in ("crop", "pad", "stretch"):
        assert np.array_equal(to_shape(made(), (3, 24, 20), resize), made())


def test_chess_becomes_middle_grey() -> None:
    chess = np.kron(np.indices((32, 32)).sum(axis=0) % 2, np.ones((1, 1))).astype(np.uint8) * 255
    for resize in ("crop", "pad", "stretch"):
        small = to_shape(chess, (1, 16, 16), resize)
        assert set(np.unique(small[2:-2, 2:-2])) <= {127, 128}
    assert to_shape(np.uint8([[0, 255], [255, 0]]), (1, 1, 1), "stretch")[0, 0, 0] in (127, 128)


def test_resizing_equals_pillows_bicubic() -> None:
    expected = np.asarray(Image.fromarray(made(50, 40)).resize((16, 20), Image.Resampling.BICUBIC))
    assert np.abs(to_shape(made(50, 40), (3, 20, 16), "crop").astype(int) - expected).max() <= 1


def test_crop_takes_the_middle_pad_keeps_all_stretch_fills() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = (0, 200, 0)
    assert (to_shape(image, (3, 20, 20), "crop")[:, 2:-2] == (0, 200, 0)).all()
    padded = to_shape(image, (3, 20, 20), "pad")
    assert (padded[0] == padded[0, 0]).all() and (padded[10, 7:13] == (0, 200, 0)).all()
    stretched = to_shape(image, (3, 20, 20), "stretch")
    assert (stretched[:, :4] == 0).all() and (stretched[:, 7:13] == (0, 200, 0)).all()


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_any_size_becomes_the_shape(resize: str) -> None:
    for height, width in [(1, 1), (3, 5), (1, 20), (20, 1), (100, 7), (33, 34)]:
        for channels in (1, 3):
            for image in (made(height, width), made(height, width)[..., 0]):
                out = to_shape(image, (channels, 12, 16), resize)
                assert out.shape == (12, 16, channels) and out.dtype == np.uint8


def test_grey_and_colour_change_into_each_other() -> None:
    grey = made()[..., 0]
    assert np.array_equal(to_shape(grey, (3, 24, 20), "crop"), np.dstack([grey] * 3))
    assert np.array_equal(to_shape(np.dstack([grey] * 3), (1, 24, 20), "crop")[..., 0], grey)
    assert np.array_equal(to_shape(made(), (1, 24, 20), "crop")[..., 0], np.asarray(Image.fromarray(made()).convert("L")))
