"""Several processes that share the shards of one set, killed or not, give the bytes of one process (W3, W7, W10)."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import readme
import synthetic

import datagen
from datagen import holding, storage
from datagen.errors import OutputError, UsageError
from datagen.synthesis import sharing

ROOT = Path(__file__).parent.parent
ASKED = {"per_class": 70, "shard_images": 64}
FLAGS = ("--per-class", "70", "--shard-images", "64", "--workers", "1")


def rank(rule: str, out: Path, number: int, count: int, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> dict[str, Any]:
    """Be one rank."""
    monkeypatch.setenv("RANK", str(number))
    monkeypatch.setenv("WORLD_SIZE", str(count))
    return datagen.synthesize(rule, out, engine="ranks", workers=1, **(ASKED | settings))


def started(rule: str, out: Path, number: int, count: int, sleep: float = 0.002, flags: tuple[str, ...] = FLAGS) -> subprocess.Popen[str]:
    """Start one rank as a process of its own."""
    command = [sys.executable, "-m", "datagen", "synthesize", rule, *flags, "--engine", "ranks", "--out", str(out), "--quiet"]
    environment = {**os.environ, "RULE_SLEEP": str(sleep), "PYTHONPATH": str(ROOT), "RANK": str(number), "WORLD_SIZE": str(count)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)


def temporaries(out: Path) -> list[Path]:
    """Return what is half-written."""
    return [path for path in out.rglob("*") if path.name.startswith(storage.TEMPORARY)]


@pytest.mark.parametrize("format", ["parquet", "webdataset", "folder"])
def test_three_ranks_in_any_order_give_the_bytes_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    rule, out = synthetic.rule(tmp_path), tmp_path / "out"
    alone = datagen.synthesize(rule, tmp_path / "one", workers=1, format=format, **ASKED)
    found = [rank(rule, out, number, 3, monkeypatch, format=format) for number in (2, 0, 1)]
    assert [value["complete"] for value in found] == [False, False, True]
    assert (sum(value["images"] for value in found), sum(value["shards"] for value in found)) == (alone["images"], alone["shards"])
    assert synthetic.tree(out).keys() - synthetic.tree(tmp_path / "one").keys() <= {f".datagen/rank-0000{number}.lock" for number in range(3)}
    assert synthetic.tree(tmp_path / "one").items() <= synthetic.tree(out).items()
    again = rank(rule, out, 0, 3, monkeypatch, format=format)
    assert again["finished"] and again["complete"]


def test_other_ranks_or_one_process_take_over_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = synthetic.rule(tmp_path)
    datagen.synthesize(rule, tmp_path / "one", workers=1, **ASKED)
    for name, rest in (("ranks", [(1, 2), (0, 2)]), ("alone", [(0, 1)])):
        assert not rank(rule, tmp_path / name, 0, 5, monkeypatch)["complete"]
        values = [rank(rule, tmp_path / name, *place, monkeypatch) for place in rest]
        assert values[-1]["complete"]
        assert synthetic.tree(tmp_path / "one").items() <= synthetic.tree(tmp_path / name).items()


@pytest.mark.parametrize("format", ["parquet", "folder"])
def test_a_rank_completes_no_set_while_a_shard_or_a_note_of_another_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    rule, out = synthetic.rule(tmp_path), tmp_path / "out"
    datagen.synthesize(rule, tmp_path / "one", workers=1, format=format, **ASKED)
    rank(rule, out, 0, 2, monkeypatch, format=format)
    shards = [storage.read_json(note)["file"] for note in sorted(out.glob(".datagen/notes/*.json"))]
    (out / shards[0]).unlink()
    damaged = out / ".datagen" / "notes" / f"{2 * (len(shards) - 1):05d}.json"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert not rank(rule, out, 1, 2, monkeypatch, format=format)["complete"]
    assert not (out / "manifest.json").exists()
    assert rank(rule, out, 0, 2, monkeypatch, format=format)["complete"]
    assert synthetic.tree(tmp_path / "one").items() <= synthetic.tree(out).items()


def kill_some(tmp_path: Path, ranks: int, rounds: int, rng: random.Random) -> None:
    """Start all ranks side by side, kill them at random times, and start them again, until each has ended by itself."""
    rule, out = synthetic.rule(tmp_path), tmp_path / "out"
    datagen.synthesize(rule, tmp_path / "one", workers=1, **ASKED)
    for number in range(rounds + 1):
        processes = [started(rule, out, place, ranks, 0.002 if number < rounds else 0) for place in range(ranks)]
        if number < rounds:
            until = time.monotonic() + 60
            while time.monotonic() < until and len(list(out.glob(".datagen/notes/*.json"))) < number + 1:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.1))
            for process in rng.sample(processes, rng.randint(1, ranks)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        codes = [process.wait(120) for process in processes]
        said = [process.communicate()[1] for process in processes]
        assert set(codes) <= {0, -signal.SIGKILL}, said
    assert codes == [0] * ranks
    assert synthetic.tree(tmp_path / "one").items() <= synthetic.tree(out).items()
    assert not temporaries(out / "data") + temporaries(out / ".datagen" / "notes")


def test_ranks_side_by_side_killed_in_the_middle_give_the_bytes_of_one_process(tmp_path: Path) -> None:
    kill_some(tmp_path, 2, 1, random.Random(0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_kills_of_ranks(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    kill_some(tmp_path, rng.randint(2, 4), rng.randint(1, 3), rng)


def test_a_place_is_taken_once_and_one_process_alone_shares_with_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, out = synthetic.rule(tmp_path), tmp_path / "out"
    monkeypatch.setattr(sharing, "WAIT", 0.1)
    assert not rank(rule, out, 1, 2, monkeypatch)["complete"]
    with holding.lock(out / ".datagen", sharing.LOCK.format(0)):
        with pytest.raises(OutputError, match="another datagen process works in this folder"):
            rank(rule, out, 0, 2, monkeypatch)
        with pytest.raises(OutputError, match="another datagen process works in this folder"):
            datagen.synthesize(rule, out, workers=1, **ASKED)
    with holding.lock(out), pytest.raises(OutputError, match="another datagen process works in this folder"):
        rank(rule, out, 0, 2, monkeypatch)
    assert rank(rule, out, 0, 2, monkeypatch)["complete"]


@pytest.mark.parametrize(
    ("place", "said"), [((None, "2"), "RANK=nothing"), (("0", "x"), "SIZE=x"), (("2", "2"), "RANK=2 is none of"), (("-1", "2"), "RANK=-1")]
)
def test_a_place_that_makes_no_sense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[str | None, str], said: str) -> None:
    for name, value in zip(("RANK", "WORLD_SIZE"), place, strict=True):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said):
        datagen.synthesize(synthetic.rule(tmp_path), tmp_path / "out", engine="ranks", **ASKED)
    assert not (tmp_path / "out").exists()


def stub(folder: Path, name: str, code: str) -> None:
    """Write a program that stands in for one of the cluster's."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{code}\n")
    (folder / name).chmod(0o755 | stat.S_IXUSR)


def test_the_job_array_in_the_readme_goes_on_after_it_was_stopped(tmp_path: Path) -> None:
    rule = synthetic.rule(tmp_path)
    datagen.synthesize(rule, tmp_path / "one", workers=1, **ASKED)
    programs, log = tmp_path / "bin", tmp_path / "requeued"
    stub(programs, "scontrol", f'echo "$@" >> {log}')
    stub(programs, "srun", 'exec "$@"')
    stub(programs, "datagen", f'exec {sys.executable} -m datagen "$@" --shard-images 64 --workers 1 --quiet')
    script = readme.block((ROOT / "README.md").read_text(encoding="utf-8"), "<!-- example job array -->", "bash")
    ranks = 3
    assert f"--array=0-{int(script.split('WORLD_SIZE=')[1].split()[0]) - 1} " in script
    script = re.sub(r"WORLD_SIZE=\d+", f"WORLD_SIZE={ranks}", script).replace(" run ", f" '{rule}' ", 1).replace("--per-class 50000", "--per-class 70")
    assert script.count(rule) == 1 and "--per-class 70" in script
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "RULE_SLEEP": "0.002"}
    for place in range(ranks):
        job = environment | {"SLURM_ARRAY_TASK_ID": str(place), "SLURM_ARRAY_JOB_ID": "77"}
        process = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=job, stderr=subprocess.PIPE, text=True, start_new_session=True)
        if place == 0:
            while not list((tmp_path / "shards").glob(".datagen/notes/*.json")):
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.005)
            step = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(step[0]), signal.SIGTERM)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert log.read_text() == "requeue 77_0\n"
    job = environment | {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "77"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=job, check=True, timeout=120)
    assert synthetic.tree(tmp_path / "one").items() <= synthetic.tree(tmp_path / "shards").items()
