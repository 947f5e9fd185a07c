"""Reads files that others may have made: plain files alone, no links, devices or pipes, and no more than is asked for."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path, PurePosixPath

from datagen.errors import ArtefactError

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
VERIFY = "datagen describe --verify names what is damaged"


def plain(name: object) -> bool:
    """Whether a name from a file is relative, without empty parts, "." or "..", backslashes or NUL."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and str(path) == name


def opened(path: str | Path, root: str | Path | None = None) -> BufferedReader:
    """Open a plain file for reading.

    Args:
        path: the file.
        root: the folder that it must lie in; no folder between them may be a link either. None looks at the file alone.

    Raises:
        ArtefactError: it is missing, a link, a folder, a device or a pipe, or cannot be read.
    """
    place = os.fspath(path)
    folder, top = os.path.dirname(place), None if root is None else os.fspath(root)
    try:
        while top is not None and folder not in {top, "", os.sep}:
            if os.path.islink(folder):
                raise ArtefactError("is a link", where=folder, hint="put the folder itself there")
            folder = os.path.dirname(folder)
        if not hasattr(os, "O_NOFOLLOW") and os.path.islink(place):
            raise OSError(errno.ELOOP, "is a link")
        handle = os.open(place, _FLAGS)
    except FileNotFoundError as error:
        raise ArtefactError("is missing", where=place, hint="is this the right folder? copy the whole of it") from error
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ELOOP:
            raise ArtefactError("is a link", where=place, hint="put the file itself there") from error
        raise ArtefactError(getattr(error, "strerror", None) or "has a name that no file has", where=place) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ArtefactError("is no plain file", where=place)
    return os.fdopen(handle, "rb")


def content(path: str | Path, root: str | Path | None = None, *, limit: int | None = None) -> bytes:
    """Return the bytes of a plain file; raises as `opened`, and where it has more than `limit` bytes."""
    with opened(path, root) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise ArtefactError(f"is larger than {limit:,} bytes", where=path)
        try:
            return file.read() if limit is None else file.read(limit)
        except OSError as error:
            raise ArtefactError(error.strerror or "cannot be read", where=path) from error


def sha256(path: str | Path, root: str | Path | None = None) -> str:
    """Return the SHA-256 of a plain file's bytes as hex, read piece by piece; raises as `opened`."""
    with opened(path, root) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ArtefactError(error.strerror or "cannot be read", where=path) from error


def checked(path: str | Path, wanted: str, root: str | Path | None = None, *, of: str = "card") -> bytes:
    """Return the bytes of a plain file once their SHA-256 is the wanted one; raises as `opened`, and where it differs from that of the card."""
    if sha256(path, root) == wanted:
        found = content(path, root)
        if hashlib.sha256(found).hexdigest() == wanted:
            return found
    raise ArtefactError(f"is damaged: its SHA-256 differs from the {of}'s", where=path, hint="copy it again, or make it anew")
