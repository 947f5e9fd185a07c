"""Any image that Pillow opened as 8-bit levels in sRGB: 16 bits, inks, transparency, and ICC profiles by LittleCMS."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageCms, TiffImagePlugin

from datagen.errors import InputError

BROKEN = "broken or foreign colour profile: taken as sRGB"
_LARGEST, _LARGEST_TILE, _STRIP = 1 << 22, 1 << 22, 1 << 21
_CLASSES = ("scnr", "mntr", "prtr", "spac")
_SPACES = {"RGB": ("RGB",), "L": ("GRAY", "RGB"), "CMYK": ("CMYK",)}
Change = Callable[[Image.Image], Image.Image]


def load(image: Image.Image) -> Image.Image:
    """Return an opened image with its pixels as the file means them, where Pillow would take them otherwise.

    CMYK of a JPEG without Adobe's marker is not inverted, 16 bits in 32 become 16, and the one transparent colour of 16-bit RGB is
    cut to 8 bits as its pixels are.

    Raises:
        InputError: a tile of a TIFF, which is decoded whole, is far larger than the image. Anything that Pillow raises.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        sides = [side for tag in (322, 323) if isinstance(side := image.tag_v2.get(tag), int)]
        if len(sides) == 2 and sides[0] * sides[1] > max(_LARGEST_TILE, 4 * image.width * image.height):
            raise InputError("has tiles far larger than the image", hint="save it again without tiles")
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and image.format == "PNG" and any(tile.args == "RGB;16B" for tile in image.tile):  # type: ignore[attr-defined]
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    image.load()
    meant = image
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        meant = ImageChops.invert(image)
    elif image.mode == "I" and image.format in ("PPM", "PNG"):
        meant = Image.fromarray(np.clip(np.asarray(image), 0, 65535).astype(np.uint16))
    meant.info = image.info
    return meant


def eight_bits(image: Image.Image, notes: list[str]) -> np.ndarray:
    """Return uint8 [H, W] or [H, W, 3] of any mode in sRGB; 16 bits are cut to their upper 8, transparency is laid on white.

    Large images are converted in strips, as a whole one would be held several times at once.

    Args:
        image: loaded, and upright if it is to be so.
        notes: gets a sentence where its colour profile cannot be used.

    Raises:
        InputError: it has 32 bits a channel.
    """
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        return _eight_bits(image, notes)
    found: np.ndarray | None = None
    for top in range(0, image.height, rows):
        strip = _eight_bits(image.crop((0, top, image.width, min(top + rows, image.height))), notes if top == 0 else [])
        found = np.empty((image.height, *strip.shape[1:]), np.uint8) if found is None else found
        found[top : top + rows] = strip
    assert found is not None
    return found


def _eight_bits(image: Image.Image, notes: list[str]) -> np.ndarray:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = np.asarray(to_srgb(Image.fromarray((values >> 8).astype(np.uint8)), profile, notes))
        clear = image.info.get("transparency")
        return np.where(values == clear, np.uint8(255), grey) if isinstance(clear, int) else grey
    if image.mode in ("I", "F"):
        raise InputError("has 32-bit values", hint="save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        grey_like = image.mode in ("1", "L", "LA", "La")
        image = image.convert("LA" if grey_like else "RGBA")
        white = Image.new("L" if grey_like else "RGB", image.size, "white")
        white.paste(to_srgb(image.convert(white.mode), profile, notes), mask=image.getchannel("A"))
        return np.asarray(white)
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(to_srgb(image, profile, notes))


def to_srgb(image: Image.Image, profile: object, notes: list[str]) -> Image.Image:
    """Return an image in sRGB: relative colorimetric with black point compensation; one whose profile is sRGB within a level stays as it is.

    Args:
        image: mode L, RGB or CMYK.
        profile: bytes of its ICC profile, None or empty without one.
        notes: gets a sentence where the profile cannot be used; the image is taken as sRGB then.

    Returns:
        mode L for L, else RGB. CMYK without a profile is light times ink: (255 - C) * (255 - K) / 255.
    """
    if profile:
        try:
            image = _change(bytes(profile) if isinstance(profile, bytes | bytearray) else b"", image.mode)(image)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append(BROKEN)
    return image.convert("RGB") if image.mode == "CMYK" else image


@lru_cache(maxsize=8)
def _change(profile: bytes, mode: str) -> Change:
    """Return what brings images of a mode from a profile to sRGB; one of PyCMSError, OSError and ValueError where the profile does not fit."""
    if not 128 < len(profile) <= _LARGEST:
        raise ValueError("no profile")
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space, kind = opened.profile.xcolor_space.strip(), opened.profile.device_class
    if space not in _SPACES[mode] or kind not in _CLASSES:
        raise ValueError("another kind of profile")
    taken = "L" if space == "GRAY" else space
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    made = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), taken, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags)
    if _changes_nothing(made, taken):
        return lambda image: image
    return lambda image: made.apply(image.convert(taken)).convert("L" if mode == "L" else "RGB")


def _changes_nothing(made: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour of a grid of 17 steps a channel moves by more than one level."""
    if mode == "CMYK":
        return False
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = steps[None] if mode == "L" else np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    moved = np.asarray(made.apply(Image.fromarray(grid))).astype(int)
    return bool(np.abs(moved - (grid[..., None] if mode == "L" else grid)).max() <= 1)
