"""Where a set of files is committed under known names: a local folder, or a prefix of an object store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from datagen import holding, storage, untrusted
from datagen.errors import DatagenError, OutputError, UsageError

LITTER = (".DS_Store", "Thumbs.db", "._", ".nfs")
"""how names of files begin that desktops and NFS leave anywhere"""
PASSED = (storage.TEMPORARY, storage.FAULT, *LITTER)
"""how names begin that are neither ours nor in the way"""


class Place(Protocol):
    """A place that holds the files of one set; `str` of it is what the user gave. Names are relative, with slashes."""

    folder: Path | None
    """the local folder, None where there is none"""
    abreast: int
    """how many files are worth asking for at once"""
    many: bool
    """whether it takes a file an image"""
    replaces: bool
    """whether a damaged file of ours is replaced by a whole one; where not, what is there is final"""
    trust: str
    """what it means that a shard is there"""

    def where(self, name: str) -> str:
        """Return a name as a person would look for it."""

    def read(self, name: str, limit: int = storage.JSON_LIMIT) -> bytes | None:
        """Return the bytes of a small file, None where there is none; a DatagenError where it cannot be read or has more than `limit` bytes."""

    def fetched(self, name: str) -> AbstractContextManager[Path]:
        """Hold a file as a local one, which must not be changed, for the block; the path leads nowhere where there is none."""

    def states(self, name: str, size: int, sha256: str) -> bool | None:
        """Return whether the place itself vouches for a file of that size and SHA-256, False where it is not there; None where its bytes are to be read."""

    def create(self, name: str, content: bytes | Callable[[Any], None], *, again: bool = False) -> tuple[int, str]:
        """Commit a file as `storage.create` does, its folder made where missing; returns size and SHA-256 as hex, OutputError where it cannot."""

    def create_all(self, files: Iterable[tuple[str, bytes]]) -> int:
        """Commit many small files of ours; returns their bytes."""

    def strangers(self, ours: Iterable[str]) -> list[str]:
        """Return names at the top that are not among ours and would be mixed with them; OutputError where no set can be."""

    def begin(self, folder: str) -> None:
        """Make an inner folder, and all above it, durable."""

    def guard(self, name: str, content: bytes) -> None:
        """Try to put a file that is there once more, with the same bytes; OutputError where that is not refused."""

    def settle(self, *folders: str) -> None:
        """Make the names in inner folders durable."""

    def held(self) -> AbstractContextManager[None]:
        """Hold the place for this process where it can be held; OutputError where another one holds it."""

    def sweep(self) -> None:
        """Delete what a killed process of ours left half done."""

    def free(self) -> tuple[int, int]:
        """Return the free bytes and files, very large numbers where there is no limit."""


def outside(target: str | Path, *read: str | Path | None, option: str = "--out") -> None:
    """Raise OutputError where what is to be written is, or lies inside, something of the user's that is read; URLs and None are passed over."""
    here = Path(target).resolve()
    for source in read:
        if source is None or is_url(str(source)):
            continue
        there = Path(source).resolve()
        if here == there or there in here.parents:
            raise OutputError(f"lies inside {source}, which is read and never written to", where=target, hint=f"give another {option}")


def strangers(folder: Path, ours: Iterable[str]) -> list[str]:
    """Return the names in a folder that are not ours; OutputError where it is a file.

    What was half done, reports of faults, and what desktops and NFS leave there unasked is passed over.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, a folder is needed", where=folder, hint="give another --out")
    if not folder.is_dir():
        return []
    known = set(ours)
    with storage.reporting(folder):
        return sorted(entry.name for entry in folder.iterdir() if entry.name not in known and not entry.name.startswith(PASSED))


class Folder:
    """A local folder as a Place."""

    abreast = 1
    many = True
    replaces = True
    trust = "there and whole"

    def __init__(self, folder: str | Path) -> None:
        self.folder: Path | None = Path(folder)
        self.root = Path(folder)

    def __str__(self) -> str:
        return str(self.root)

    def where(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.root / name)

    def read(self, name: str, limit: int = storage.JSON_LIMIT) -> bytes | None:
        """Return the bytes of a plain file; ArtefactError where it is there and is none, is too large, or cannot be read."""
        path = self.root / name
        return untrusted.content(path, self.root, limit=limit) if os.path.lexists(path) else None

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield the file itself."""
        yield self.root / name

    def states(self, name: str, size: int, sha256: str) -> bool | None:
        """Vouch for nothing but that a file is missing."""
        return None if (self.root / name).is_file() else False

    def create(self, name: str, content: bytes | Callable[[Any], None], *, again: bool = False) -> tuple[int, str]:
        """Commit a file as `storage.create` does."""
        storage.make_folder((self.root / name).parent)
        return storage.create(self.root / name, content, again=again)

    def create_all(self, files: Iterable[tuple[str, bytes]]) -> int:
        """Commit many files as `storage.create_all` does."""
        return storage.create_all(self.root, files)

    def strangers(self, ours: Iterable[str]) -> list[str]:
        """Return what `strangers` finds."""
        return strangers(self.root, ours)

    def begin(self, folder: str) -> None:
        """Make an inner folder and sync every folder above it that may be read."""
        inner = storage.make_folder(self.root / folder)
        for each in (*_above(self.root), *reversed([parent for parent in inner.parents if self.root == parent or self.root in parent.parents])):
            if os.access(each, os.R_OK):
                storage.sync_folder(each)

    def guard(self, name: str, content: bytes) -> None:
        """Do nothing: a link never overwrites."""

    def settle(self, *folders: str) -> None:
        """Sync inner folders."""
        for path in [self.root / folder for folder in folders]:
            if path.is_dir():
                storage.sync_folder(path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and lock it."""
        storage.make_folder(self.root)
        with holding.lock(self.root):
            yield

    def sweep(self) -> None:
        """Delete temporary files in the folder and below."""
        storage.sweep(self.root)

    def free(self) -> tuple[int, int]:
        """Return the free bytes and inodes of its disk."""
        return storage.free_bytes(self.root)


def _above(folder: Path) -> list[Path]:
    """Return the folders above one on the same disk, any of which a killed run of the same command may have made."""
    device = folder.stat().st_dev
    return [each for each in folder.absolute().parents if each.stat().st_dev == device]


def is_url(path: str | Path) -> bool:
    """Whether a path is a URL, such as s3://BUCKET/PREFIX, and no local one."""
    return isinstance(path, str) and "://" in path


def at(path: str | Path, failing: type[DatagenError] = OutputError) -> Place:
    """Return the place that a path or a URL names; nothing is asked of it yet.

    Args:
        path: a local path, or s3://BUCKET/PREFIX as text.
        failing: the kind of error where an object store cannot be reached or refuses.

    Raises:
        UsageError: a URL that is not of S3 or names no bucket.
        ResourceError: the package for it is missing.
    """
    if not is_url(path):
        return Folder(path)
    scheme, _, rest = str(path).partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3":
        raise UsageError(f"{scheme}:// is not known", where=path, hint="s3://BUCKET/PREFIX or a local folder")
    if not bucket or {".", "..", ""} & set(prefix.strip("/").split("/") if prefix.strip("/") else []) or set(rest) & set("?#\\\0"):
        raise UsageError("names no bucket and prefix", where=path, hint="s3://BUCKET/PREFIX")
    from datagen.objects import Store

    return Store(bucket, prefix.strip("/"), failing)
