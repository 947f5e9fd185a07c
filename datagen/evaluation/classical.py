"""Classically augmented copies of labelled images by albumentations: what synthetic images must be better than."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from datagen import seeds
from datagen.errors import ResourceError, UsageError, nearest

QUIET = "NO_ALBUMENTATIONS_UPDATE"
"""with this in the environment albumentations does not ask a server for its newest version when it is imported"""
SHIFT, SCALE, DEGREES = 0.08, 0.1, 10.0
"""largest shift as a share of the side, change of scale as a share of 1, turn in degrees"""
LIGHT, GAMMA = 0.2, (80, 125)
"""largest change of brightness and contrast as shares; gamma in per cent"""
HUE, SATURATION = 10, 30
"""largest change of hue (of 180) and of saturation (of 255)"""


def _geometric(a: ModuleType, channels: int) -> list[Any]:
    """Shift, scale and turn a little; what comes in repeats the edge."""
    import cv2

    shift, scale, turn = (-SHIFT, SHIFT), (1 - SCALE, 1 + SCALE), (-DEGREES, DEGREES)
    return [a.Affine(scale=scale, translate_percent=shift, rotate=turn, keep_ratio=True, border_mode=cv2.BORDER_REPLICATE, p=1)]


def _colour(a: ModuleType, channels: int) -> list[Any]:
    """Change brightness and contrast, and hue and saturation of colour or gamma of grey."""
    light = a.RandomBrightnessContrast(brightness_limit=LIGHT, contrast_limit=LIGHT, p=1)
    if channels == 1:
        return [light, a.RandomGamma(gamma_limit=GAMMA, p=1)]
    return [light, a.HueSaturationValue(hue_shift_limit=HUE, sat_shift_limit=SATURATION, val_shift_limit=0, p=1)]


def _flips(a: ModuleType, channels: int) -> list[Any]:
    """Mirror every second image, left for right, then what geometric does."""
    return [a.HorizontalFlip(p=0.5), *_geometric(a, channels)]


POLICIES: Mapping[str, Callable[[ModuleType, int], list[Any]] | None] = {"none": None, "geometric": _geometric, "colour": _colour, "flips": _flips}
"""by name, what turns the module albumentations and a number of channels into transforms; none repeats the images as they are"""


def copies(images: np.ndarray, labels: np.ndarray, *, policy: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return augmented copies of labelled images.

    Every image is used once before any comes again, and in every stretch from the start the classes are in proportion to the
    labels. The copy at a place depends on the images, policy, seed and place alone, not on the count.

    Args:
        images: uint8 [N, H, W, C], array or memory map; C is 1 or 3, sides 8 to 256 pixels. Grey stays grey, in three equal channels too.
        labels: int64 [N].
        policy: a key of `POLICIES`.
        count: copies wanted, 0 or more; nothing but they is held in memory.
        seed: decides order and changes.

    Returns:
        copies uint8 [count, H, W, C] and their labels int64 [count].

    Raises:
        UsageError: the policy is unknown.
        ResourceError: albumentations is not installed or cannot be imported.
        ValueError: no images, or images and labels that do not match.
    """
    if policy not in POLICIES:
        raise UsageError(f"unknown policy {policy!r}", hint=nearest(policy, POLICIES))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in {1, 3} or not len(images) or len(images) != len(labels):
        raise ValueError(f"images uint8 [N, H, W, 1 or 3] and as many labels are needed, got {images.dtype} {images.shape} and {len(labels)} labels")
    rows = _rows(np.asarray(labels), count, seed)
    made = np.empty((count, *images.shape[1:]), np.uint8)
    with _calm():
        changed = _pipelines(policy)
        for place, row in enumerate(rows.tolist()):
            made[place] = changed(images[row], seeds.integer("copy", seed, place))
    return made, np.asarray(labels)[rows].astype(np.int64)


def _rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return which image each copy is of, int64 [count]: permutations of all, one after another, in each of which the classes are spread evenly."""
    rows = np.empty(count, np.int64)
    for epoch, start in enumerate(range(0, count, len(labels))):
        rng = seeds.stream("copies", seed, epoch)
        order = rng.permutation(len(labels))
        place = np.empty(len(labels))
        for label in np.unique(labels):
            members = np.flatnonzero(labels[order] == label)
            place[members] = (np.arange(len(members)) + rng.random()) / len(members)
        rows[start : start + len(labels)] = order[np.argsort(place, kind="stable")][: count - start]
    return rows


def _pipelines(policy: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return what changes one image uint8 [H, W, C] by a seed; images that are grey get the transforms of one channel."""
    build = POLICIES[policy]
    if build is None:
        return lambda image, seed: image
    a = _albumentations()
    by_channels = {channels: a.Compose(build(a, channels)) for channels in (1, 3)}

    def changed(image: np.ndarray, seed: int) -> np.ndarray:
        grey = bool((image == image[..., :1]).all())
        pipeline = by_channels[1 if grey else 3]
        pipeline.set_random_seed(seed)
        result: np.ndarray = pipeline(image=np.ascontiguousarray(image[..., :1] if grey else image))["image"]
        return result

    return changed


def _albumentations() -> ModuleType:
    """Import albumentations without its question to a server; the environment is as it was afterwards."""
    before = os.environ.get(QUIET)
    os.environ[QUIET] = "1"
    try:
        import albumentations
    except Exception as error:
        hint = f"pip install albumentations ({str(error)[:80]})"
        raise ResourceError("augmented copies need albumentations, which cannot be imported", hint=hint) from error
    finally:
        if before is None:
            del os.environ[QUIET]
        else:
            os.environ[QUIET] = before
    return albumentations  # type: ignore[no-any-return]


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Silence warnings for as long as other people's code runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
