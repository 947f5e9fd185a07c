"""The audit hook of the tests sees what a file could make a reader do (P7), and lets our own lazy imports pass."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import io
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import make_dataclass
from pathlib import Path

import audit
import numpy as np
import pytest
from PIL import Image


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.getpid, ()


def connect() -> None:
    with socket.socket() as link:
        link.setblocking(False)
        link.connect_ex(("127.0.0.1", 9))


def missing() -> None:
    with contextlib.suppress(ImportError):
        __import__("named_by_a_file")


def planted(name: str) -> None:
    importlib = __import__("importlib")
    importlib.import_module(name)


VIOLATIONS: dict[str, Callable[[], object]] = {
    "exec": lambda: exec("1"),
    "exec of eval": lambda: eval("1 + 1"),
    "compile": lambda: compile("1", "file.png", "eval"),
    "pickle.find_class": lambda: pickle.loads(pickle.dumps(Evil())),
    "numpy.load with pickle": lambda: np.load(io.BytesIO(array_of_objects()), allow_pickle=True),
    "subprocess.Popen": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "os.system": lambda: os.system("true"),
    "socket.connect": connect,
    "exec of a planted module": lambda: planted("planted_by_a_file"),
    "import": missing,
    "ctypes.dlopen": lambda: ctypes.CDLL(None),
}


def array_of_objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil(), 1], object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("name", VIOLATIONS)
def test_it_sees(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted_by_a_file.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("planted_by_a_file", None)
    with pytest.raises(AssertionError, match=re.match(r"\w+", name)[0]), audit.watch():
        VIOLATIONS[name]()
    with audit.watch():
        pass


def lazy() -> None:
    sys.modules.pop("wave", None)
    import wave  # noqa: F401


def drawn_by_name() -> None:
    from datagen import registry

    registry.load("formats", "folder")


def an_image() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    Image.open(io.BytesIO(buffer.getvalue())).load()


def made_at_import() -> None:
    for module in ("typing_extensions", "wsgiref.types", "tomllib", "tomllib._parser"):
        sys.modules.pop(module, None)
    import tomllib

    assert tomllib.loads("a = 1") == {"a": 1}


HARMLESS = {"a lazy import": lazy, "a part of ours": drawn_by_name, "an image": an_image, "a parse": lambda: ast.literal_eval("(1, 2)"), "toml": made_at_import}


@pytest.mark.parametrize("name", HARMLESS)
def test_it_lets_pass(name: str) -> None:
    with audit.watch():
        HARMLESS[name]()


def test_it_sees_opens_and_other_threads(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    (tmp_path / "x").write_text("x")
    with audit.recorded() as seen, ThreadPoolExecutor(1) as pool:
        pool.submit((tmp_path / "x").read_text).result()
        pool.submit(os.listdir, tmp_path).result()
        pool.submit(eval, "1").result()
    assert {str(tmp_path / "x"), str(tmp_path)} <= set(seen.opened) and any(event.startswith("exec") for event in seen.events)
    with audit.recorded() as seen:
        make_dataclass("Made", ["a"])
    assert seen.events, "a class made from text outside of an import is seen"


def test_every_reader_is_there_and_watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib

    for module in audit.READERS:
        importlib.import_module(module)
    audit.wrap()
    from datagen.sources import decode

    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    monkeypatch.setattr(decode, "whole", lambda data, kind: bool(eval("True")))
    decode.decode(buffer.getvalue(), max_pixels=100)
    assert any(event.startswith("exec") for event in audit.taken()) and audit.taken() == []
    assert all(name in audit._wrapped for name in audit.READERS)
