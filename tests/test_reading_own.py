"""Files of our own encoder are decoded the quick way, everything else by Pillow, to the same pixels."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from datagen.formats import encode
from datagen.reading import shards

MARK = encode.MARKS["synthetic"]


def files(channels: int, mark: str) -> tuple[np.ndarray, list[bytes], bytes]:
    """Return images uint8 [N, H, W, C], their files and the head of each."""
    images = np.random.default_rng(channels).integers(0, 256, (20, 9, 7, channels), dtype=np.uint8)
    return images, encode.encode(images, "png", mark), encode.png_head((9, 7, channels), mark)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mark", ["", MARK])
def test_the_quick_way_gives_the_pixels_of_pillow(channels: int, mark: str) -> None:
    for image, content in zip(*files(channels, mark)[:2], strict=True):
        assert encode.is_own_png(content, files(channels, mark)[2])
        quick = shards._own(content)
        assert quick is not None and quick.is_contiguous()
        assert np.array_equal(quick.permute(1, 2, 0).numpy(), image)
        assert np.array_equal(shards._tensor(shards.picture(content, "")).numpy(), quick.numpy())


def test_a_file_that_holds_anything_else_goes_the_usual_way() -> None:
    images, (content, *_), head = files(3, MARK)
    turned, again = Image.fromarray(images[0]), io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    turned.save(again, "PNG", exif=exif, pnginfo=PngImagePlugin.PngInfo())
    extra = encode._chunk(b"eXIf", exif.tobytes()[6:])
    cut = content.index(b"IDAT") - 4
    others = [again.getvalue(), content[:-12] + extra + content[-12:], content[:cut] + extra + content[cut:], content + b"x", content[:-1], b"", head]
    assert not any(encode.is_own_png(other, head) for other in others)
    assert not encode.is_own_png(content, encode.png_head((9, 7, 1), MARK))
    assert not encode.is_own_png(content, encode.png_head((9, 7, 3), ""))


def test_without_opencv_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert shards._own(files(3, "")[1][0]) is None
