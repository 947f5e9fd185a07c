"""Real and synthetic images in one labelled folder: same labels, same bytes, nothing half done, nothing of the user's touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import tree
from torchvision.datasets import ImageFolder

import datagen
from datagen import storage
from datagen.cli.app import run
from datagen.errors import ArtefactError, InputError, OutputError
from datagen.synthesis.merge import merge

Maker = Callable[..., Path]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Seven circles and no square."""
    (tmp_path / "quota.json").write_text(json.dumps({"circle": 7, "square": 0}))
    datagen.synthesize("rule:shapes", tmp_path / "shards", quota=str(tmp_path / "quota.json"), workers=1)
    return tmp_path / "shards"


def test_labels_and_bytes_are_those_of_both_sets(make_folder: Maker, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = make_folder(classes=["aaa", "circle", "square"], each=4, size=(32, 32))
    (real / "aaa" / "inner").mkdir()
    (real / "aaa" / "000.png").rename(real / "aaa" / "inner" / "000.png")
    before, made = tree(real), tree(shards)
    assert run(["export", str(shards), "--merge", str(real), "--out", str(tmp_path / "both"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["real"], told["synthetic"], told["classes"]["square"]) == (19, 12, 7, {"real": 4, "synthetic": 0})
    found = ImageFolder(tmp_path / "both")
    assert found.classes == ImageFolder(real).classes
    assert [found.targets.count(label) for label in range(3)] == [4, 11, 4]
    after = tree(tmp_path / "both")
    assert {name: content for name, content in after.items() if "synthetic-" not in name and name != "merged.json"} == before == tree(real)
    alone = datagen.ShardDataset(shards)
    assert {content for name, content in after.items() if "synthetic-" in name} == {alone._located.content(row) for row in range(7)}
    assert tree(shards) == made and not list(tmp_path.glob(".*"))


def test_what_cannot_be_merged_is_refused_and_nothing_is_left(make_folder: Maker, shards: Path, tmp_path: Path) -> None:
    real, out = make_folder(classes=["circle", "square"], each=2), tmp_path / "both"
    with pytest.raises(InputError, match="class 'circle' of the shards is none of the real ones"):
        merge(shards, make_folder("other", classes=["circles", "square"], each=2), out)
    with pytest.raises(OutputError, match="lies inside a folder that is read"):
        merge(shards, real, real / "both")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        merge(shards, real, tmp_path / "full")
    assert run(["export", str(shards), "--merge", str(real), "--out", str(out), "--format", "parquet"]) == 2
    assert not out.exists() and tree(tmp_path / "full") == {"mine.txt": b"mine"}
    (shards / "manifest.json").unlink()
    with pytest.raises(ArtefactError, match="not finished"):
        merge(shards, real, out)


def test_a_stopped_merge_continues_and_shows_nothing_before(make_folder: Maker, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, out = make_folder(classes=["circle", "square"], each=3), tmp_path / "both"
    merge(shards, real, tmp_path / "whole")

    def full(path: Path, value: object) -> None:
        raise OutputError("no space left", where=path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", full)
        with pytest.raises(OutputError, match="no space"):
            merge(shards, real, out)
    assert not out.exists()
    assert merge(shards, real, out)["finished"] is False
    written = tree(out)
    assert {**written, "merged.json": b""} == {**tree(tmp_path / "whole"), "merged.json": b""}
    assert merge(shards, real, out)["finished"] is True and tree(out) == written
    (real / "circle" / "000.png").write_bytes((real / "circle" / "001.png").read_bytes())
    with pytest.raises(OutputError, match="not empty"):
        merge(shards, real, out)
    assert tree(out) == written


def test_nothing_is_lost_or_mixed_in(make_folder: Maker, shards: Path, tmp_path: Path) -> None:
    real = make_folder(classes=["circle", "square"], each=3)
    merge(shards, real, tmp_path / "once")
    with pytest.raises(InputError, match="called as a synthetic one"):
        merge(shards, tmp_path / "once", tmp_path / "twice")
    with pytest.raises(InputError, match="is a set of shards"):
        merge(shards, shards, tmp_path / "other")
    assert not (tmp_path / "twice").exists() and not (tmp_path / "other").exists()


def test_what_another_order_left_behind_is_not_taken(make_folder: Maker, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, out = make_folder(classes=["circle", "square"], each=3), tmp_path / "both"
    datagen.synthesize("rule:shapes", tmp_path / "few", per_class=2, classes="circle", workers=1, seed=9)

    def full(path: Path, value: object) -> None:
        raise OutputError("no space left", where=path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", full)
        with pytest.raises(OutputError, match="no space"):
            merge(shards, real, out)
    assert merge(tmp_path / "few", real, out)["images"] == 8 == len(ImageFolder(out))
