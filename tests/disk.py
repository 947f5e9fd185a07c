"""A simulated disk: what is done below a folder is recorded, and what a power loss may leave of it is laid out elsewhere."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from datagen import storage

DATA = ("lost", "torn", "kept")
NAMES = ("lost", "mixed", "kept")


class Serial(Executor):
    """Runs what is submitted at once, so that operations come in one order."""

    def __init__(self, workers: int = 1) -> None:
        pass

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*given, **named))
        except Exception as error:
            done.set_exception(error)
        return done


@dataclass
class Node:
    """A file or a folder: what is in it now, what is durable of it, and changes of names that are not durable yet."""

    folder: bool
    content: bytes = b""
    durable: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    kept: dict[str, Node] = field(default_factory=dict)
    pending: list[tuple[str | None, str, Node | None]] = field(default_factory=list)


class Disk:
    """Records what this process does to files below a folder; `after(n)` is the disk after the n-th step."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.steps = root, []  # type: tuple[Path, list[tuple[Any, ...]]]
        self._real = {name: getattr(os, name) for name in ("link", "replace", "rename", "unlink", "mkdir", "open")}
        monkeypatch.setattr(storage, "ThreadPoolExecutor", Serial)
        monkeypatch.setattr(storage, "open", self._create, raising=False)
        for name in ("fsync", "link", "replace", "unlink", "mkdir", "open"):
            monkeypatch.setattr(os, name, getattr(self, f"_{name}"))
        monkeypatch.setattr(os, "rename", self._replace)

    def _own(self, path: Any) -> str | None:
        """Return a path relative to the disk, or None for what is elsewhere or a lock."""
        if not isinstance(path, str | os.PathLike) or Path(path).name == ".lock":
            return None
        absolute = os.path.abspath(path)
        return os.path.relpath(absolute, self.root) if absolute.startswith(f"{self.root}/") or absolute == str(self.root) else None

    def _step(self, kind: str, *given: Any) -> None:
        if given[0] is not None:
            self.steps.append((kind, *given))

    def _create(self, path: Any, mode: str = "r", **more: Any) -> Any:
        file = open(path, mode, **more)  # noqa: SIM115
        if "x" in mode:
            self._step("create", self._own(path))
        return file

    def _open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        handle = self._real["open"](path, flags, *more, **named)
        if flags & os.O_EXCL:
            self._step("create", self._own(path))
        return int(handle)

    def _fsync(self, handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            self._step("sync names", self._own(path))
        else:
            self._step("write", self._own(path), Path(path).read_bytes())
            self._step("sync", self._own(path))

    def _link(self, source: Any, target: Any) -> None:
        content = Path(source).read_bytes()
        self._real["link"](source, target)
        self._step("write", self._own(source), content)
        self._step("link", self._own(source), self._own(target))

    def _replace(self, source: Any, target: Any) -> None:
        content = Path(source).read_bytes()
        self._real["replace"](source, target)
        self._step("write", self._own(source), content)
        self._step("rename", self._own(source), self._own(target))

    def _unlink(self, path: Any, **more: Any) -> None:
        self._real["unlink"](path, **more)
        self._step("unlink", self._own(path))

    def _mkdir(self, path: Any, *more: Any, **named: Any) -> None:
        self._real["mkdir"](path, *more, **named)
        self._step("mkdir", self._own(path))

    def after(self, count: int) -> Node:
        """Return the disk as it is after so many steps."""
        top = Node(True)
        for kind, path, *given in self.steps[:count]:
            _apply(top, kind, path, given)
        return top


def _find(top: Node, path: str) -> tuple[Node, str]:
    parts = path.split("/")
    for part in parts[:-1]:
        top = top.names[part]
    return top, parts[-1]


def _apply(top: Node, kind: str, path: str, given: list[Any]) -> None:
    if path == ".":
        if kind == "sync names":
            top.kept, top.pending = dict(top.names), []
        return
    folder, name = _find(top, path)
    node = folder.names.get(name)
    if kind in {"create", "mkdir"}:
        _named(folder, None, name, Node(kind == "mkdir"))
    elif kind == "link":
        inner, other = _find(top, given[0])
        _named(inner, None, other, node)
    elif kind == "rename":
        _named(folder, name, _find(top, given[0])[1], node)
    elif kind == "unlink":
        _named(folder, name, name, None)
    elif node is not None and kind == "write":
        node.content = given[0]
    elif node is not None and kind == "sync":
        node.durable = node.content
    elif node is not None and kind == "sync names":
        node.kept, node.pending = dict(node.names), []


def _named(folder: Node, old: str | None, new: str, node: Node | None) -> None:
    """Change names of a folder now, and durably at some later time: old is taken away, new is given to the node, or to none."""
    folder.pending.append((old, new, node))
    _changed(folder.names, old, new, node)


def _changed(names: dict[str, Node], old: str | None, new: str, node: Node | None) -> None:
    if old is not None:
        names.pop(old, None)
    if node is not None:
        names[new] = node


def lose_power(top: Node, target: Path, data: str, names: str, rng: random.Random) -> None:
    """Lay out below `target` what a power loss leaves: bytes that were not synced are lost, torn or kept, names lost, kept or mixed."""
    target.mkdir(exist_ok=True)
    left = dict(top.kept)
    for change in top.pending:
        if names == "kept" or (names == "mixed" and rng.random() < 0.5):
            _changed(left, *change)
    for name, node in left.items():
        if node.folder:
            lose_power(node, target / name, data, names, rng)
        else:
            whole = node.content == node.durable or data == "kept"
            torn = node.content[: len(node.content) // 2] + bytes(len(node.content) // 3)
            (target / name).write_bytes(node.content if whole else torn if data == "torn" else node.durable)
