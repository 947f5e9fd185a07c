"""Every verb on small made data: what it prints, what it writes, the same command again, what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import datagen
from datagen.cli import app, quickstart, show
from datagen.progress import Progress

Captured = pytest.CaptureFixture[str]
MakeFolder = Callable[..., Path]


def run(*arguments: object) -> int:
    return app.run([str(a) for a in arguments])


def document(captured: Captured, *arguments: object) -> Any:
    """Run a command that must succeed, with --json, and return its document."""
    assert run(*arguments, "--json", "--quiet") == 0
    return json.loads(captured.readouterr().out)


def pixels(path: object) -> np.ndarray:
    """Return the pixels of an image file."""
    with Image.open(str(path)) as image:
        return np.asarray(image)


SMALL = ("--batch", 16, "--width", 8, "--threads", 1, "--precision", "fp32", "--layout", "contiguous")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    assert run("synthesize", "rule:shapes", "--per-class", 30, "--out", tmp_path / "shards", "--quiet") == 0
    return tmp_path / "shards"


def test_synthesize_says_what_it_made_and_what_to_do_next(tmp_path: Path, capsys: Captured) -> None:
    command = ("synthesize", "rule:shapes", "--per-class", 10, "--out", tmp_path / "a b")
    assert run(*command) == 0
    out = capsys.readouterr()
    assert "images             60" in out.out
    assert f"next: datagen evaluate '{tmp_path / 'a b'}' --real FOLDER --test FOLDER --out report" in out.err
    again = document(capsys, *command)
    assert again["finished"] is True
    assert json.loads((tmp_path / "a b" / "status.json").read_text())["exit_code"] == 0


def test_dry_runs_make_nothing(tmp_path: Path, make_folder: MakeFolder, capsys: Captured, shards: Path) -> None:
    capsys.readouterr()
    folder = make_folder(classes=2, each=16, size=(8, 8))
    before = set(tmp_path.iterdir())
    plan = document(capsys, "synthesize", "rule:shapes", "--per-class", 10, "--out", tmp_path / "x", "--dry-run")
    assert plan["images"] == 60
    plan = document(capsys, "fit", folder, "--images", 512, "--out", tmp_path / "y", "--dry-run", *SMALL)
    assert plan["settings"]["images"] == 512
    assert any("2 classes" in line for line in plan["plan"])
    plan = document(capsys, "quickstart", "--out", tmp_path / "z", "--dry-run")
    assert [step.split()[1] for step in plan["plan"]] == ["fit", "synthesize", "evaluate"]
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["parquet", "webdataset", "folder"])
def test_export_then_verify(kind: str, shards: Path, tmp_path: Path, capsys: Captured) -> None:
    capsys.readouterr()
    assert run("export", shards, "--format", kind, "--out", tmp_path / kind) == 0
    said = capsys.readouterr()
    assert f"next: datagen describe {tmp_path / kind} --verify" in said.err and "finished" not in said.out and "continued" not in said.out
    assert run("synthesize", tmp_path / kind, "--per-class", 2, "--out", tmp_path / "again") == 4
    assert "is a set of shards" in capsys.readouterr().err
    found = document(capsys, "describe", tmp_path / kind, "--verify")
    assert (found["kind"], found["images"], found["format"], found["verified"]) == ("shards", 180, kind, True)
    assert set(found["classes"].values()) == {30}


def test_a_folder_is_described_with_what_is_wrong_in_it(make_folder: Callable[..., Path], capsys: Captured) -> None:
    folder = make_folder(classes=2, each=30)
    (folder / "class0" / "broken.png").write_bytes(b"no image")
    capsys.readouterr()
    assert run("describe", folder) == 0
    said = capsys.readouterr().out
    assert "class0/broken.png: " in said and "{" not in said


def test_verify_names_every_damaged_file(shards: Path, capsys: Captured) -> None:
    (file,) = (shards / "data").iterdir()
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    capsys.readouterr()
    assert run("describe", shards, "--verify") == 4
    err = capsys.readouterr().err
    assert f"data/{file.name}: differs from its SHA-256" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_describe_a_folder_and_draw_it(make_folder: MakeFolder, tmp_path: Path, capsys: Captured) -> None:
    folder = make_folder(classes=3, each=5, size=(8, 8))
    found = document(capsys, "describe", folder, "--preview", tmp_path / "look.png")
    assert found["kind"] == "folder"
    assert found["classes"] == {"class0": 5, "class1": 5, "class2": 5}
    assert pixels(tmp_path / "look.png").shape[1] > 8 * 8
    assert run("describe", folder, "--preview", tmp_path / "look.png") == 5, "a picture is never overwritten"
    assert run("describe", folder, "--preview", tmp_path / "look.jpg") == 2
    assert run("describe", folder, "--verify") == 2
    assert run("describe", tmp_path / "nowhere") == 3


def test_describe_draws_shards_by_class(shards: Path, tmp_path: Path, capsys: Captured) -> None:
    found = datagen.describe(shards, preview=tmp_path / "shards.png")
    height, width, _ = pixels(found["preview"]).shape
    assert width / height == pytest.approx(8 / 6, rel=0.05)


def test_fit_synthesize_describe(make_folder: MakeFolder, tmp_path: Path, capsys: Captured) -> None:
    folder, fitted, shards = make_folder(classes=2, each=16, size=(8, 8)), tmp_path / "run", tmp_path / "made"
    command = ("fit", folder, "--out", fitted, "--images", 256, *SMALL)
    assert run(*command) == 0
    out = capsys.readouterr()
    assert f"next: datagen synthesize {fitted} --per-class 1000 --out shards" in out.err
    assert document(capsys, *command)["finished"] is True
    assert run(*command, "--seed", 5) == 2, "another seed is another run"
    assert "seed" in capsys.readouterr().err
    described = document(capsys, "describe", fitted, "--verify", "--preview", tmp_path / "grid.png")
    assert (described["kind"], described["finished"], set(described["classes"])) == ("run", True, {"class0", "class1"})
    assert document(capsys, "synthesize", fitted, "--per-class", 5, "--out", shards)["images"] == 10
    weights = fitted / "generator" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    assert run("describe", fitted, "--verify") == 4
    shutil.rmtree(fitted / "generator")
    assert document(capsys, "describe", fitted)["finished"] is False


def test_the_digits_are_half_train_half_test(tmp_path: Path) -> None:
    quiet = Progress(quiet=True)
    assert quickstart.write_digits(tmp_path / "a", quiet) == 1797
    quickstart.write_digits(tmp_path / "b", quiet)
    files = {p.relative_to(tmp_path / "a"): p.read_bytes() for p in (tmp_path / "a").rglob("*.png")}
    assert files == {p.relative_to(tmp_path / "b"): p.read_bytes() for p in (tmp_path / "b").rglob("*.png")}
    for digit in range(10):
        train, test = (sum(p.parts[:2] == (part, str(digit)) for p in files) for part in ("train", "test"))
        assert 0 <= train - test <= 1
    found = np.stack([pixels(path) for path in (tmp_path / "a" / "train" / "0").iterdir()])
    assert found.shape[1:] == (8, 8)
    assert (found.min(), found.max()) == (0, 255)


def test_quickstart_leaves_a_foreign_folder_alone(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    assert run("quickstart", "--out", tmp_path) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.slow
def test_quickstart_ends_with_a_useful_report(tmp_path: Path, capsys: Captured) -> None:
    found = document(capsys, "quickstart", "--out", tmp_path / "quickstart")
    arms = found["evaluate"]["arms"]
    assert arms["real"]["accuracy"]["mean"] >= 0.975
    assert arms["synthetic"]["accuracy"]["mean"] >= 0.955
    assert found["evaluate"]["differences"]["both-real"]["high"] >= 0
    assert Path(found["report"]).stat().st_size < 20_000_000
    assert document(capsys, "quickstart", "--out", tmp_path / "quickstart")["fit"]["finished"] is True


@pytest.mark.parametrize(("item", "text"), [(True, "yes"), (12345, "12,345"), (0.123456, "0.1235"), ([1, 2], "1, 2"), (list(range(20)), "20 entries")])
def test_values_in_words(item: object, text: str) -> None:
    assert show.cell(item) == text


def test_tables_are_aligned_and_safe() -> None:
    assert show.columns([("a", "b"), ("long", "x\x1b[31m")]) == "a     b\nlong  x\\x1b[31m"
    assert show.rows({"a": 1, "b": {"c": 2, "d": None}, "e": None, "f": []}) == "a    1\nb.c  2"
