"""kill -9 in the middle of fit and of synthesize, then the same command: the bytes of an unbroken run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import datagen

Maker = Callable[..., Path]
SETTINGS = {"images": 1200, "width": 4, "latent": 4, "batch": 8, "checkpoint_every": 80, "deterministic": True, "threads": 1}
FIT = ["--images", "1200", "--set", "width=4", "--set", "latent=4", "--set", "batch=8", "--set", "checkpoint_every=80", "--deterministic", "--set", "threads=1"]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Start one datagen command in a process group of its own."""
    command = [sys.executable, "-m", "datagen", *arguments, "--quiet"]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a command and show its errors where it failed."""
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()


def kill_when(process: subprocess.Popen[bytes], seen: Callable[[], bool]) -> None:
    """Kill a command's whole group as soon as something is seen; fails when the command ends before."""
    deadline = time.monotonic() + 240
    while not seen():
        assert process.poll() is None, f"ended before it could be killed: {process.stderr and process.stderr.read()!r}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL


def tree(folder: Path, *names: str) -> dict[str, bytes]:
    """Return the bytes of the files below the named sub-folders."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for name in names for p in sorted((folder / name).rglob("*")) if p.is_file()}


def checkpoints(run: Path) -> set[str]:
    """Return the names of a run's whole checkpoints."""
    return {p.parent.name for p in run.glob("checkpoints/*/card.json")}


def test_killed_fit_and_synthesize_give_the_bytes_of_an_unbroken_run(make_folder: Maker, tmp_path: Path) -> None:
    source = make_folder(each=15)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    datagen.fit(source, whole, **SETTINGS)
    kill_when(start("fit", str(source), "--out", str(broken), *FIT), lambda: len(checkpoints(broken)) > 0)
    before = checkpoints(broken)
    kill_when(start("fit", str(source), "--out", str(broken), *FIT), lambda: bool(checkpoints(broken) - before))
    assert not (broken / "generator" / "card.json").exists()
    datagen.fit(source, broken, **SETTINGS)
    assert tree(broken, "generator") == tree(whole, "generator")
    assert tree(broken, "checkpoints") == tree(whole, "checkpoints")

    make = {"per_class": 400, "shard_images": 128, "format": "webdataset", "workers": 1}
    datagen.synthesize(whole, tmp_path / "shards", **make)
    again = tmp_path / "again"
    command = ["--per-class", "400", "--shard-images", "128", "--format", "webdataset", "--workers", "1"]
    kill_when(start("synthesize", str(whole), "--out", str(again), *command), lambda: len(list(again.glob("data/*.tar"))) > 1)
    assert not (again / "manifest.json").exists()
    datagen.synthesize(whole, again, **make)
    assert tree(again, "data") == tree(tmp_path / "shards", "data")
    assert (again / "manifest.json").read_bytes() == (tmp_path / "shards" / "manifest.json").read_bytes()


@pytest.mark.slow
def test_a_fit_killed_again_and_again_loses_nothing(make_folder: Maker, tmp_path: Path) -> None:
    source = str(make_folder(each=15))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start("fit", source, "--out", str(whole), *FIT))
    for turn in range(10):
        process = start("fit", source, "--out", str(broken), *FIT)
        time.sleep(1.5 + 0.37 * turn)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(start("fit", source, "--out", str(broken), *FIT))
    assert tree(broken, "generator") == tree(whole, "generator")
