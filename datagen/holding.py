"""Holds a folder for one process: by a lock, or by a file that says who holds it where the file system has no locks."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datagen import storage
from datagen.errors import ArtefactError, OutputError

_NO_LOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
SUFFIX = "-held"
NAME = f".lock{SUFFIX}"
AGAIN = 0.2
"""seconds between two tries to hold a folder without locks"""


@contextlib.contextmanager
def lock(folder: str | Path, name: str = ".lock", *, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder for this process alone; a killed process lets go by itself.

    Args:
        folder: is there already.
        name: of the file that is locked; the whole folder's, or that of a part of the work in it.
        wait: seconds to wait for another process that holds it.

    Raises:
        OutputError: when another process holds it still.
    """
    from filelock import FileLock, Timeout

    path = Path(folder) / name
    file = FileLock(path, timeout=wait)
    with contextlib.ExitStack() as until, storage.reporting(path):
        storage.before("lock", path)
        try:
            file.acquire()
            until.callback(file.release)
        except Timeout as error:
            raise OutputError("another datagen process works in this folder", where=folder, hint="wait for it, or give another --out") from error
        except OSError as error:
            if error.errno not in _NO_LOCK:
                raise
            until.enter_context(_waiting(Path(folder), f"{name}{SUFFIX}", wait))
        kept = until.pop_all()
    with kept:
        yield


@contextlib.contextmanager
def turn(path: str | Path) -> Iterator[None]:
    """Wait until no other process is within a block under the same lock file, then hold it; a killed process lets go by itself."""
    from filelock import FileLock

    with storage.reporting(path):
        storage.before("lock", path)
        file = FileLock(path)
        file.acquire()
    try:
        yield
    finally:
        file.release()


@contextlib.contextmanager
def _waiting(folder: Path, name: str, wait: float) -> Iterator[None]:
    """Hold a folder as `held` does, once whoever holds it lets go within so many seconds."""
    end = time.monotonic() + wait
    with contextlib.ExitStack() as until:
        while True:
            try:
                until.enter_context(held(folder, name))
                break
            except OutputError:
                if time.monotonic() >= end:
                    raise
                time.sleep(min(AGAIN, max(0.0, end - time.monotonic())))
        yield


@contextlib.contextmanager
def held(folder: Path, name: str = NAME) -> Iterator[None]:
    """Hold a folder by a file of that name in it within the block; what a process that is no more left behind is taken over.

    Raises:
        OutputError: another process holds it, or one on another machine did, which cannot be looked up from here.
    """
    path, own = folder / name, _described()
    if path.exists():
        other = _read(path)
        if not _gone(other, own):
            what = f"process {other.get('pid', '?')} on {other.get('host', 'another machine')} works in this folder"
            raise OutputError(what, where=folder, hint=f"wait for it, or give another --out; if it is no more, delete {name} in the folder")
        storage.remove(path)
    storage.create(path, storage.to_json(own))
    try:
        yield
    finally:
        storage.remove(path)


def _described() -> dict[str, Any]:
    return {"host": platform.node(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(ArtefactError):
        found = storage.read_json(path, limit=1 << 16)
        return found if isinstance(found, dict) else {}
    return {}


def _gone(other: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether the process of a description is surely no more: it was of this machine, before a restart or under a number given anew."""
    if other.get("host") != own["host"] or not isinstance(other.get("pid"), int):
        return False
    return other.get("boot") != own["boot"] or _started(other["pid"]) != other.get("started")


def _boot() -> str:
    """Return what names this start of the machine, "" where the system does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _started(pid: int) -> str:
    """Return when a process was started, in ticks since then; "" where there is none, "?" where the system does not say."""
    if not Path("/proc/self/stat").exists():
        return "?"
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    return ""
