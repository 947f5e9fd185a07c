"""Faults at every operation and power losses after every step of a small set: each returns what was wrong afterwards."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import checker
import numpy as np
import pytest
import synthetic
from disk import DATA, NAMES, Disk, Serial, lose_power

from datagen import storage
from datagen.errors import OutputError
from datagen.synthesis.run import synthesize

FORMATS = ("parquet", "webdataset", "folder")
CLASSES = ("a", "b", "c")
EACH = 2
SHORT = -1
"""every write takes half of what it is given"""
KILL = 0
FAULTS = (KILL, SHORT, errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.EINTR)


class Dead(BaseException):
    """Stands for a process that is no more: nothing may catch it."""


class Fault:
    """Hook that fails at the n-th operation: dies there and stays dead, or fails `times` times with an errno."""

    def __init__(self, at: int, number: int = KILL, times: int = 1) -> None:
        self.at, self.number, self.times, self.count = at, number, times, 0

    def __call__(self, operation: str, path: str) -> None:
        self.count += 1
        if self.number == KILL and self.count >= self.at:
            raise Dead
        if self.number > 0 and self.at <= self.count < self.at + self.times:
            raise OSError(self.number, os.strerror(self.number))


class Unsynced:
    """Hook under which the n-th fsync fails, and those of the next files until `times` have; notes what is done to each file."""

    def __init__(self, at: int, times: int, folders: bool) -> None:
        self.at, self.times, self.kinds = at, times, {"fsync-folder"} if folders else {"fsync"}
        self.count, self.failed, self.again = 0, [], []  # type: tuple[int, list[str], list[str]]

    def __call__(self, operation: str, path: str) -> None:
        if path in self.failed and operation != "unlink":
            self.again.append(f"{operation} of a file whose fsync failed")
        if operation in self.kinds:
            self.count += 1
            if self.at <= self.count < self.at + self.times:
                self.failed += [] if "fsync-folder" in self.kinds else [path]
                raise OSError(errno.EIO, os.strerror(errno.EIO))


class Late:
    """Does the n-th call of a function of os and then reports an error, as a network file system does that lost the reply."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str, number: int, at: int) -> None:
        self.real, self.number, self.at, self.count = getattr(os, name), number, at, 0
        patch.setattr(os, name, self)

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.count += 1
        value = self.real(*given, **named)
        if self.count == self.at:
            raise OSError(self.number, os.strerror(self.number))
        return value


class _HalfWriter(io.FileIO):
    def write(self, content: Any) -> int:
        return super().write(bytes(content)[: max(1, len(content) // 2)]) or 0


@contextlib.contextmanager
def hooked(fault: Any) -> Iterator[None]:
    """Let every operation of storage pass a hook within the block, one after the other; nothing waits for the true disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "ThreadPoolExecutor", Serial)
        patch.setattr(storage, "hook", fault)
        patch.setattr(os, "fsync", lambda handle: None)
        if getattr(fault, "number", KILL) == SHORT:
            places = iter(range(1, 1 << 30))
            patch.setattr(storage, "open", lambda path, mode: _opened(path, mode, next(places) == fault.at), raising=False)
        yield


def _opened(path: Any, mode: str, short: bool) -> Any:
    return io.BufferedWriter(_HalfWriter(path, mode)) if short and mode == "xb" else open(path, mode)


def small(rule: str, out: Path, format: str) -> dict[str, Any]:
    """Make six images in two shards."""
    return synthesize(rule, out, per_class=EACH, shard_images=4, workers=1, format=format)


@functools.cache
def drawn(name: str, index: int) -> np.ndarray:
    """Return the pixels of an image of the small set."""
    return synthetic.drawn(0, name, index, CLASSES)


class Sweep:
    """A folder to work in, the rule, and the golden set of one format."""

    def __init__(self, folder: Path, format: str) -> None:
        self.folder, self.format, self.number, self.links = folder, format, 0, True
        folder.mkdir(parents=True, exist_ok=True)
        self.rule = synthetic.rule(folder, classes=CLASSES)
        counter = Fault(1 << 60)
        with hooked(counter):
            small(self.rule, folder / "golden", format)
        self.operations = counter.count
        self.golden = synthetic.tree(folder / "golden")

    def place(self) -> Path:
        """Return a new place for a set."""
        self.number += 1
        return self.folder / f"place{self.number}" / "out"

    def judge(self, out: Path) -> list[str]:
        """Return what is wrong with a set that is said to be finished."""
        found = checker.problems(out, dict.fromkeys(CLASSES, EACH), drawn)
        return found or [f"{name} is not golden" for name, raw in synthetic.tree(out).items() if self.golden.get(name) != raw and ".tmp-" not in name]

    def visible(self, out: Path) -> list[str]:
        """Return what a reader would see of a broken set that is torn, noted before it is there, or finished before all is there."""
        files = {name: raw for name, raw in synthetic.tree(out).items() if "/.tmp-" not in f"/{name}"}
        found = [f"{name} is torn" for name, raw in files.items() if raw != self.golden.get(name) and (raw or self.links)]
        if not found and files.get("manifest.json"):
            found = [problem for problem in self.judge(out) if "temporary" not in problem]
        return found or checker.uncommitted(out)

    def again(self, out: Path, what: str) -> list[str]:
        """Give the same command again and return what is wrong with the set then; a place that is right is thrown away."""
        try:
            with hooked(None):
                small(self.rule, out, self.format)
        except Exception as error:
            return [f"{what}: the same command does not continue: {error!r}"]
        found = [f"{what}: {problem}" for problem in self.judge(out)]
        if not found:
            shutil.rmtree(out.parent)
        return found

    def broken(self, out: Path, fault: Fault) -> str:
        """Run under a fault; returns what ended it: dead, 5, done, or the error that it should not have been."""
        out.parent.mkdir(parents=True, exist_ok=True)
        with hooked(fault):
            try:
                small(self.rule, out, self.format)
            except Dead:
                return "dead"
            except OutputError as error:
                return str(error.code)
            except Exception as error:
                return repr(error)
        return "done"

    def faults(self, kinds: tuple[int, ...] = FAULTS, step: int = 1) -> list[str]:
        """Return what is wrong after each fault at every `step`-th operation and one resume."""
        found = []
        for kind in kinds:
            for at in range(1 + FAULTS.index(kind) % step, self.operations + 1, step):
                out, what = self.place(), f"{errno.errorcode.get(kind, kind)} at operation {at}"
                ended = self.broken(out, Fault(at, kind))
                if ended not in ({"dead"} if kind == KILL else {"done"} if kind == SHORT else {"5", "done"}):
                    found.append(f"{what}: {ended}")
                if ended == "done":
                    found += [f"{what}, yet exit 0: {problem}" for problem in self.judge(out) if "temporary" not in problem]
                found += [f"{what}, seen before it goes on: {problem}" for problem in self.visible(out)] if ended == "dead" else []
                found += self.again(out, what)
        return found

    def recorded(self, root: Path, fault: Fault | None = None) -> Disk:
        """Run (until a fault, and then again) on a simulated disk and return it."""
        root.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(root, patch)
            if fault is not None:
                patch.setattr(storage, "hook", fault)
                with contextlib.suppress(Dead):
                    small(self.rule, root / "new" / "out", self.format)
                patch.setattr(storage, "hook", None)
            small(self.rule, root / "new" / "out", self.format)
        return disk

    def power(self, step: int = 1) -> list[str]:
        """Return what is wrong after a power loss at every `step`-th step, in each of nine ways, and one resume."""
        disk, rng, found = self.recorded(self.folder / "disk"), random.Random(3), []
        for at in range(1, len(disk.steps) + 1, step):
            for data in DATA:
                for names in NAMES:
                    out = self.place()
                    out.parent.mkdir()
                    lose_power(disk.after(at), out.parent, data, names, rng)
                    found += self.again(out.parent / "new" / "out", f"power loss after step {at}, data {data}, names {names}")
                    shutil.rmtree(out.parent, ignore_errors=True)
        return found

    def done_then_power(self, kills: Iterable[int] = ()) -> list[str]:
        """Return what a power loss takes after exit 0, of one run, or of those that were killed at some operations and went on."""
        found, rng = [], random.Random(4)
        for fault in [Fault(at) for at in kills] or [None]:
            out = self.place()
            disk = self.recorded(self.folder / f"disk{self.number}", fault)
            for names in NAMES:
                target = out.parent / names
                target.mkdir(parents=True)
                lose_power(disk.after(len(disk.steps)), target, "lost", names, rng)
                what = f"exit 0, then power loss, names {names}, killed at {fault and fault.at}"
                found += [f"{what}: {each}" for each in self.judge(target / "new" / "out") if "temporary" not in each]
            shutil.rmtree(out.parent)
        return found

    def places(self, *operations: str) -> list[int]:
        """Return the numbers of the operations of these kinds in a run in which nothing fails, as `recorded` makes it."""
        names: list[str] = []
        root = self.place().parent
        root.mkdir()
        with hooked(lambda operation, path: names.append(operation)):
            small(self.rule, root / "new" / "out", self.format)
        shutil.rmtree(root)
        return [number for number, name in enumerate(names, 1) if name in operations]
