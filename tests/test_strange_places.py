"""Links, loops and special files are never opened (F6); files that fail, close, vanish or grow at any moment (F7)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import audit
import numpy as np
import pytest
from made_files import noise, png

from datagen import caching
from datagen.errors import InputError
from datagen.records import Dataset, Recipe
from datagen.sources import cache, origin
from datagen.sources.scan import scan

Patch = pytest.MonkeyPatch


def images(root: Path, each: int = 12) -> Path:
    """Write two classes of images 8 x 8, all different."""
    for i in range(2 * each):
        file = root / "ab"[i % 2] / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(noise(8, 8, i), 2))
    return root


def secret(root: Path) -> Path:
    """Return a file outside of the folder that is scanned, and a folder around it."""
    file = root.parent / "outside" / "deep" / "secret.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(png(noise(8, 8, 999), 2))
    return file


def a_socket(place: Path) -> None:
    here = os.getcwd()
    os.chdir(place.parent)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(place.name)
    os.chdir(here)


def a_device(place: Path) -> None:
    try:
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        place.symlink_to("/dev/zero")


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to a file outside": (lambda root: (root / "a/x.png").symlink_to(secret(root)), "leads out of the folder"),
    "a link to a folder outside": (lambda root: (root / "a/x").symlink_to(secret(root).parent), "leads out of the folder"),
    "a chain of links to the outside": (
        lambda root: ((root / "a/x.png").symlink_to("y.png"), (root / "a/y.png").symlink_to(secret(root))),
        "leads out of the folder",
    ),
    "a link to itself": (lambda root: (root / "a/x.png").symlink_to("x.png"), "cannot be followed"),
    "a link to the root": (lambda root: (root / "a/x").symlink_to(root), ""),
    "a FIFO": (lambda root: os.mkfifo(root / "a/x.png"), "no regular file"),
    "a socket": (lambda root: a_socket(root / "a/x.png"), "no regular file"),
    "a device": (lambda root: a_device(root / "a/x.png"), "device"),
    "a link to a device": (lambda root: (root / "a/x.png").symlink_to("/dev/zero"), "leads out of the folder"),
    "a link to a FIFO inside": (lambda root: (os.mkfifo(root / "a/y"), (root / "a/x.png").symlink_to("y")), "pipe, socket or device"),
    "a second link to an image": (lambda root: os.link(root / "a/000.png", root / "a/x.png"), ""),
}


@pytest.mark.parametrize("name", CASES)
def test_strange_places_are_skipped_and_never_opened(name: str, tmp_path: Path) -> None:
    """F6: nine cases and two more."""
    check_place(name, tmp_path)


def check_place(name: str, tmp_path: Path) -> None:
    """Assert that a strange place is skipped, and that nothing but the folder itself, the cache and code of ours is opened."""
    root = images(tmp_path / "r", 30)
    scan(root, Recipe())
    make, says = CASES[name]
    make(root)
    began = time.monotonic()
    with audit.recorded() as seen:
        found = scan(root, Recipe(threads=1, max_pixels=1000))
    assert time.monotonic() - began < 10
    assert len(found) == 60
    told = [entry for entry in found.problems if "/x" in entry["file"] and entry["kind"] == "skip"]
    assert bool(told) == bool(says) and all(says in entry["problem"] and entry["remedy"] for entry in told)
    strange = {path for path in seen.opened if not path.startswith((str(root), str(caching.cache_folder()), *audit.TRUSTED)) and not path.isdigit()}
    assert not strange and not seen.events
    assert not [path for path in seen.opened if os.path.basename(path) == "x.png" and name != "a second link to an image"]


def test_links_swapped_after_the_scan_are_found_by_their_pixels(tmp_path: Path) -> None:
    root = images(tmp_path / "r")
    found = scan(root, Recipe())
    (root / "a/000.png").unlink()
    (root / "a/000.png").symlink_to(secret(root))
    with pytest.raises(InputError, match="changed since the scan"):
        cache.pixels(found, (3, 8, 8), Recipe())


FAULTS = ("closed", "fails", "vanishes", "grows")
MOMENTS = ("before the scan", "between scan and pixels", "while the pixels are made")
SICK = "a/006.png"


@contextlib.contextmanager
def fault(kind: str, file: Path) -> Iterator[None]:
    """Let a file be closed to us, fail to be read, vanish, or grow while it is read."""
    real_open, real_fstat = os.open, os.fstat
    codes = {"closed": errno.EACCES, "fails": errno.EIO}

    def opening(path: object, *rest: int, **more: int) -> int:
        if str(path) == str(file) and kind in codes:
            raise OSError(codes[kind], os.strerror(codes[kind]))
        return real_open(path, *rest, **more)  # type: ignore[arg-type]

    def growing(handle: int) -> os.stat_result:
        status = real_fstat(handle)
        if kind == "grows" and os.path.samestat(status, os.stat(file)):
            with open(file, "ab") as more:
                more.write(b"more")
        return status

    with Patch.context() as patch:
        if kind == "vanishes":
            file.unlink()
        patch.setattr(os, "open", opening)
        if kind == "grows":
            patch.setattr(os, "fstat", growing)
        yield


TOLD = {"closed": "Permission denied", "fails": "Input/output error", "vanishes": "No such file", "grows": "changed while it was read"}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", FAULTS)
def test_a_file_that_fails(kind: str, moment: str, tmp_path: Path, monkeypatch: Patch) -> None:
    """F7: skipped and named at the scan, refused (3) and named later."""
    root, recipe = images(tmp_path / "r"), Recipe(threads=1)
    monkeypatch.setattr(origin, "CHUNK", 2)
    if moment == MOMENTS[0]:
        at_scan(root, recipe, kind, monkeypatch)
        return
    found = scan(root, recipe)
    with pytest.raises(InputError) as caught:
        if moment == MOMENTS[1]:
            with fault(kind, root / SICK):
                cache.pixels(found, (3, 8, 8), recipe)
        else:
            halfway(found, root, recipe, kind, monkeypatch)
    assert caught.value.code == 3 and SICK in caught.value.line() and caught.value.hint
    assert TOLD[kind] in caught.value.what
    assert not list((caching.cache_folder() / "pixels").glob(".tmp*")), "nothing half made stays"


def at_scan(root: Path, recipe: Recipe, kind: str, monkeypatch: Patch) -> None:
    real = origin._chunks
    with contextlib.ExitStack() as stack:

        def listed(places: object) -> object:
            stack.enter_context(fault(kind, root / SICK))
            return real(places)  # type: ignore[arg-type]

        monkeypatch.setattr(origin, "_chunks", listed)
        found = scan(root, recipe)
    assert len(found) == 23 and SICK not in found.paths
    (problem,) = found.problems
    assert problem["file"] == SICK and TOLD[kind] in problem["problem"] and problem["kind"] == "skip"
    with pytest.raises(InputError, match="1 of 24 images"), fault(kind if kind != "vanishes" else "fails", root / SICK):
        (root / SICK).write_bytes(png(noise(8, 8, 77), 2))
        scan(root, recipe.changed("test", strict_input=True))


def halfway(found: Dataset, root: Path, recipe: Recipe, kind: str, monkeypatch: Patch) -> None:
    """Make the pixels of a set whose file gets its fault when the first images are decoded."""
    real, begun = cache.to_shape, contextlib.ExitStack()

    def shaped(image: np.ndarray, *rest: object) -> np.ndarray:
        if not begun._exit_callbacks:  # type: ignore[attr-defined]
            begun.enter_context(fault(kind, root / SICK))
        return real(image, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "to_shape", shaped)
    with begun:
        cache.pixels(found, (3, 8, 8), recipe)
