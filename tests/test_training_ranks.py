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

from datagen import ranks

Maker = Callable[..., Path]
SETTINGS = ["--images", "640", "--set", "width=4", "--set", "latent=4", "--set", "batch=16", "--set", "threads=1", "--deterministic"]


def fit(source: Path, out: Path, *more: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "datagen", "fit", str(source), "--out", str(out), *SETTINGS, *more, "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("family", ["vae", pytest.param("gan", marks=pytest.mark.slow)])
def test_two_processes_come_to_the_weights_of_one(make_folder: Maker, tmp_path: Path, family: str) -> None:
    source = make_folder(each=48)
    more = ["--family", family, "--set", "augment=translate,colour,cutout", "--set", "flips=true", "--set", "learning_rate=1e-4"]
    alone, shared = fit(source, tmp_path / "one", *more), fit(source, tmp_path / "two", *more, processes=2)
    assert alone.returncode == shared.returncode == 0, shared.stderr
    assert json.loads(shared.stdout)["images"] == json.loads(alone.stdout)["images"], "one document, of the first process"
    one, two = (load_file(tmp_path / name / "generator" / "weights.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    far = max(float(np.abs(one[name] - two[name]).max()) for name in one)
    assert far < 1e-5, far
    stages = [{json.loads(line)["stage"] for line in (tmp_path / name / "progress.jsonl").read_text().splitlines()} for name in ("one", "two")]
    assert stages[0] == stages[1] and len(list((tmp_path / "two" / "checkpoints").iterdir())) >= 1
    again = fit(source, tmp_path / "two", *more, processes=2)
    assert again.returncode == 0 and json.loads(again.stdout)["finished"]


def test_a_batch_that_cannot_be_shared_is_refused(make_folder: Maker, tmp_path: Path) -> None:
    done = fit(make_folder(each=12), tmp_path / "run", "--set", "batch=15", processes=2)
    assert done.returncode != 0 and "a batch of 15 images cannot be shared by 2 processes" in done.stderr


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.count() == 1 and ranks.rank() == 0 and ranks.own(10) == slice(10)
    with ranks.group("cpu"), ranks.together():
        assert ranks.shares() == 1 and ranks.anywhere([True, False], "cpu") == [True, False]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert ranks.count() == 1, "a variable of another program starts nothing"
