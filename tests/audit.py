"""Nothing that is read may run, import, start or call anything: an audit hook that watches while one of our readers reads (P7).

How to use it: `with audit.watch():` around any call that reads a file of unknown origin fails the test when that call executes
or compiles code, imports a module that the file named, starts a process, or opens a socket. Lazy imports that our own code, the
standard library or an installed package asks for by name are fine. `with audit.recorded() as seen:` asserts nothing and leaves
`seen.events` and `seen.opened` (every path that was opened or listed) to the test.

`tests/conftest.py` switches it on for every test: the functions of READERS are wrapped as soon as their module is loaded, and a
test in whose readers anything happened fails. A new reader is one row more; functions that are generators may be given, too.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import importlib
import importlib.machinery
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

READERS = {
    "datagen.sources.decode": ("_decode", "read_file"),
    "datagen.sources.folder": ("walk",),
    "datagen.sources.table": ("list_csv",),
    "datagen.sources.parquet": ("list_parquet", "row_bytes"),
    "datagen.sources.origin": ("row_bytes",),
    "datagen.sources.look": ("_recall",),
    "datagen.storage": ("read_json", "read_sealed"),
    "datagen.formats.parquet": ("Parquet.read", "Parquet.count"),
    "datagen.formats.webdataset": ("WebDataset.read", "WebDataset.count"),
    "datagen.formats.folder": ("Folder.read", "Folder.count", "Folder.listed"),
    "datagen.formats.encode": ("opened",),
    "datagen.reading.manifest": ("open_set",),
    "datagen.reading.shards": ("picture",),
    "datagen.training.checkpoint": ("unpack",),
}
"""functions and methods that read files of unknown origin, by module; they are called through their module's own names; a URL may be asked for"""
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork", "os.forkpty", "pty.spawn")
_CALLS = ("pickle.find_class", "webbrowser.open", "ctypes.dlopen", "ctypes.dlsym", "winreg.ConnectRegistry", "code.__new__", "cpython.run_command")
_LOADS = frozenset(("exec", "compile", "marshal.loads", "marshal.load", "import", "code.__new__", "ctypes.dlopen", "ctypes.dlsym"))
_ALWAYS = frozenset((*_STARTS, *_CALLS))
_NETS = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "nntplib.", "telnetlib.")
_OPENS = frozenset(("open", "os.listdir", "os.scandir"))
_MACHINERY = "<frozen importlib._bootstrap>"
_IMPORT_NAME = dis.opmap["IMPORT_NAME"]
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep + "datagen"
_PATHS = {os.path.realpath(p) for name, p in sysconfig.get_paths().items() if name in {"stdlib", "platstdlib", "purelib", "platlib"}}
_PATHS |= {path for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_paths()[name])}
TRUSTED = (*sorted(_PATHS), _OURS, "<frozen ")
"""where code lies that may import, and be imported, by name"""


@dataclass(eq=False)
class Record:
    """What happened while readers read: events as NAME: what, and the paths that were opened or listed."""

    events: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    keeps_paths: bool = True


_active: list[Record] = []
_every = Record(keeps_paths=False)
_wrapped: set[str] = set()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _active:
        return
    if event in _OPENS:
        for record in {*_active}:
            if record.keeps_paths:
                record.opened.append(str(os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else args[0]))
    elif event in _LOADS or event in _ALWAYS or event.startswith(_NETS):
        frame = sys._getframe(1)
        if event not in _LOADS or not _harmless(event, args, frame):
            for record in {*_active}:
                record.events.append(f"{event}: {str(args[:1])[:120]} in {frame.f_code.co_filename}:{frame.f_lineno}")


def _harmless(event: str, args: tuple[Any, ...], frame: FrameType) -> bool:
    """Whether loading code is what imports by name do, or mere parsing."""
    if event == "import":
        return (_is_import_statement(frame) and _trusted(_caller(frame).f_code.co_filename)) or _is_installed(str(args[0]))
    if event == "exec" and isinstance(args[0], CodeType) and not args[0].co_filename.startswith("<"):
        return _trusted(args[0].co_filename)
    return _within_import(frame) or (event == "compile" and frame.f_code.co_name == "parse" and frame.f_code.co_filename == sys.modules["ast"].__file__)


def _caller(frame: FrameType | None) -> FrameType:
    """Return the nearest frame that is none of the import machinery."""
    assert frame is not None
    while frame.f_back is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame


def _is_import_statement(frame: FrameType) -> bool:
    caller = _caller(frame)
    return caller.f_lasti >= 0 and caller.f_code.co_code[caller.f_lasti] == _IMPORT_NAME


def _within_import(frame: FrameType | None) -> bool:
    """Whether a module that was allowed is being loaded: its loader is among the callers."""
    while frame is not None:
        if frame.f_code.co_filename == _MACHINERY:
            return True
        frame = frame.f_back
    return False


def _trusted(file: str) -> bool:
    return file.startswith(TRUSTED) or os.path.realpath(file).startswith(TRUSTED)


def _is_installed(name: str) -> bool:
    """Whether a module is part of Python, of an installed package or of datagen."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return True
    found = getattr(sys.modules.get(top), "__spec__", None) or importlib.machinery.PathFinder.find_spec(top)
    places = [] if found is None else [found.origin, *(found.submodule_search_locations or ())]
    return any(_trusted(place) for place in places if place)


@contextlib.contextmanager
def recorded() -> Iterator[Record]:
    """Record what happens in the block, in every thread; nothing is asserted."""
    record = Record()
    _active.append(record)
    try:
        yield record
    finally:
        _active.remove(record)


@contextlib.contextmanager
def watch() -> Iterator[Record]:
    """As `recorded`; AssertionError at the end where anything was run, imported by a file's will, started or called."""
    with recorded() as record:
        yield record
    assert not record.events, record.events


def wrap() -> None:
    """Wrap the functions of READERS whose modules are loaded and that are not wrapped yet."""
    for module, names in READERS.items():
        if module in sys.modules and module not in _wrapped:
            _wrapped.add(module)
            for name in names:
                owner: Any = sys.modules[module]
                *outer, last = name.split(".")
                owner = functools.reduce(getattr, outer, owner)
                setattr(owner, last, _watched(getattr(owner, last)))


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def generator(*args: Any, **more: Any) -> Iterator[Any]:
        with contextlib.closing(function(*args, **more)) as going:
            while True:
                _active.append(_every)
                try:
                    value = next(going)
                except StopIteration:
                    return
                finally:
                    _active.remove(_every)
                yield value

    @functools.wraps(function)
    def plain(*args: Any, **more: Any) -> Any:
        if any(isinstance(given, str) and "://" in given for given in args):
            return function(*args, **more)
        _active.append(_every)
        try:
            return function(*args, **more)
        finally:
            _active.remove(_every)

    return generator if inspect.isgeneratorfunction(function) else plain


def taken() -> list[str]:
    """Return what happened in wrapped readers since the last call, and forget it."""
    found, _every.events = _every.events, []
    return found


sys.addaudithook(_hook)
