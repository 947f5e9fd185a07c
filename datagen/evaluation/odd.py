"""What looks odd in a labelled folder: doubtful labels, near-duplicates, other sizes, brightness and ways of storing; nothing is repaired."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datagen import storage
from datagen.errors import InputError, OutputError, UsageError, printable
from datagen.pages import pictures, template
from datagen.progress import Progress
from datagen.recogniser import search, suspects
from datagen.records import Dataset, Recipe
from datagen.silence import silence
from datagen.sources import cache, decode, origin
from datagen.sources.shape import plan_shape

SIDE = 32
"""longest side of the images that are looked at"""
SHARE, SHOWN = 0.03, 60
"""share of the images that are listed as doubtful at most, and how many of a kind are on the page"""
LARGER, DEVIATIONS = 4.0, 6.0
"""times the median size, and robust standard deviations of brightness, from which an image is odd"""
ALIKE = 0.999
"""correlation from which two images are called near-duplicates, and levels that they may differ by in the mean"""
LEVELS = 6.0
UPRIGHT = {1: "as stored", 2: "mirrored", 3: "turned by 180°", 4: "mirrored upside down", 5: "mirrored and turned by 90°", 6: "turned by 90° to the right"}
UPRIGHT |= {7: "mirrored and turned by 270°", 8: "turned by 90° to the left"}
UNDOUBTED = f"labels were not doubted: that takes two classes, and {suspects.FOLDS} images of each"


def find(data: Dataset, recipe: Recipe, progress: Progress) -> tuple[dict[str, Any], np.ndarray]:
    """Return what is odd in a scanned set, by kind, as JSON values, and its images uint8 [N, H, W, C] reduced to 32 pixels.

    Trains three small recognisers for the doubtful labels: 150,000 images are shown at most.
    """
    (channels, height, width), _ = plan_shape(data, recipe)
    scale = min(1.0, SIDE / max(height, width))
    shape = (channels, max(8, round(height * scale)), max(8, round(width * scale)))
    images = np.asarray(cache.pixels(data, shape, recipe, progress=progress))
    found = {"labels": _labels(data, images, progress), "pairs": _pairs(data, images), "sizes": _sizes(data), "brightness": _brightness(data, images)}
    if not divisible(data):
        progress.say(UNDOUBTED)
    return {**found, "modes": _modes(data)}, images


def divisible(data: Dataset) -> bool:
    """Whether recognisers can be trained on a part of every class."""
    return len(data.classes) > 1 and int(np.bincount(data.labels, minlength=len(data.classes)).min()) >= suspects.FOLDS


def _labels(data: Dataset, images: np.ndarray, progress: Progress) -> list[dict[str, Any]]:
    """Return the images whose label is believed least, where another is believed more, the most doubtful first."""
    if not divisible(data):
        return []
    with progress.stage("doubtful labels", suspects.FOLDS * suspects.planned(len(data)).steps, 0):
        said = suspects.doubts(images, data.labels, len(data.classes), progress=lambda count, text: progress.advance(count))
    rows = said.ranked()[: max(1, round(SHARE * len(data)))]
    return [
        {
            "row": row,
            "file": data.paths[row],
            "label": data.classes[data.labels[row]],
            "own": round(float(said.own[row]), 4),
            "seems": data.classes[said.rival[row]],
            "other": round(float(said.other[row]), 4),
        }
        for row in rows.tolist()
        if said.other[row] > said.own[row]
    ]


def _pairs(data: Dataset, images: np.ndarray) -> list[dict[str, Any]]:
    """Return pairs of images that are nearly the same picture, the most alike first."""
    if len(data) < 2:
        return []
    numbers = search.descriptors(images, 16)
    numbers = numbers @ search.leading(numbers)
    apart, nearest = search.closest(numbers, numbers, others=True)
    found = []
    for row in np.argsort(apart, kind="stable").tolist():
        other = int(nearest[row])
        if apart[row] ** 2 > 2 * (1 - ALIKE):
            break
        differ = float(np.abs(images[row].astype(np.int16) - images[other]).mean())
        if differ <= LEVELS and (row < other or int(nearest[other]) != row):
            found.append({"row": row, "other_row": other, "file": data.paths[row], "other": data.paths[other], "levels": round(differ, 2)})
    return [{**each, "same_class": bool(data.labels[each["row"]] == data.labels[each["other_row"]])} for each in found]


def _sizes(data: Dataset) -> list[dict[str, Any]]:
    """Return the images that are several times larger or smaller than most, with the way up that their file asks for."""
    longest = data.sizes.max(axis=1)
    middle = float(np.median(longest))
    rows = np.flatnonzero((longest > LARGER * middle) | (longest * LARGER < middle))
    rows = rows[np.argsort(-np.abs(np.log(longest[rows] / middle)), kind="stable")]
    kept: list[dict[str, Any]] = [
        {"row": int(row), "file": data.paths[row], "height": int(data.sizes[row, 0]), "width": int(data.sizes[row, 1])} for row in rows
    ]
    for each in kept[:SHOWN]:
        each["orientation"] = UPRIGHT.get(_header(data, each["row"])[1], "as stored")
    return kept


def _brightness(data: Dataset, images: np.ndarray) -> list[dict[str, Any]]:
    """Return the images that are much darker or brighter than the others of their class."""
    mean = images.reshape(len(images), -1).mean(axis=1)
    off = np.zeros(len(mean))
    for label in np.unique(data.labels):
        rows = data.labels == label
        middle = np.median(mean[rows])
        off[rows] = (mean[rows] - middle) / max(1.0, 1.4826 * float(np.median(np.abs(mean[rows] - middle))))
    rows = np.flatnonzero(np.abs(off) > DEVIATIONS)
    rows = rows[np.argsort(-np.abs(off[rows]), kind="stable")]
    return [{"row": int(row), "file": data.paths[row], "label": data.classes[data.labels[row]], "level": round(float(mean[row]), 1)} for row in rows]


def _modes(data: Dataset) -> list[str]:
    """Return sentences about how the images are stored."""
    step = max(1, len(data) // SHOWN)
    kinds = [_header(data, row)[0] for row in range(0, len(data), step)]
    coloured = sum(kind in {"RGB", "RGBA", "P", "CMYK"} for kind in kinds)
    if data.grey and coloured:
        return [
            f"all colour channels are equal in every image, and {coloured} of {len(kinds)} files looked at store three: grey is enough and three times faster"
        ]
    return []


def _header(data: Dataset, row: int) -> tuple[str, int]:
    """Return mode and EXIF orientation (1 to 8) of an image's file; "" and 1 where it is a row of a table or cannot be read."""
    base = origin.base_of(data.roots[int(data.test[row])] or data.roots[0])
    try:
        if origin.row_of(base, data.paths[row]) is not None:
            return "", 1
        with silence(), Image.open(f"{base}/{data.paths[row]}", formats=decode.FORMATS) as image:
            return image.mode, int(image.getexif().get(0x0112, 1))
    except (OSError, ValueError, SyntaxError, InputError, Image.DecompressionBombError):
        return "", 1


def check(target: Path) -> None:
    """Refuse a page's name before anything is looked at.

    Raises:
        UsageError: it is no .html.
        OutputError: it is there already.
    """
    if target.suffix.lower() != ".html":
        raise UsageError("is not the name of a page", where=target, hint="--page FILE.html")
    if target.exists():
        raise OutputError("exists already", where=target, hint="give another --page or move it away")


def write(target: Path, data: Dataset, found: dict[str, Any], images: np.ndarray, notes: list[str]) -> Path:
    """Write what `find` found as one self-contained page and return its name; OutputError where it exists."""
    shown = {kind: [_pictured(each, images) for each in rows[:SHOWN]] if kind != "modes" else rows for kind, rows in found.items()}
    counts = np.bincount(data.labels, minlength=len(data.classes)).tolist()
    page = (
        template.environment(Path(__file__).parent)
        .get_template("scan.html")
        .render(
            found=shown,
            totals={kind: len(rows) for kind, rows in found.items()},
            images=len(data),
            doubted=divisible(data),
            test=int(data.test.sum()),
            classes=sorted(zip(map(printable, data.classes), counts, strict=True), key=lambda pair: pair[1]),
            problems=data.problems[:SHOWN],
            skipped=len(data.problems),
            notes=notes,
        )
    )
    storage.make_folder(target.absolute().parent)
    storage.create(target, page.encode("utf-8"))
    return target


def _pictured(each: dict[str, Any], images: np.ndarray) -> dict[str, Any]:
    found = {**each, "picture": pictures.png(images[each["row"]])}
    return {**found, "other_picture": pictures.png(images[each["other_row"]])} if "other_row" in each else found
