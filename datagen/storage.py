"""The only module that writes, renames, syncs or deletes a file; every operation passes one hook where tests inject faults."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from datagen.errors import ArtefactError, DatagenError, OutputError

TEMPORARY = ".tmp-"
SEAL = "seal"
SYNCS = 16
hook: Callable[[str, str], None] | None = None
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_LOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINK = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}


def _before(operation: str, path: object) -> None:
    if hook is not None:
        hook(operation, os.fspath(path) if isinstance(path, os.PathLike) else str(path))


@contextlib.contextmanager
def reporting(path: object) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names the path and the remedy."""
    try:
        yield
    except DatagenError:
        raise
    except OSError as error:
        hint = "free some space and give the same command again" if error.errno in _FULL else "check the folder and give the same command again"
        raise OutputError(error.strerror or str(error), where=path, hint=hint) from error


def make_folder(path: str | Path, *, durable: bool = True) -> Path:
    """Create a folder and its parents where missing, their names durable unless told otherwise, and return it.

    Raises:
        OutputError: something else is in the way, or the disk fails.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError("is a file, a folder is needed", where=path, hint="give another --out")
    with reporting(path):
        missing = [each for each in (path, *path.parents) if not each.is_dir()]
        if missing:
            _before("mkdir", path)
            path.mkdir(parents=True, exist_ok=True)
        for each in reversed(missing if durable else []):
            if os.access(each.parent, os.R_OK):
                sync_folder(each.parent)
    return path


def sync_folder(path: str | Path) -> None:
    """Make the names in a folder durable (fsync); quiet where the system cannot sync folders, OutputError where it fails."""
    if os.name == "nt":
        return
    with reporting(path):
        _before("fsync-folder", path)
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(handle)


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            _before("unlink", temporary)
            temporary.unlink(missing_ok=True)


class _NotSyncedError(OSError):
    """An fsync failed: what was written may be lost, even where the next fsync of the same file says that all is well."""


def _write_synced(path: Path, write: Callable[[Any], None]) -> tuple[int, str]:
    _before("open", path)
    with open(path, "xb") as file:
        _before("write", path)
        write(file)
        file.flush()
        try:
            _before("fsync", path)
            os.fsync(file.fileno())
        except OSError as error:
            raise _NotSyncedError(error.errno, error.strerror) from error
        size = file.tell()
    return size, hash_file(path)


@contextlib.contextmanager
def _written(path: Path, write: Callable[[Any], None]) -> Iterator[tuple[Path, int, str]]:
    """Yield a temporary file beside a path, whole and durable, its size and its SHA-256; where fsync fails, a new file is tried once."""
    for last in (False, True):
        with _temporary(path) as temporary:
            try:
                size, sha = _write_synced(temporary, write)
            except _NotSyncedError:
                if last:
                    raise
                continue
            yield temporary, size, sha
            return


def _writer(content: bytes | Callable[[Any], None]) -> Callable[[Any], None]:
    return content if callable(content) else lambda file: file.write(content)


def create(path: str | Path, content: bytes | Callable[[Any], None], *, again: bool = False) -> tuple[int, str]:
    """Write a new file so that it is whole and durable or not there at all; never overwrites.

    Args:
        path: the final name; its folder exists.
        content: the bytes, or a function that writes them to a binary file opened for it; it is called again where fsync fails.
        again: the name is ours alone, so a file left there by a killed process is kept when equal and replaced when damaged.

    Returns:
        size in bytes and SHA-256 as hex.

    Raises:
        OutputError: when the file exists or cannot be written.
    """
    path = Path(path)
    with reporting(path), _written(path, _writer(content)) as (temporary, size, sha):
        if not (again and _settled(temporary, path, sha)):
            _link(temporary, path, sha)
        sync_folder(path.parent)
    return size, sha


def create_all(root: str | Path, files: Iterable[tuple[str, bytes]]) -> int:
    """Write many small files of ours below a folder, each as `create(..., again=True)` does; returns their bytes.

    Syncs of many files are waited for together, and the folders are synced once at the end.
    """
    root, folders, size = Path(root), set(), 0
    with ThreadPoolExecutor(SYNCS) as pool, reporting(root):
        pending = []
        for name, content in files:
            path = root / name
            if path.parent not in folders:
                folders.add(make_folder(path.parent))
            size += len(content)
            pending.append(pool.submit(_create_unsynced, path, content))
            if len(pending) >= SYNCS * 16:
                pending.pop(0).result()
        for future in pending:
            future.result()
        for folder in sorted(folders):
            sync_folder(folder)
    return size


def _create_unsynced(path: Path, content: bytes) -> None:
    with _written(path, _writer(content)) as (temporary, _, sha):
        if not _settled(temporary, path, sha):
            _link(temporary, path, sha)


def write_all(root: str | Path, files: Iterable[tuple[str, bytes]]) -> int:
    """Write many new files below a folder, not synced: for what is thrown away soon; returns their bytes, OutputError where one exists."""
    root, folders, size = Path(root), {make_folder(root, durable=False)}, 0
    with reporting(root):
        for name, content in files:
            path = root / name
            if path.parent not in folders:
                folders.add(make_folder(path.parent, durable=False))
            _before("open", path)
            with open(path, "xb") as file:
                size += file.write(content)
    return size


@contextlib.contextmanager
def opened_log(path: str | Path) -> Iterator[Any]:
    """Open a log of ours for another program's output: a binary file that is written at its end."""
    with reporting(path):
        _before("append", path)
        file = open(path, "ab")  # noqa: SIM115
    with file:
        yield file


def _settled(temporary: Path, path: Path, sha: str) -> bool:
    """Whether a file that was there already is now the wanted one; False where there is none."""
    if not os.path.lexists(path):
        return False
    if path.is_symlink() or not path.is_file():
        raise OutputError("something else is in the way", where=path, hint="move it away and give the same command again")
    if hash_file(path) != sha:
        _rename(temporary, path, sha)
    return True


def _rename(temporary: Path, path: Path, sha: str) -> None:
    """Rename over what is there; an error after the rename was done, as from a network file system whose reply was lost, is none."""
    _before("rename", path)
    try:
        os.replace(temporary, path)
    except OSError:
        if os.path.lexists(temporary) or path.is_symlink() or not path.is_file() or hash_file(path) != sha:
            raise


def _link(temporary: Path, path: Path, sha: str) -> None:
    """Give a file its final name; an error after that was done is none, as in `_rename`."""
    try:
        _before("link", path)
        os.link(temporary, path)
    except OSError as error:
        if os.path.lexists(path) and os.path.samestat(os.lstat(temporary), os.lstat(path)):
            return
        if isinstance(error, FileExistsError):
            raise OutputError("exists already", where=path, hint="give another --out or move it away") from error
        if error.errno not in _NO_LINK:
            raise
        _before("claim", path)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        _rename(temporary, path, sha)


def replace(path: str | Path, content: bytes | Callable[[Any], None]) -> tuple[int, str]:
    """Write a file in one step over an older one of ours, so that a reader sees the old or the new one; returns as `create`."""
    path = Path(path)
    with reporting(path), _written(path, _writer(content)) as (temporary, size, sha):
        _rename(temporary, path, sha)
        sync_folder(path.parent)
    return size, sha


def rename_folder(source: str | Path, target: str | Path) -> None:
    """Give a finished folder its final name and make the name durable; OutputError when the target exists and is not empty."""
    with reporting(target):
        _before("rename", target)
        os.rename(source, target)
        sync_folder(Path(target).parent)


def append(path: str | Path, text: str) -> None:
    """Append text to a log of ours (UTF-8); a line cut by a kill is closed first, so that every later line can be read."""
    path = Path(path)
    with reporting(path):
        _before("append", path)
        with open(path, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(text.encode("utf-8", "surrogateescape"))


def remove(path: str | Path) -> None:
    """Delete one file or one folder of ours; nothing happens when it is not there."""
    path = Path(path)
    with reporting(path):
        _before("unlink", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def to_json(value: object) -> bytes:
    """Return a value as stable, readable JSON bytes; names of files that are not UTF-8 are kept by escapes."""
    return (json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def write_json(path: str | Path, value: object) -> None:
    """Write a value as JSON over an older file of ours, in one step."""
    replace(path, to_json(value))


def seal(value: Mapping[str, Any]) -> bytes:
    """Return a mapping as JSON bytes that hold their own SHA-256, so that `read_sealed` finds any changed byte."""
    return to_json({**value, SEAL: hashlib.sha256(to_json(value)).hexdigest()})


def read_sealed(path: str | Path, *, limit: int = 1 << 30) -> dict[str, Any]:
    """Read a mapping that `seal` wrote; returns it without the seal, raises as `read_json` and where a byte was changed."""
    value = read_json(path, limit=limit)
    if isinstance(value, dict) and isinstance(value.pop(SEAL, None), str) and Path(path).read_bytes() == seal(value):
        return value
    raise ArtefactError("is damaged: its bytes and its own checksum disagree", where=path, hint="copy it again or make it anew")


def read_json(path: str | Path, *, limit: int = 1 << 30) -> Any:
    """Read a JSON file of ours.

    Raises:
        ArtefactError: when it is missing, larger than `limit` bytes, or not JSON.
    """
    try:
        if os.path.getsize(path) > limit:
            raise ArtefactError(f"is larger than {limit:,} bytes", where=path)
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise ArtefactError("is missing", where=path, hint="is this the right folder?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError("cannot be read as JSON", where=path, hint="the file is damaged; make it anew") from error


@contextlib.contextmanager
def lock(folder: str | Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder for this process alone; a killed process lets go by itself.

    Args:
        folder: that is there.
        wait: seconds to wait for another process that holds it.

    Raises:
        OutputError: when another process holds it.
    """
    from filelock import FileLock, Timeout

    from datagen import holding

    path = Path(folder) / ".lock"
    held = FileLock(path, timeout=wait)
    with contextlib.ExitStack() as until, reporting(path):
        _before("lock", path)
        try:
            held.acquire()
            until.callback(held.release)
        except Timeout as error:
            raise OutputError("another datagen process works in this folder", where=folder, hint="wait for it, or give another --out") from error
        except OSError as error:
            if error.errno not in _NO_LOCK:
                raise
            until.enter_context(holding.held(Path(folder)))
        kept = until.pop_all()
    with kept:
        yield


def sweep(folder: str | Path) -> int:
    """Delete the temporary files that a killed process of ours left in a folder and below; returns how many."""
    found = [Path(root) / name for root, _, names in os.walk(folder) for name in names if name.startswith(TEMPORARY)]
    for path in found:
        remove(path)
    return len(found)


def free_bytes(path: str | Path) -> tuple[int, int]:
    """Return the free bytes and free inodes (a very large number where unknown) for the folder, or its nearest parent."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    if not hasattr(os, "statvfs"):
        return shutil.disk_usage(path).free, 1 << 60
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize, stat.f_favail or (1 << 60)
