"""The same plan on a Ray cluster gives the bytes of one process, also where a node is lost in the middle (W6, W10)."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic

import datagen
from datagen import registry
from datagen.errors import InputError, ResourceError
from datagen.records import Recipe, ShardTask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(600),
]
ASKED = {"per_class": 100, "shard_images": 64}


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What Ray forgets to close is collected here, where that is no failure, not in whatever test comes next."""
    yield
    gc.collect()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a cluster of two nodes on this machine: a head and another one, each with one processor."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RULE_SLEEP", "0.01")
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.second = found.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", found.address)
    yield found
    ray.shutdown()
    found.shutdown()


def test_a_node_lost_in_the_middle_changes_no_byte(cluster: Any, tmp_path: Path) -> None:
    rule, out, lost = synthetic.rule(tmp_path), tmp_path / "ray", threading.Event()
    datagen.synthesize(rule, tmp_path / "one", workers=1, **ASKED)

    def lose() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and len(list(out.glob(".datagen/notes/*.json"))) < 2:
            time.sleep(0.01)
        cluster.remove_node(cluster.second, allow_graceful=False)
        lost.set()

    thread = threading.Thread(target=lose)
    thread.start()
    value = datagen.synthesize(rule, out, engine="ray", **ASKED)
    thread.join()
    assert lost.is_set() and value["complete"] and value["images"] == 500
    assert synthetic.tree(out) == synthetic.tree(tmp_path / "one")


def test_a_generator_on_two_nodes(cluster: Any, tmp_path: Path) -> None:
    run, family = synthetic.generator(tmp_path), synthetic.own(tmp_path)
    settings = {**ASKED, "keep_near_copies": True, "family": family}
    datagen.synthesize(run, tmp_path / "one", workers=1, **settings)
    datagen.synthesize(run, tmp_path / "ray", engine="ray", **settings)
    assert synthetic.tree(tmp_path / "ray") == synthetic.tree(tmp_path / "one")


def test_a_cluster_that_nobody_named_is_left_alone(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    rule = synthetic.rule(tmp_path)
    value = datagen.synthesize(rule, tmp_path / "ray", engine="ray", workers=1, **ASKED)
    assert value["complete"] and value["images"] == 500 and cluster.list_all_nodes()


def test_sigterm_stops_as_everywhere_and_nothing_but_the_result_is_on_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, out = synthetic.rule(tmp_path), tmp_path / "out"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RULE_SLEEP", "0.01")
    flags = ["--per-class", "100", "--shard-images", "64", "--engine", "ray", "--workers", "1", "--json"]
    command = [sys.executable, "-m", "datagen", "synthesize", rule, *flags, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(list(out.glob(".datagen/notes/*.json"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    stdout, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "the same command continues" in said, said
    assert json.loads(stdout)["exit_code"] == 75
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["continued"]
    datagen.synthesize(rule, tmp_path / "one", workers=1, **ASKED)
    assert synthetic.tree(out) == synthetic.tree(tmp_path / "one")


def dies(task: ShardTask) -> int:
    """Be a worker that is killed at one task."""
    if task.id == 1:
        os._exit(9)
    return task.id


def refuses(task: ShardTask) -> int:
    """Be a task that cannot be done."""
    raise InputError("cannot be made", where=task.file)


def test_what_goes_wrong_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    engine = registry.load("engines", "ray")()
    tasks = [ShardTask(i, f"data/{i}.bin", ((0, 0, 1),)) for i in range(3)]
    with pytest.raises(ResourceError, match=r"data/1\.bin: 3 workers died at this shard"):
        list(engine.run(tasks, dies, Recipe(workers=1)))
    with pytest.raises(InputError, match="cannot be made"):
        list(engine.run(tasks, refuses, Recipe(workers=1)))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ResourceError, match="Ray cannot be reached"):
        list(engine.run(tasks, refuses, Recipe(workers=1)))
