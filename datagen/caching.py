"""The folder of what can be made anew: where it is, and when what nobody uses any more leaves it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from pathlib import Path

from datagen import seeds, storage
from datagen.errors import OutputError

MONTH = 30 * 86400.0
"""seconds without use after which an entry is deleted"""
DIGITS = 32
"""hex digits of an entry's name"""
OWN = re.compile(rf"[0-9a-f]{{{DIGITS}}}(?:[0-9a-f]{{8}})?")
"""names of entries (40 digits are those of earlier pixels); what else lies in the cache folder, which may be any folder, is not ours"""


def cache_folder() -> Path:
    """Return the folder of everything that can be made anew: $DATAGEN_CACHE, else the user's own cache folder."""
    if given := os.environ.get("DATAGEN_CACHE"):
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("datagen", appauthor=False))


def entry(kind: str, *parts: object) -> Path:
    """Return the path, without a suffix, of the entry that is made from these parts; its name is their digest, by which `forget` knows it."""
    return cache_folder() / kind / seeds.digest(*parts).hex()[:DIGITS]


def forget(kind: str) -> int:
    """Delete the entries of one kind that nobody used for a month, so that copies of images do not outlive their use by years.

    An entry is a folder, or the files of one name whatever their suffixes, the name being a digest; `storage.used` marks it, or any file of it, as used.

    Args:
        kind: inner folder of the cache folder; it need not be there.

    Returns:
        how many entries are gone; one that cannot be deleted stays, and that is no error.
    """
    latest: dict[str, float] = {}
    paths: dict[str, list[Path]] = {}
    for path in sorted((cache_folder() / kind).glob("*")):
        name = path.name.partition(".")[0]
        if OWN.fullmatch(name):
            paths.setdefault(name, []).append(path)
            latest[name] = max(latest.get(name, 0.0), *map(_used_at, [path, *path.glob("*")]))
    old = [name for name in paths if time.time() - latest[name] > MONTH]
    gone = 0
    for name in old:
        with contextlib.suppress(OutputError):
            for path in paths[name]:
                storage.remove(path)
            gone += 1
    return gone


def _used_at(path: Path) -> float:
    try:
        status = os.lstat(path)
    except OSError:  # its own process has taken it away, or it is another user's
        return time.time()
    return status.st_mtime if stat.S_ISDIR(status.st_mode) else max(status.st_mtime, status.st_atime)
