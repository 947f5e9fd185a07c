"""The only module that writes, renames, syncs or deletes a file; every operation passes one hook where tests inject faults."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from datagen import untrusted
from datagen.errors import ArtefactError, DatagenError, OutputError

TEMPORARY, FAULT = ".tmp-", "datagen-error-"
"""how names of what is half done and of reports of faults begin"""
STALE = 3600.0
"""seconds without a change after which a temporary file is nobody's"""
SEAL = "seal"
JSON_LIMIT = 1 << 28
"""bytes that a JSON file of ours may have"""
SYNCS = 16
URLS = {f"{scheme}:" for scheme in ("s3", "s3a", "gs", "gcs", "az", "abfs", "hf", "memory", "file", "http", "https")}
"""first part of the path that a URL becomes when it is taken for one"""
hook: Callable[[str, str], None] | None = None
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_LINK = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}


def before(operation: str, path: object) -> None:
    """Say to the hook what is about to be done to a path."""
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
    if path.parts and path.parts[0] in URLS:
        raise OutputError("is a URL, a folder is needed", where=path, hint="synthesize, export and ShardDataset take s3://BUCKET/PREFIX, as text")
    with reporting(path):
        missing = [each for each in (path, *path.parents) if not each.is_dir()]
        if missing:
            before("mkdir", path)
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
        before("fsync-folder", path)
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
def scratch(path: Path) -> Iterator[Path]:
    """Yield a new name beside `path` for what is to get that name or to be thrown away; it is deleted after the block."""
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            before("unlink", temporary)
            temporary.unlink(missing_ok=True)


class _NotSyncedError(OSError):
    """An fsync failed: what was written may be lost, even where the next fsync of the same file says that all is well."""


def _write_synced(path: Path, write: Callable[[Any], None]) -> tuple[int, str]:
    before("open", path)
    with open(path, "xb") as file:
        before("write", path)
        write(file)
        file.flush()
        try:
            before("fsync", path)
            os.fsync(file.fileno())
        except OSError as error:
            raise _NotSyncedError(error.errno, error.strerror) from error
        size = file.tell()
    return size, hash_file(path)


@contextlib.contextmanager
def _written(path: Path, write: Callable[[Any], None]) -> Iterator[tuple[Path, int, str]]:
    """Yield a temporary file beside a path, whole and durable, its size and its SHA-256; where fsync fails, a new file is tried once."""
    for last in (False, True):
        with scratch(path) as temporary:
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
            before("open", path)
            with open(path, "xb") as file:
                size += file.write(content)
    return size


@contextlib.contextmanager
def opened_log(path: str | Path) -> Iterator[Any]:
    """Open a log of ours for another program's output: a binary file that is written at its end."""
    with reporting(path):
        before("append", path)
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
    before("rename", path)
    try:
        os.replace(temporary, path)
    except OSError:
        if os.path.lexists(temporary) or path.is_symlink() or not path.is_file() or hash_file(path) != sha:
            raise


def _link(temporary: Path, path: Path, sha: str) -> None:
    """Give a file its final name; an error after that was done is none, as in `_rename`."""
    try:
        before("link", path)
        os.link(temporary, path)
    except OSError as error:
        if os.path.lexists(path) and os.path.samestat(os.lstat(temporary), os.lstat(path)):
            return
        if isinstance(error, FileExistsError):
            raise OutputError("exists already", where=path, hint="give another --out or move it away") from error
        if error.errno not in _NO_LINK:
            raise
        before("claim", path)
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
        before("rename", target)
        os.rename(source, target)
        sync_folder(Path(target).parent)


def append(path: str | Path, text: str) -> None:
    """Append text to a log of ours (UTF-8); a line cut by a kill is closed first, so that every later line can be read."""
    path = Path(path)
    with reporting(path):
        before("append", path)
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
        before("unlink", path)
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


def read_sealed(path: str | Path, *, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Read a mapping that `seal` wrote; returns it without the seal, raises as `read_json` and where a byte was changed."""
    return unseal(untrusted.content(path, limit=limit), path)


def unseal(content: bytes, where: object) -> dict[str, Any]:
    """Return the mapping in bytes that `seal` made; ArtefactError, naming the file `where`, when they are no JSON or a byte was changed."""
    value = parse_json(content, where)
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(value, dict) and isinstance(value.pop(SEAL, None), str) and content == seal(value):
            return value
    raise ArtefactError("is damaged: its bytes and its own checksum disagree", where=where, hint="copy it again or make it anew")


def read_json(path: str | Path, *, limit: int = JSON_LIMIT) -> Any:
    """Read a JSON file of ours.

    Raises:
        ArtefactError: when it is missing, no plain file, larger than `limit` bytes, or not JSON.
    """
    return parse_json(untrusted.content(path, limit=limit), path)


def parse_json(content: bytes, where: object) -> Any:
    """Return the value of a JSON document; ArtefactError where it is none, or holds NaN or infinity, which we never write."""
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ArtefactError("cannot be read as JSON", where=where, hint="the file is damaged; make it anew") from error


def _no_number(name: str) -> Any:
    raise ValueError(name)


def fill(path: str | Path, pieces: Iterable[bytes]) -> None:
    """Write a new file piece by piece, not synced: for what is thrown away soon; OutputError where it exists or cannot be written."""
    with reporting(path):
        before("open", path)
        with open(path, "xb") as file:
            file.writelines(pieces)


def used(path: str | Path) -> None:
    """Mark a file of ours as just used, by its time of change; quiet where it has gone."""
    with contextlib.suppress(OSError):
        os.utime(path)


def sweep(folder: str | Path, *, unused: float = 0.0) -> int:
    """Delete the temporary files that a killed process of ours left in a folder and below; returns how many.

    Args:
        folder: where they are.
        unused: seconds since when nothing was written to them; STALE where other processes may be at work, 0 where none is.
    """
    found = [Path(root) / name for root, _, names in os.walk(folder) for name in names if name.startswith(TEMPORARY)]
    found = [path for path in found if not unused or time.time() - _written_at(path) > unused]
    for path in found:
        remove(path)
    return len(found)


def _written_at(path: Path) -> float:
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:  # its own process has taken it away
        return math.inf


def free_bytes(path: str | Path) -> tuple[int, int]:
    """Return the free bytes and free inodes (a very large number where unknown) for the folder, or its nearest parent."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    if not hasattr(os, "statvfs"):
        return shutil.disk_usage(path).free, 1 << 60
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize, stat.f_favail or (1 << 60)
