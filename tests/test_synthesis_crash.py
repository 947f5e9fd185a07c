"""Killed, stopped or failing in the middle (rows W3 and W6): the same call again gives the bytes of an unbroken run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic

from datagen import storage
from datagen.errors import ResourceError
from datagen.synthesis.run import synthesize

FORMATS = ("parquet", "webdataset", "folder")
ROOT = Path(__file__).parent.parent
DRIVER = """
import sys
from datagen.errors import DatagenError
from datagen.progress import Progress
from datagen.synthesis.run import synthesize
try:
    synthesize(sys.argv[1], sys.argv[2], per_class=70, shard_images=64, workers=int(sys.argv[3]), format=sys.argv[4], progress=Progress())
except DatagenError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.code) from None
"""


def make(rule: str, out: Path, format: str = "parquet", workers: int = 1) -> dict[str, Any]:
    return synthesize(rule, out, per_class=70, shard_images=64, workers=workers, format=format)


def started(rule: str, out: Path, format: str, workers: int, sleep: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, rule, str(out), str(workers), format]
    environment = {**os.environ, "RULE_SLEEP": str(sleep), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def notes(out: Path) -> int:
    return len(list(out.glob(".datagen/notes/*.json")))


@pytest.mark.parametrize(("format", "workers"), [("parquet", 2), ("folder", 1)])
def test_a_killed_run_continues_to_the_same_bytes(tmp_path: Path, format: str, workers: int) -> None:
    """Row W3."""
    rule = synthetic.rule(tmp_path)
    make(rule, tmp_path / "golden", format)
    process = started(rule, tmp_path / "out", format, workers, 0.002)
    wait_for(lambda: notes(tmp_path / "out") >= 1, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out/manifest.json").exists()
    value = make(rule, tmp_path / "out", format)
    assert value["continued"]
    assert synthetic.tree(tmp_path / "out") == synthetic.tree(tmp_path / "golden")


@pytest.mark.slow
def test_many_kills_at_random_times(tmp_path: Path) -> None:
    """Row W3."""
    rule, rng = synthetic.rule(tmp_path), random.Random(5)
    for format in FORMATS:
        make(rule, tmp_path / f"golden-{format}", format)
    for attempt in range(30):
        format, workers = FORMATS[attempt % 3], 1 + attempt % 2
        out = tmp_path / f"out{attempt}"
        for _ in range(3):
            process = started(rule, out, format, workers, 0.001)
            time.sleep(rng.uniform(0.3, 2.0))
            target = process.pid if rng.random() < 0.5 else -process.pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)
            process.communicate()
        make(rule, out, format)
        assert synthetic.tree(out) == synthetic.tree(tmp_path / f"golden-{format}")


@pytest.mark.slow
def test_the_parents_death_alone_ends_the_workers(tmp_path: Path) -> None:
    """Row W3."""
    rule = synthetic.rule(tmp_path)
    process = started(rule, tmp_path / "out", "parquet", 2, 0.002)
    wait_for(lambda: notes(tmp_path / "out") >= 1, process)
    process.kill()
    process.communicate()
    make(rule, tmp_path / "golden")
    make(rule, tmp_path / "out")
    assert synthetic.tree(tmp_path / "out") == synthetic.tree(tmp_path / "golden")


@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGTERM, 75, 2), (signal.SIGINT, 130, 1)])
def test_a_signal_stops_cleanly(tmp_path: Path, number: signal.Signals, code: int, workers: int) -> None:
    rule = synthetic.rule(tmp_path)
    process = started(rule, tmp_path / "out", "parquet", workers, 0.003)
    wait_for(lambda: notes(tmp_path / "out") >= 1, process)
    begun = time.monotonic()
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == code, said
    assert "the same command continues" in said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "out/status.json").read_bytes())["exit_code"] == code
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.startswith(storage.TEMPORARY)]
    make(rule, tmp_path / "out")
    make(rule, tmp_path / "golden")
    assert synthetic.tree(tmp_path / "out") == synthetic.tree(tmp_path / "golden")


def test_a_worker_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W6."""
    rule = synthetic.rule(tmp_path)
    make(rule, tmp_path / "golden")
    monkeypatch.setenv("RULE_DIES_AT", "2")
    monkeypatch.setenv("RULE_DIES_ONCE", "1")
    monkeypatch.setenv("RULE_DIED", str(tmp_path / "died"))
    monkeypatch.setenv("RULE_LEAVES", str(tmp_path / "out/data" / f"{storage.TEMPORARY}half"))
    monkeypatch.setattr("datagen.synthesis.forecast.require", lambda *arguments: None)
    make(rule, tmp_path / "out", workers=2)
    assert (tmp_path / "died").exists()
    assert synthetic.tree(tmp_path / "out") == synthetic.tree(tmp_path / "golden")


def test_a_shard_that_kills_its_workers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W6."""
    rule = synthetic.rule(tmp_path)
    monkeypatch.setenv("RULE_DIES_AT", "2")
    monkeypatch.setenv("RULE_DIED", str(tmp_path / "never"))
    monkeypatch.setattr("datagen.synthesis.forecast.require", lambda *arguments: None)
    with pytest.raises(ResourceError, match=r"train-0000\d-of-00006\.parquet: 3 workers died"):
        make(rule, tmp_path / "out", workers=2)
    monkeypatch.delenv("RULE_DIES_AT")
    make(rule, tmp_path / "out")
    make(rule, tmp_path / "golden")
    assert synthetic.tree(tmp_path / "out") == synthetic.tree(tmp_path / "golden")


def test_what_goes_wrong_in_a_worker_is_said(tmp_path: Path) -> None:
    rule = synthetic.rule(tmp_path)
    path = tmp_path / "hashed.py"
    path.write_text(path.read_text().replace("raw = hashlib", "if label == 3 and seed % 64 == 5: raise KeyError('lost')\n        raw = hashlib"))
    with pytest.raises((RuntimeError, KeyError), match="lost"):
        make(rule, tmp_path / "out", workers=2)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.startswith(storage.TEMPORARY)]
