"""Processes that are killed, crash, hang, or meet another writer: every shard is made once and the bytes are golden."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import synthetic
from dying import HOW, Dying
from sweeps import CLASSES, FORMATS, Sweep, small

from datagen import holding, storage
from datagen.cli.app import run
from datagen.errors import DatagenError, ResourceError
from datagen.records import Recipe, ShardTask
from datagen.synthesis import forecast
from datagen.synthesis.engines import local
from datagen.synthesis.heartbeat import listening
from datagen.synthesis.run import synthesize

ONE_QUICK = ("parquet", *(pytest.param(format, marks=pytest.mark.slow) for format in FORMATS[1:]))
"""all formats in the slow tier"""
HERE = Path(__file__).parent


@pytest.mark.parametrize("kills", [12, pytest.param(500, marks=pytest.mark.slow)])
def test_killed_at_random_times(tmp_path: Path, kills: int) -> None:
    """Row W3: SIGKILL of parent, worker or the whole group, by a program that never loads torch."""
    sweeps = {format: Sweep(tmp_path / format, format) for format in FORMATS}
    (tmp_path / "sets").mkdir()
    command = [sys.executable, str(HERE / "killer.py"), sweeps["parquet"].rule, str(tmp_path / "sets"), str(kills), "7"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stderr
    hit = json.loads(done.stdout)
    assert hit["parent"] + hit["group"] + hit["worker"] >= kills
    assert hit["in time"] >= kills / 5, "kills that came while something was going on"
    assert kills < 100 or min(hit.values()) > 5
    for out in (tmp_path / "sets").iterdir():
        assert sweeps[out.name.split("-")[0]].judge(out) == [], out.name


def tasks(count: int) -> list[ShardTask]:
    return [ShardTask(i, f"data/{i}.bin", ((0, 0, 8),)) for i in range(count)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that hang are found after half a second."""
    monkeypatch.setattr(local, "LATE", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("count", [1, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", HOW)
def test_what_kills_a_worker_costs_one_shard(tmp_path: Path, how: str, count: int) -> None:
    """Row W6: killed for memory, segmentation fault, hanging; each time that shard alone is made again."""
    make, heard = Dying(str(tmp_path), how, tuple(range(0, 2 * count, 2))), Counter[str]()
    with listening(lambda images, spent: heard.update(images=images)):
        done = sorted(local.Local().run(tasks(2 * count), make, Recipe(workers=2)))
    assert done == list(range(2 * count))
    assert [len(make.attempts(task)) for task in range(2 * count)] == [2, 1] * count
    assert heard["images"] == 8 * 2 * count, "what a dead worker had done is undone in the count"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("how", "said"),
    [("oom", "status -9"), pytest.param("segfault", "status -11", marks=pytest.mark.slow), pytest.param("hang", "hung for", marks=pytest.mark.slow)],
)
def test_a_shard_that_ends_three_workers_is_named(tmp_path: Path, how: str, said: str) -> None:
    """Row W6: exit 6, with the shard's file."""
    make = Dying(str(tmp_path), how, (2,), times=9)
    with pytest.raises(ResourceError, match=rf"data/2\.bin: 3 workers died at this shard \(the last one .*{said}") as caught:
        list(local.Local().run(tasks(4), make, Recipe(workers=2)))
    assert caught.value.code == 6
    assert len(make.attempts(2)) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_the_time_of_each_stage_is_said(tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["synthesize", "rule:shapes", "--per-class", "70", "--shard-images", "64", "--workers", str(workers), "--out", str(tmp_path / "out")]) == 0
    said = re.search(r"(\d+) images in .* \(sampling (\d+) %, encoding (\d+) %, writing (\d+) %\)", capsys.readouterr().err)
    assert said and 98 <= sum(map(int, said.groups()[1:])) <= 102 and int(said[2]) > 0


def test_what_is_slow_is_not_late() -> None:
    """Row W6: ten times the slowest tile, if that is more than a minute; longer while a generator is opened and a shard committed."""
    crew = local.Crew(lambda task: None, 1)
    worker = local.Worker(None, None, None, ShardTask(0, "x", ((0, 0, 8), (1, 0, 8))))  # type: ignore[arg-type]
    assert crew._limit(worker) == local.FIRST == 600
    worker.silent = 30.0
    crew._heard(worker, "beat", (0, {}))
    assert crew.slowest == 0, "the first word comes after the generator was opened"
    worker.silent = 2.0
    crew._heard(worker, "beat", (8, {}))
    assert (crew._limit(worker), worker.silent, worker.done) == (local.LATE, 0, 8)
    assert local.LATE == 60
    worker.silent = 90.0
    crew._heard(worker, "beat", (0, {}))
    assert crew._limit(worker) == 900
    crew.slowest = 1.0
    crew._heard(worker, "beat", (8, {}))
    assert crew._limit(worker) == local.FIRST, "all tiles are there, the shard is committed now"
    worker.silent = 500.0
    crew._heard(worker, "beat", (0, {"writing": 500.0}))
    assert crew.slowest == 1.0, "a disk that is slow makes no tile slow"


def test_a_pause_of_everything_is_nobodys_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W6: after Ctrl-Z and fg, or a suspended machine, no worker is taken for hanging."""
    now = iter(range(0, 10**7, 5000))
    monkeypatch.setattr(local.time, "monotonic", lambda: float(next(now)))
    engine = local.Local().run(tasks(4), _number, Recipe(workers=2))
    assert sorted(engine) == list(range(4))


def _number(task: ShardTask) -> int:
    return task.id


def race(outs: list[Path], make: Any) -> list[int]:
    """Let two threads make sets at one moment; returns their exit codes."""
    begun, codes = threading.Barrier(len(outs)), []

    def enter(place: int) -> None:
        begun.wait()
        try:
            make(outs[place], place)
            codes.append(0)
        except DatagenError as error:
            codes.append(error.code)

    threads = [threading.Thread(target=enter, args=(place,)) for place in range(len(outs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(codes)


@pytest.mark.parametrize("races", [5, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("format", ONE_QUICK)
def test_of_two_writers_one_is_refused(tmp_path: Path, format: str, races: int) -> None:
    """Row W7: the same plan twice at once: exit 0 once at least, else 5, golden bytes."""
    sweep = Sweep(tmp_path, format)
    for _ in range(races):
        out = sweep.place()
        codes = race([out, out], lambda out, place: small(sweep.rule, out, format))
        assert codes in ([0, 5], [0, 0])
        assert sweep.judge(out) == []


@pytest.mark.parametrize("races", [5, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("format", ONE_QUICK)
def test_two_writers_with_a_broken_lock_still_write_the_same(tmp_path: Path, format: str, races: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W7: nothing depends on the lock; whoever is disturbed ends with 5, and the same command then finds golden bytes or makes them."""
    sweep = Sweep(tmp_path, format)
    monkeypatch.setattr(holding, "lock", _no_lock)
    for number in range(races):
        out = sweep.place()
        codes = race([out, out], lambda out, place: small(sweep.rule, out, format))
        assert set(codes) <= {0, 5}
        assert sweep.again(out, f"race {number}") == []


class _no_lock:
    def __init__(self, folder: Path, **more: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *given: object) -> None: ...


@pytest.mark.parametrize("races", [3, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("broken", [False, True], ids=["locked", "lock broken"])
def test_of_two_plans_one_takes_the_folder(tmp_path: Path, races: int, broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W7: another plan is refused, with 5 or, where it sees what the folder was begun with, with 2; the folder holds one plan alone."""
    rule = synthetic.rule(tmp_path, classes=CLASSES)
    if broken:
        monkeypatch.setattr(holding, "lock", _no_lock)

    def make(out: Path, seed: int) -> None:
        synthesize(rule, out, per_class=2, shard_images=4, workers=1, seed=seed)

    golden = []
    for seed in range(2):
        make(tmp_path / f"golden{seed}", seed)
        golden.append(synthetic.tree(tmp_path / f"golden{seed}"))
    for number in range(races):
        out = tmp_path / f"out{number}"
        codes = race([out, out], make)
        assert codes[-1] in {2, 5} and (codes[0] == 0 or broken), codes
        seed = storage.read_sealed(out / ".datagen/plan.json")["seed"]
        make(out, seed)
        assert synthetic.tree(out) == golden[seed]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["die", "hang"])
def test_a_worker_lost_in_production_does_not_show(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W6, through the whole of synthesize."""
    sweep = Sweep(tmp_path, "parquet")
    monkeypatch.setattr(local, "LATE", 1.0)
    for name, value in {"RULE_DIES_AT": "1", "RULE_DIES_ONCE": "1", "RULE_DIED": str(tmp_path / "died"), "RULE_HANGS": "1" if how == "hang" else ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(local, "FIRST", 6.0)
    monkeypatch.setattr(forecast, "require", lambda *arguments: None)
    out = sweep.place()
    synthesize(sweep.rule, out, per_class=2, shard_images=4, workers=2, format="parquet")
    assert (tmp_path / "died").exists()
    assert sweep.judge(out) == []
