"""`describe FOLDER --page`: what is planted in a labelled folder is found, shown and left as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import tree

import datagen
from datagen.cli import describe
from datagen.cli.app import run
from datagen.errors import OutputError, UsageError
from datagen.recogniser import suspects

Maker = Callable[..., Path]


@pytest.fixture
def planted(make_folder: Maker) -> Path:
    """Three classes of 40 images: two in the wrong folder, one twice with other noise, one large and turned, one nearly white; all grey as RGB."""
    root = make_folder(each=40, classes=["<b>up", "left", "down"])
    for path in sorted(root.rglob("*.png")):
        grey = np.asarray(Image.open(path))[..., :1]
        Image.fromarray(np.repeat(grey, 3, axis=2)).save(path)
    (root / "left" / "000.png").rename(root / "down" / "moved-a.png")
    (root / "down" / "001.png").rename(root / "<b>up" / "moved-b.png")
    twice = np.asarray(Image.open(root / "down" / "005.png")).astype(np.int16)
    Image.fromarray((twice + 1).clip(0, 255).astype(np.uint8)).save(root / "down" / "again.png")
    large = Image.open(root / "left" / "007.png").resize((160, 160))
    exif = Image.Exif()
    exif[0x0112] = 6
    large.save(root / "left" / "large.png", exif=exif)
    Image.new("RGB", (16, 16), (250, 250, 250)).save(root / "down" / "white.png")
    return root


def test_what_is_planted_is_found_and_nothing_is_changed(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(planted)
    page = tmp_path / "pages" / "scan.html"
    assert run(["describe", str(planted), "--page", str(page), "--json", "--quiet"]) == 0
    odd = json.loads(capsys.readouterr().out)["odd"]
    doubtful = {each["file"]: each["seems"] for each in odd["labels"]}
    assert {"down/moved-a.png", "<b>up/moved-b.png"} <= set(doubtful) and doubtful["down/moved-a.png"] == "left"
    assert len(odd["labels"]) <= 4
    assert {frozenset((each["file"], each["other"])) for each in odd["pairs"]} >= {frozenset(("down/005.png", "down/again.png"))}
    assert [(each["file"], each["height"], each["orientation"]) for each in odd["sizes"]] == [("left/large.png", 160, "turned by 90° to the right")]
    assert odd["brightness"][0]["file"] == "down/white.png"
    assert "all colour channels are equal" in odd["modes"][0]
    told = page.read_text(encoding="utf-8")
    assert "<b>up" not in told and "&lt;b&gt;up" in told and "<script" not in told
    assert len(re.findall(r'src="data:image/png;base64,', told)) >= 6 and not re.findall(r'(?:src|href)="(?!data:)', told)
    assert tree(planted) == before


def test_the_same_in_words_and_what_is_refused(make_folder: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(each=6, classes=["a", "b"])
    assert run(["describe", str(root), "--page", str(tmp_path / "scan.html"), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^nothing found: .*labels.*$", told, re.M)
    with pytest.raises(OutputError):
        datagen.describe(root, page=tmp_path / "scan.html")
    with pytest.raises(UsageError, match=r"--page FILE\.html"):
        datagen.describe(root, page=tmp_path / "scan.txt")
    datagen.synthesize("rule:shapes", tmp_path / "shards", per_class=2, workers=1)
    with pytest.raises(UsageError, match="labelled folders"):
        datagen.describe(tmp_path / "shards", page=tmp_path / "other.html")
    lonely = make_folder("lonely", each=4, classes=["a"])
    found = datagen.describe(lonely, page=tmp_path / "lonely.html")
    assert found["odd"]["labels"] == [] and not found["doubted"] and "labels" not in describe._text(found).split("nothing found:")[-1]
    assert "Not looked for" in (tmp_path / "lonely.html").read_text() and "Not looked for" not in (tmp_path / "scan.html").read_text()


def test_swapped_labels_come_first() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = rng.integers(0, 80, (240, 12, 12, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 120
    wrong = np.array([3, 50, 100, 199])
    given = labels.copy()
    given[wrong] = (given[wrong] + 1) % 3
    said = suspects.doubts(images, given, 3)
    assert set(said.ranked()[:4].tolist()) == set(wrong.tolist())
    assert (said.rival[wrong] == labels[wrong]).all() and (said.other[wrong] > said.own[wrong]).all()
