"""What classes and images are called inside files: text every loader takes, folder names every disk takes, keys without dots."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
FORBIDDEN = set('/\\:*?"<>|')
LONGEST = 200


def loader_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class names as valid, distinct Unicode text; bytes that are not UTF-8 become \\udcNN."""
    names = tuple(name.encode("utf-8", "backslashreplace").decode("utf-8") for name in classes)
    return names if len(set(names)) == len(names) else tuple(f"{i:04d}_{name}" for i, name in enumerate(names))


def safe(name: str) -> bool:
    """Whether a class name can be a folder's name on every system, and is seen as one by every loader."""
    if not name or name.startswith((".", "__")) or name != name.strip() or name.endswith("."):
        return False
    if not name.isprintable() or FORBIDDEN & set(name) or name.split(".", maxsplit=1)[0].casefold() in RESERVED:
        return False
    return len(name.encode("utf-8", "surrogatepass")) <= LONGEST


def class_folders(classes: Sequence[str]) -> tuple[str, ...]:
    """Return a folder name for each class: the names themselves, or 0007_slug for all where one is unsafe or two are twins.

    Twins differ in case or Unicode composition alone. Sorted folder names are in the order of the classes either way.
    """
    twins = {unicodedata.normalize("NFC", name).casefold() for name in classes}
    if len(twins) == len(classes) and all(map(safe, classes)):
        return tuple(classes)
    width = max(4, len(str(len(classes) - 1)))
    return tuple(f"{i:0{width}d}_{slug(name)}" for i, name in enumerate(classes))


def slug(name: str) -> str:
    """Return the letters and digits of a name joined by hyphens, at most 40 characters; "class" where there are none."""
    return re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", name)).strip("-")[:40].rstrip("-") or "class"


def key(label: int, index: int) -> str:
    """Return the name of an image within its set, without a dot and without the class's name."""
    return f"{label:04d}-{index:08d}"
