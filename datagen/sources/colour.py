"""Colours of an image's own ICC profile into sRGB, by LittleCMS."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

BROKEN = "broken or foreign colour profile: taken as sRGB"
_LARGEST = 1 << 24
_CLASSES = ("scnr", "mntr", "prtr", "spac")
_SPACES = {"RGB": ("RGB",), "L": ("GRAY", "RGB"), "CMYK": ("CMYK",)}
Change = Callable[[Image.Image], Image.Image]


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


@lru_cache(maxsize=16)
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
