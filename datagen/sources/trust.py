"""What says of an image that no camera took it: an AI mark in the file, a column of its table, a folder of our own shards."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datagen import storage
from datagen.errors import ArtefactError, InputError
from datagen.sources.listing import LOOK, problem

if TYPE_CHECKING:
    from datagen.records import Recipe
    from datagen.sources.judge import Case

COLUMN, SAYS = "source", frozenset(("synthetic", "rule"))
"""the column of tables and shards, and the words in it, that say who made an image"""
HINT = "give real images, or --allow-synthetic to take these as real"
_PROPERTY = rb"DigitalSourceType"
_VALUES = (
    rb"\s*=\s*[\"']([^\"'<>]{0,300})[\"']",
    rb"\s*>([^<>]{0,300})<",
    rb"\s[^<>]{0,300}?resource\s*=\s*[\"']([^\"'<>]{0,300})[\"']",
)
_MARK = re.compile(_PROPERTY + b"(?:" + b"|".join(_VALUES) + b")")
_MADE = re.compile(rb"(?:trainedAlgorithmic|compositeWithTrainedAlgorithmic|algorithmic)Media$")


def mark(info: Any) -> str:
    """Return the AI mark that an image file carries, such as "trainedAlgorithmicMedia", "" where it carries none.

    It is the XMP property DigitalSourceType (IPTC Photo Metadata Standard), as attribute, element or resource. The packet is
    searched, never parsed as XML, so it cannot make a parser expand or fetch anything.

    Args:
        info: Pillow's `info` of a loaded image; its XMP is text or bytes.
    """
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    for found in _MARK.finditer(packet.replace(b"\0", b"") if isinstance(packet, bytes) else b""):
        value = next(group for group in found.groups() if group is not None)
        if made := _MADE.search(value.strip()):
            return made[0].decode("ascii")
    return ""


def says_so(value: object) -> bool:
    """Whether a value of the source column is one of the words for synthetic images."""
    return isinstance(value, str) and value.strip().casefold() in SAYS


def refuse_shards(path: str | os.PathLike[str]) -> None:
    """Raise InputError where a source is a set of shards that datagen wrote, finished or not, or lies in its data/."""
    place = Path(os.path.abspath(path))
    for folder in (place, *place.parents[:3]):
        inside = place.relative_to(folder).parts
        ours = os.path.isdir(folder / ".datagen") and any(os.path.isfile(folder / name) for name in ("manifest.json", ".datagen/plan.json"))
        if ours and inside[:1] in ((), ("data",)):
            raise InputError(f"is a set of synthetic images that datagen made{_contents(folder)}", where=path, hint=HINT)


def _contents(folder: Path) -> str:
    """Return how many images a set holds and its first file, "" where its manifest does not say."""
    try:
        shards = storage.read_json(folder / "manifest.json")["shards"]
        return f": {sum(sum(shard['rows'].values()) for shard in shards):,} images, first file {shards[0]['file']}"
    except (ArtefactError, LookupError, TypeError, AttributeError):
        return ""


def judge_made(case: Case, recipe: Recipe) -> None:
    """Refuse a case whose images say that they are synthetic, or note it where that is allowed."""
    reasons = dict.fromkeys(case.listing.made, f"its {COLUMN} column says so")
    reasons |= {number: f"AI mark {remark['made']}" for number, remark in case.looks.remarks.items() if remark.get("made")}
    found = [number for number in np.flatnonzero(case.kept).tolist() if number in reasons]
    if not found:
        return
    paths = case.listing.paths
    case.problems += [problem(paths[i], f"says that it is synthetic ({reasons[i]})", "replace it by a real image, or --allow-synthetic", LOOK) for i in found]
    noun = "1 image says that it is" if len(found) == 1 else f"{len(found):,} images say that they are"
    told = f"{noun} synthetic, first {paths[found[0]]} ({reasons[found[0]]})"
    if recipe.allow_synthetic:
        case.notes.append(told)
    else:
        case.refuse(told, HINT)
