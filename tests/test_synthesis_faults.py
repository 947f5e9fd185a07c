"""Each operation of `synthesize` fails, or the power goes: the same command again gives golden bytes, judged by code of its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweeps import FAULTS, FORMATS, KILL, Fault, Late, Sweep, Unsynced

from datagen import holding, storage
from datagen.errors import OutputError

STEPS = [83, pytest.param(1, marks=pytest.mark.slow)]
ONE_QUICK = ("parquet", *(pytest.param(format, marks=pytest.mark.slow) for format in FORMATS[1:]))
"""all formats in the slow tier"""
SYNCS = [("folder", 9), *(pytest.param(format, 1, marks=pytest.mark.slow) for format in FORMATS)]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("format", ["parquet", pytest.param("webdataset", marks=pytest.mark.slow), "folder"])
def test_a_fault_at_any_operation(tmp_path: Path, format: str, step: int) -> None:
    """Row W1: killed, out of space, I/O error, quota, read-only, stale, interrupted, short writes, at every operation."""
    sweep = Sweep(tmp_path, format)
    assert sweep.operations > 60
    assert len(FAULTS) == 8
    assert sweep.faults(step=step) == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("format", ONE_QUICK)
def test_a_power_loss_after_any_step(tmp_path: Path, format: str, step: int) -> None:
    """Row W2: bytes that were not synced are lost, torn or kept, names lost, kept or mixed."""
    assert Sweep(tmp_path, format).power(step) == []


@pytest.mark.parametrize("format", FORMATS)
def test_exit_0_then_a_power_loss_takes_nothing(tmp_path: Path, format: str) -> None:
    """Row W2: nothing is lost after exit 0, the new folders above --out among it."""
    assert Sweep(tmp_path, format).done_then_power() == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("format", ONE_QUICK)
def test_killed_continued_and_then_a_power_loss_takes_nothing(tmp_path: Path, format: str, step: int) -> None:
    """Row W2: what a killed run had not made durable is made so by the one that goes on."""
    sweep = Sweep(tmp_path, format)
    kills = range(1, sweep.operations) if step == 1 else sweep.places("fsync-folder")[::5]
    assert sweep.done_then_power(kills) == []


@pytest.mark.parametrize(("format", "step"), SYNCS)
@pytest.mark.parametrize("times", [1, 2])
def test_a_file_whose_fsync_fails_is_written_anew_once(tmp_path: Path, format: str, times: int, step: int) -> None:
    """Row W5: every fsync of a file; the second failure is exit 5, and no file is ever synced twice."""
    sweep, at, ended = Sweep(tmp_path, format), 1, "5"
    while True:
        out, fault = sweep.place(), Unsynced(at, times, folders=False)
        ended = sweep.broken(out, fault)
        if fault.count < at:
            break
        assert (ended, fault.again, len(set(fault.failed))) == ("done" if times == 1 else "5", [], times)
        assert sweep.judge(out) == [] or times == 2
        assert sweep.again(out, f"fsync {at}") == []
        at += step
    assert at > 9


@pytest.mark.parametrize(("format", "step"), SYNCS)
def test_a_folder_whose_fsync_fails_is_exit_5(tmp_path: Path, format: str, step: int) -> None:
    """Row W5: every fsync of a folder."""
    sweep, at = Sweep(tmp_path, format), 1
    while True:
        out, fault = sweep.place(), Unsynced(at, 1, folders=True)
        ended = sweep.broken(out, fault)
        if fault.count < at:
            break
        assert ended == "5"
        assert sweep.again(out, f"fsync {at}") == []
        at += step
    assert at > 15


def refused(number: int) -> Callable[..., Any]:
    """Return a function that always fails with an errno."""

    def refuse(*given: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EIO, *(pytest.param(number, marks=pytest.mark.slow) for number in (errno.EEXIST, errno.ESTALE))])
@pytest.mark.parametrize(("name", "links"), [("link", True), ("replace", True), ("replace", False)])
def test_done_though_an_error_was_reported(tmp_path: Path, name: str, links: bool, number: int) -> None:
    """Row W12: link or rename was done and reports an error, with and without links: what is there decides."""
    sweep, at = Sweep(tmp_path, "parquet"), 0
    while True:
        at += 1
        with pytest.MonkeyPatch.context() as patch:
            if not links:
                patch.setattr(os, "link", refused(errno.EPERM))
            late, out = Late(patch, name, number, at), sweep.place()
            assert sweep.broken(out, Fault(1 << 60)) == "done", (name, at)
        assert sweep.judge(out) == []
        if late.count < at:
            break
    assert at > (3 if links and name == "replace" else 8)


@pytest.mark.parametrize("step", STEPS)
def test_killed_where_links_are_not_supported(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W12: names are claimed and then renamed to; a kill between leaves an empty file, which is ours to fill; ESTALE anywhere."""
    monkeypatch.setattr(os, "link", refused(errno.EPERM))
    sweep = Sweep(tmp_path, "parquet")
    sweep.links = False
    assert sweep.faults((KILL, errno.ESTALE), step=step) == []
    for at in sweep.places("claim"):
        out = sweep.place()
        assert sweep.broken(out, Fault(at + 1)) == "dead"
        assert sweep.again(out, f"killed at operation {at + 1}") == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=lambda number: errno.errorcode[number])
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_folder_is_held_where_there_are_no_locks(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W12: a second writer is refused, and what a killed one left is taken over."""
    monkeypatch.setattr(fcntl, "flock", refused(number))
    sweep = Sweep(tmp_path, "parquet")
    out = sweep.place()
    storage.make_folder(out)
    with holding.lock(out):
        assert sweep.broken(out, Fault(1 << 60)) == "5"
    assert sweep.again(out, "let go") == []


@pytest.mark.parametrize(
    ("change", "taken"), [({"pid": 1 << 23}, True), ({"started": "1"}, True), ({"boot": "b"}, True), ({"host": "elsewhere"}, False), ({}, False)]
)
def test_who_is_no_more_holds_nothing(tmp_path: Path, change: dict[str, Any], taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W12: process gone, its number given anew, the machine started anew; another machine cannot be asked."""
    monkeypatch.setattr(fcntl, "flock", refused(errno.ENOLCK))
    with holding.lock(tmp_path):
        left = storage.read_json(tmp_path / holding.NAME)
    assert not (tmp_path / holding.NAME).exists()
    storage.write_json(tmp_path / holding.NAME, left | change)
    with contextlib.ExitStack() as stack:
        if not taken:
            stack.enter_context(pytest.raises(OutputError, match=r"process \d+ on .* works in this folder"))
        with holding.lock(tmp_path):
            assert taken
    assert (tmp_path / holding.NAME).exists() is not taken
