"""Two processes that train together see the images of one, and come to its weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import datagen
from datagen import ranks
from datagen.errors import Stopped

Maker = Callable[..., Path]
SETTINGS = {"images": 640, "width": 4, "latent": 4, "batch": 16, "threads": 1, "deterministic": True}
HARD = {"prior": "flow", "augment": "translate,colour,cutout", "flips": True, "learning_rate": 1e-4}


def by_two(source: Path, out: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Fit by two processes."""
    more = [part for key, value in (SETTINGS | settings).items() for part in ("--set", f"{key}={str(value).lower()}")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--log-dir", str(out.parent / "logs")]
    command = [sys.executable, *launcher, "-m", "datagen", "fit", str(source), "--out", str(out), *more, "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("family", ["vae", pytest.param("gan", marks=pytest.mark.slow)])
def test_two_processes_come_to_the_weights_of_one(make_folder: Maker, tmp_path: Path, family: str) -> None:
    source = make_folder(each=48)
    alone = datagen.fit(source, tmp_path / "one", family=family, **SETTINGS, **HARD)
    shared = by_two(source, tmp_path / "two", family=family, **HARD)
    assert shared.returncode == 0, shared.stderr
    assert json.loads(shared.stdout)["images"] == alone["images"], "one document, of the first process"
    one, two = (load_file(tmp_path / name / "generator" / "weights.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    far = max(float(np.abs(one[name] - two[name]).max()) for name in one)
    assert far < 1e-5, far
    stages = [{json.loads(line)["stage"] for line in (tmp_path / name / "progress.jsonl").read_text().splitlines()} for name in ("one", "two")]
    assert stages[0] == stages[1] and len(list((tmp_path / "two" / "checkpoints").iterdir())) >= 1


@pytest.mark.slow
def test_two_processes_do_nothing_again_and_refuse_what_they_cannot_share(make_folder: Maker, tmp_path: Path) -> None:
    source = make_folder(each=12)
    for finished in (False, True):
        done = by_two(source, tmp_path / "run")
        assert done.returncode == 0 and json.loads(done.stdout)["finished"] == finished
    done = by_two(source, tmp_path / "odd", batch=15)
    assert done.returncode != 0 and "a batch of 15 images cannot be shared by 2 processes" in done.stderr


def test_a_fault_of_the_gpu_is_not_said_to_be_anothers() -> None:
    with pytest.raises(RuntimeError, match="CUDA error"), ranks._alone():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(Stopped, match="Connection closed by peer"), ranks._alone():
        raise RuntimeError("Connection closed by peer")


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.count() == 1 and ranks.rank() == 0 and ranks.own(10) == slice(10)
    with ranks.group("cpu"), ranks.together():
        assert ranks.shares() == 1 and ranks.anywhere([True, False], "cpu") == [True, False]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert ranks.count() == 1, "a variable of another program starts nothing"
