"""Outputs where the user's own files are, links, columns and files that would quietly change what is learnt from: refused, or used and said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_evaluation import SMALL
from test_training import quick_fit

import datagen
from datagen.cli.app import run
from datagen.errors import ArtefactError, InputError, OutputError, UsageError
from datagen.progress import Progress
from datagen.records import Recipe
from datagen.sources import scan

Maker = Callable[..., Path]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["data.json", "status.json", "recipe.json", "scan.json"])
def test_a_fit_never_takes_a_folder_of_yours_for_a_run(make_folder: Maker, tmp_path: Path, name: str) -> None:
    source, out = make_folder(each=10), tmp_path / "project"
    out.mkdir()
    (out / name).write_text('{"mine": 1}')
    (out / "notes.txt").write_text("mine")
    before = content(out)
    with pytest.raises(OutputError):
        quick_fit(source, out)
    assert {k: v for k, v in content(out).items() if k != ".lock"} == before
    (out / "notes.txt").unlink()
    if name in {"data.json", "recipe.json"}:
        with pytest.raises(OutputError):
            quick_fit(source, out)
        assert (out / name).read_text() == '{"mine": 1}'


@pytest.mark.parametrize("name", ["report.html", "plan.json", "report.json", "arms"])
def test_an_evaluation_never_takes_a_folder_of_yours_for_a_report(make_folder: Maker, tmp_path: Path, name: str) -> None:
    real, made, out = make_folder(each=10), make_folder("made", each=10), tmp_path / "project"
    out.mkdir()
    (out / name).write_text('{"schema": 1}')
    (out / "notes.txt").write_text("mine")
    before = content(out)
    with pytest.raises(OutputError):
        datagen.evaluate(made, real=real, out=out, recipe=Recipe(**SMALL), progress=Progress(quiet=True))
    assert {k: v for k, v in content(out).items() if k != ".lock"} == before


def test_nothing_is_written_into_folders_that_are_read(make_folder: Maker, tmp_path: Path) -> None:
    source, test, fitted = make_folder(each=20), make_folder("test", each=5, seed=3), tmp_path / "run"
    for path in sorted((source / "class0").iterdir())[12:]:
        path.unlink()
    quick_fit(source, fitted)
    datagen.synthesize(fitted, tmp_path / "shards", per_class=3, workers=1)
    before = content(source) | content(test)
    tries: list[Callable[[], Any]] = [
        lambda: quick_fit(source, source / "run"),
        lambda: quick_fit(source, test / "run", test=str(test)),
        lambda: datagen.synthesize(fitted, source / "topup", balance_with=str(source), workers=1),
        lambda: datagen.evaluate(tmp_path / "shards", run=fitted, out=source / "report", recipe=Recipe(**SMALL), progress=Progress(quiet=True)),
        lambda: datagen.describe(source, preview=source / "x.png"),
        lambda: datagen.describe(source, page=source / "x.html"),
    ]
    for attempt in tries:
        with pytest.raises(OutputError, match="lies inside"):
            attempt()
    assert content(source) | content(test) == before


def test_what_desktops_leave_in_a_run_that_has_begun_is_not_in_the_way(make_folder: Maker, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in ("scan.json", ".DS_Store", "._scan.json", ".nfs0001", "datagen-error-1.log"):
        (out / name).write_text("{}")
    assert quick_fit(make_folder(each=12), out)["images"] and (out / ".DS_Store").read_text() == "{}"


def test_the_quickstart_writes_into_no_folder_of_yours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mnist/data/train/0"
    mine.mkdir(parents=True)
    (mine / "0001.png").write_bytes(b"mine")
    assert run(["quickstart", "--out", str(tmp_path / "mnist")]) == 5
    (tmp_path / "file").write_text("mine")
    assert run(["quickstart", "--out", str(tmp_path / "file")]) == 5
    told = capsys.readouterr().err
    assert "is not empty" in told and "is a file" in told and "a fault of datagen" not in told
    assert content(tmp_path) == {"mnist/data/train/0/0001.png": b"mine", "file": b"mine"}


def test_a_class_that_is_a_link_out_of_the_folder_is_not_left_out_in_silence(make_folder: Maker, tmp_path: Path) -> None:
    source, other = make_folder(each=10), make_folder("elsewhere", classes=["cat"], each=10)
    (source / "cat").symlink_to(other / "cat")
    with pytest.raises(InputError, match="'cat' is a link to a folder outside, so that this class would be missing"):
        datagen.describe(source)
    alone = tmp_path / "links"
    alone.mkdir()
    (alone / "cat").symlink_to(other / "cat")
    with pytest.raises(InputError, match="'cat' is a link to a folder outside"):
        datagen.describe(alone)


@pytest.mark.parametrize("format", ["parquet", "webdataset", "folder"])
def test_a_preview_opens_nothing_that_is_damaged(tmp_path: Path, format: str) -> None:
    datagen.synthesize("rule:shapes", tmp_path / "shards", per_class=3, workers=1, format=format)
    assert datagen.describe(tmp_path / "shards", preview=tmp_path / "good.png")["preview"]
    file = max((tmp_path / "shards/data").rglob("*.*"), key=lambda path: path.stat().st_size)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    if format == "folder":
        for image in (tmp_path / "shards/data").rglob("*.png"):
            image.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    with pytest.raises(ArtefactError):
        datagen.describe(tmp_path / "shards", preview=tmp_path / "bad.png")
    assert not (tmp_path / "bad.png").exists()


def test_files_are_images_by_the_same_names_for_every_reader(make_folder: Maker) -> None:
    source = make_folder(classes=["cat", "dog"], each=4)
    for number, path in enumerate(sorted((source / "cat").iterdir())):
        Image.open(path).convert("RGB").save(path.with_suffix((".jfif", ".JPE", ".dib", ".jpg")[number]), "BMP" if number == 2 else "JPEG")
        path.unlink()
    assert datagen.describe(source)["classes"] == {"cat": 4, "dog": 4}
    assert np.bincount(datagen.ShardDataset(source).labels).tolist() == [4, 4]


@pytest.mark.parametrize("name", ["Train", "training", "train"])
def test_the_training_part_is_found_whatever_its_case(make_folder: Maker, tmp_path: Path, name: str) -> None:
    make_folder(f"set/{name}", classes=["cat", "dog"], each=4)
    make_folder("set/Test", classes=["cat", "dog"], each=2, seed=4)
    found = datagen.describe(tmp_path / "set")
    assert (found["classes"], found["test_images"]) == ({"cat": 4, "dog": 4}, 4)
    assert datagen.ShardDataset(tmp_path / "set").classes == ("cat", "dog") and len(datagen.ShardDataset(tmp_path / "set")) == 8


def table(source: Path, column: str, says: Callable[[int], str]) -> Path:
    """Write a CSV of a folder's images with one column more."""
    files = sorted(path for path in source.rglob("*.png"))
    lines = [f"{path.relative_to(source)},{path.parent.name},{says(i)}" for i, path in enumerate(files)]
    (source / "labels.csv").write_text("\n".join([f"path,label,{column}", *lines]) + "\n")
    return source / "labels.csv"


@pytest.mark.parametrize(("column", "held"), [("split", "test"), ("Set", "testing"), ("subset", "valid"), ("partition", "val")])
def test_a_column_that_says_the_part_is_heeded(make_folder: Maker, column: str, held: str) -> None:
    source = make_folder(classes=["cat", "dog"], each=10)
    data = scan.scan(table(source, column, lambda i: held if i % 5 == 0 else "train"), Recipe())
    assert data.test.sum() == 4 and all(int(Path(path).stem) % 5 == 0 for path, test in zip(data.paths, data.test, strict=True) if test)
    assert any(f"the column {column!r} says which images are the" in note for note in data.notes)


@pytest.mark.parametrize("says", [lambda i: "fold1", lambda i: "train", lambda i: "" if i == 3 else "test" if i % 2 else "train"])
def test_a_column_that_does_not_say_it_of_all_is_said_to_be_left_alone(make_folder: Maker, says: Callable[[int], str]) -> None:
    data = scan.scan(table(make_folder(classes=["cat", "dog"], each=6), "split", says), Recipe())
    assert not data.test.any() and any("the column 'split' is not looked at" in note for note in data.notes)


def test_the_same_of_a_column_of_parquet(make_folder: Maker, tmp_path: Path) -> None:
    files = sorted(make_folder(classes=["cat", "dog"], each=10).rglob("*.png"))
    images, labels = [{"bytes": path.read_bytes()} for path in files], [path.parent.name for path in files]
    parts = ["test" if i % 4 == 0 else "train" for i in range(len(files))]
    pq.write_table(pa.table({"image": images, "label": labels, "split": parts}), tmp_path / "all.parquet")
    data = scan.scan(tmp_path / "all.parquet", Recipe())
    assert data.test.sum() == 5 and all(int(path.rpartition("#")[2]) % 4 == 0 for path, test in zip(data.paths, data.test, strict=True) if test)


def test_what_a_split_could_not_do_is_said_by_fit(make_folder: Maker, tmp_path: Path) -> None:
    said: list[str] = []
    progress = Progress(tmp_path / "run", quiet=True)
    progress.say = said.append  # type: ignore[method-assign]
    source = make_folder(each=12)
    settings = {"images": 64, "family": "cvae", "width": 4, "latent": 4, "batch": 8, "deterministic": True, "threads": 1}
    datagen.fit(source, tmp_path / "run", progress=progress, group=r"(class1|\d+\.)", **settings)
    assert any("too few images or groups for a select part in 1 of 3 classes: 'class1'" in line for line in said)
    with pytest.raises(InputError, match="'class' gives all 36 images one group"):
        datagen.fit(source, tmp_path / "other", group="class", images=64)


def test_a_run_without_test_images_takes_some_for_its_evaluation(make_folder: Maker, tmp_path: Path) -> None:
    source, test = make_folder(each=20), make_folder("test", each=8, seed=5)
    quick_fit(source, tmp_path / "run", holdout=0.0)
    datagen.synthesize(tmp_path / "run", tmp_path / "shards", per_class=8, workers=1)
    asked = {"run": tmp_path / "run", "recipe": Recipe(**(SMALL | {"repeats": 1})), "progress": Progress(quiet=True)}
    with pytest.raises(UsageError, match="no unseen real images"):
        datagen.evaluate(tmp_path / "shards", out=tmp_path / "none", **asked)
    found = datagen.evaluate(tmp_path / "shards", out=tmp_path / "report", test=test, **asked)
    assert found["data"]["test"]["images"] == 24 and found["data"]["real"]["images"] == 60


def test_every_reason_is_said_where_no_report_holds_them(make_folder: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(each=12)
    for name in ("class0", "class1"):
        for path in sorted((source / name).iterdir()):
            path.write_bytes(b"no image")
    assert run(["describe", str(source)]) == 3
    told = capsys.readouterr().err
    assert "more reasons" not in told or told.count("warning: ") >= 2


def test_a_mistake_in_a_file_of_yours_is_yours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    for text, said in {"def x(:\n": "line 1: SyntaxError", "import nothing_of_that_name\n": "ModuleNotFoundError", "1 / 0\n": "ZeroDivisionError"}.items():
        file.write_text(text)
        assert run(["synthesize", f"rule:{file}:Dots", "--per-class", "1", "--out", str(tmp_path / "shards")]) == 2
        told = capsys.readouterr().err
        assert said in told and "a fault of datagen" not in told
    assert not os.path.exists(tmp_path / "shards/manifest.json")
