"""What is remembered of a scan, and files that fail or change while it runs (F7)."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
from test_sources_scan import plant, save, scanned

from datagen import caching
from datagen.progress import Progress
from datagen.records import Recipe
from datagen.sources import decode, origin
from datagen.sources.scan import scan


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []
    real = origin.decode

    def counting(content: str | bytes, **how: int) -> decode.Decoded:
        seen.append(content)
        return real(content, **how)

    monkeypatch.setattr(origin, "decode", counting)
    return seen


def test_the_second_scan_opens_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 30, "b": 30})
    (root / "a/cut.png").write_bytes(b"\x89PNG")
    first = scanned(root)
    opened = count_decodes(monkeypatch)
    again = scanned(root)
    assert opened == [] and again.fingerprint == first.fingerprint and again.problems == first.problems
    assert np.array_equal(again.digests, first.digests) and np.array_equal(again.sizes, first.sizes)
    before = os.stat(root / "a/3.png")
    save(root / "a/3.png", 999)
    os.utime(root / "a/3.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    save(root / "b/new.png", 1000)
    (root / "a/5.png").unlink()
    changed = scanned(root)
    assert sorted(map(str, opened)) == [f"{root}/a/3.png", f"{root}/b/new.png"]
    assert changed.fingerprint != first.fingerprint and len(changed) == 60


def test_a_damaged_memory_of_the_scan_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 5, "b": 5})
    first = scanned(root)
    opened = count_decodes(monkeypatch)
    for kept in (caching.cache_folder() / "scans").glob("*.bin"):
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 1
        kept.write_bytes(content)
    assert scanned(root).fingerprint == first.fingerprint
    assert len(opened) == 10


def test_what_could_not_be_read_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 40, "b": 40})
    real, sick = os.open, str(root / "a/7.png")

    def failing(path: object, *rest: object, **more: object) -> int:
        if path == sick:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", failing)
    first = scanned(root)
    assert len(first) == 79 and "Input/output error" in first.problems[0]["problem"]
    monkeypatch.setattr(os, "open", real)
    assert len(scanned(root)) == 80 and scanned(root).problems == ()


def test_a_file_that_vanishes_or_grows_during_the_scan_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 40, "b": 40})
    real = os.fstat

    def growing(handle: int) -> os.stat_result:
        status = real(handle)
        if os.readlink(f"/proc/self/fd/{handle}") == str(root / "a/7.png"):
            with open(root / "a/7.png", "ab") as file:
                file.write(b"more")
        return status

    monkeypatch.setattr(os, "fstat", growing)
    real_chunks = origin._chunks

    def vanishing(places: object) -> object:
        (root / "b/3.png").unlink()
        return real_chunks(places)  # type: ignore[arg-type]

    monkeypatch.setattr(origin, "_chunks", vanishing)
    found = scanned(root)
    assert {e["file"]: e["problem"].split(" (")[0] for e in found.problems} == {"a/7.png": "changed while it was read", "b/3.png": "cannot be read"}


def test_a_cache_that_cannot_be_written_is_said_and_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "file"))
    found = scanned(plant(tmp_path / "r", {"a": 3, "b": 3}))
    assert "could not be remembered" in " ".join(found.notes)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    progress = Progress(quiet=True)
    root = plant(tmp_path / "r", {"a": 100, "b": 100})
    for _ in range(2):
        scan(root, Recipe(), progress=progress)
        assert (progress.stage_name, progress.done, progress.total) == ("scan", 200, 200)


@pytest.mark.slow
def test_a_second_scan_of_many_images_takes_a_moment(tmp_path: Path) -> None:
    for i in range(20_000):
        image = np.full((28, 28), 9, np.uint8)
        image.flat[:4] = np.frombuffer(np.uint32(i).tobytes(), np.uint8)
        save(tmp_path / f"r/{i % 10}/{i}.png", image)
    began = time.monotonic()
    scanned(tmp_path / "r")
    first, began = time.monotonic() - began, time.monotonic()
    scanned(tmp_path / "r")
    assert first < 30 and time.monotonic() - began < 2
