"""The whole way from a labelled folder to the report, on the command line and in Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import datagen

Maker = Callable[..., Path]
TINY = ["--set", "width=4", "--set", "latent=4", "--set", "batch=16", "--threads", "1", "--deterministic"]


def verb(*arguments: str, timeout: float = 280) -> dict:
    """Run one verb with --json and return its document."""
    command = [sys.executable, "-m", "datagen", *arguments, "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found: dict = json.loads(done.stdout)
    return found


def test_three_commands(make_folder: Maker, tmp_path: Path) -> None:
    source = str(make_folder(each=30, classes=["v1.0", "a b", "猫"]))
    run, shards, report = (str(tmp_path / name) for name in ("run", "shards", "report"))
    fitted = verb("fit", source, "--out", run, "--images", "640", *TINY)
    assert fitted["shape"] == [3, 16, 16]
    made = verb("synthesize", run, "--per-class", "30", "--out", shards)
    assert made["images"] == 90
    found = verb("evaluate", shards, "--run", run, "--out", report, "--steps", "10", "--repeats", "2", "--judge-batch", "32")
    assert found["classes"] == sorted(["v1.0", "a b", "猫"])
    assert set(found["arms"]) >= {"real", "synthetic", "both"}
    assert found["verdict"]["kind"] in {"helps", "none_seen", "harms", "unclear"}
    assert all(0 <= found["arms"][arm]["accuracy"][end] <= 1 for arm in found["arms"] for end in ("mean", "low", "high"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert found["verdict"]["sentence"] in page


def test_the_same_in_python(make_folder: Maker, tmp_path: Path) -> None:
    settings = {"width": 4, "latent": 4, "batch": 16, "threads": 1, "deterministic": True}
    fitted = datagen.fit(make_folder(each=30), tmp_path / "run", images=320, **settings)
    assert fitted._repr_png_().startswith(b"\x89PNG")
    assert datagen.synthesize(tmp_path / "run", tmp_path / "shards", per_class=20, format="folder")["images"] == 60
    shards = datagen.ShardDataset(tmp_path / "shards")
    assert len(shards) == 60
    found = datagen.evaluate(tmp_path / "shards", run=tmp_path / "run", out=tmp_path / "report", steps=8, repeats=1, judge_batch=32)
    assert found["verdict"]["sentence"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_thousand_classes_walk_the_whole_way(make_folder: Maker, tmp_path: Path) -> None:
    source = str(make_folder(classes=[f"class {i:04d}" for i in range(1000)], each=20, size=(16, 16)))
    run, shards, report = (str(tmp_path / name) for name in ("run", "shards", "report"))
    verb("fit", source, "--out", run, "--images", "20k", *TINY, timeout=1200)
    assert verb("synthesize", run, "--per-class", "20", "--out", shards, timeout=1200)["images"] == 20_000
    found = verb("evaluate", shards, "--run", run, "--out", report, "--steps", "60", "--repeats", "1", timeout=1200)
    assert len(found["classes"]) == 1000
    page = tmp_path / "report" / "report.html"
    assert page.stat().st_size < 20_000_000
    assert "of 1,000 classes" in page.read_text()
