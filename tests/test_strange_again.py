"""The same command with something else behind it, and what the next line, a hint or a folder's name then says."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_training import quick_fit

import datagen
from datagen.cli.app import run
from datagen.errors import ArtefactError, InputError, UsageError, nearest
from datagen.reading.located import locate
from datagen.records import Recipe

Make = Callable[..., Path]


def test_a_finished_run_is_not_that_of_another_folder(make_folder: Make, tmp_path: Path) -> None:
    cats, dogs = make_folder("cats", each=12), make_folder("dogs", each=12, seed=9)
    quick_fit(cats, tmp_path / "run", images=64)
    scanned = (tmp_path / "run/scan.json").read_bytes()
    with pytest.raises(InputError, match="the images changed since this run began"):
        quick_fit(dogs, tmp_path / "run", images=64)
    assert (tmp_path / "run/scan.json").read_bytes() == scanned
    assert quick_fit(cats, tmp_path / "run", images=64)["finished"]
    Image.fromarray(np.full((12, 12), 7, np.uint8)).save(cats / "class0" / "new.png")
    with pytest.raises(InputError, match=r"class0: 12 images, now 13"):
        quick_fit(cats, tmp_path / "run", images=64)


def test_folders_that_differ_after_a_dot_have_runs_of_their_own(make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datagen.training import run as training

    found: list[Path] = []
    monkeypatch.setattr(training, "_lead", lambda source, out, *rest, **options: found.append(out))
    monkeypatch.chdir(tmp_path)
    for name in ("photos.2023", "photos.2024"):
        datagen.fit(make_folder(name, each=2))
    (tmp_path / "list.csv").write_text("path,label\n")
    datagen.fit(tmp_path / "list.csv")
    assert [path.name for path in found] == ["photos.2023-run", "photos.2024-run", "list-run"]


def test_a_dry_run_splits_as_the_fit_does(make_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(each=30)
    asked = ["fit", str(folder), "--seed", "5", "--images", "64", "--threads", "1", "--json"]
    assert run([*asked, "--dry-run"]) == 0
    (line,) = [line for line in json.loads(capsys.readouterr().out)["plan"] if line.startswith("data: ")]
    quick_fit(folder, tmp_path / "run", images=64, seed=5)
    data = json.loads((tmp_path / "run/data.json").read_text())
    card = json.loads((tmp_path / "run/generator/card.json").read_text())
    assert sum(card["counts"]) == data["split"]["train"]
    least, most = min(card["counts"]), max(card["counts"])
    assert (f"{least:,} to {most:,}" if least < most else f"{least:,}") in line


def test_what_is_not_finished_has_no_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datagen.synthesize("rule:shapes", tmp_path / "s", per_class=4, workers=1)
    assert run(["describe", str(tmp_path / "s")]) == 0 and "datagen evaluate" in capsys.readouterr().err
    (tmp_path / "s/manifest.json").unlink()
    assert run(["describe", str(tmp_path / "s")]) == 0 and "datagen evaluate" not in capsys.readouterr().err


def test_a_set_that_is_balanced_already_is_said_to_be(make_folder: Make, tmp_path: Path) -> None:
    datagen.synthesize("rule:shapes", tmp_path / "all", per_class=1, workers=1)
    folder = make_folder(classes=json.loads((tmp_path / "all/classes.json").read_text()), each=5)
    with pytest.raises(UsageError, match="has as many images of each class already"):
        datagen.synthesize("rule:shapes", tmp_path / "s", balance_with=str(folder), workers=1)


def test_a_folder_that_the_fit_took_is_taken_to_balance_with(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder(classes=["a", "b"], each=12)
    for path in sorted((folder / "a").iterdir())[8:]:
        path.unlink()
    shutil.copy(next((folder / "b").iterdir()), folder / "a" / "taken.png")
    with pytest.raises(InputError):
        quick_fit(folder, tmp_path / "refused", images=64)
    quick_fit(folder, tmp_path / "run", images=64, on_conflict="drop")
    made = datagen.synthesize(tmp_path / "run", tmp_path / "s", balance_with=str(folder), workers=1)
    assert made["images"] == 11 - 8


def test_a_name_in_another_form_of_unicode_is_told() -> None:
    typed, listed = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
    assert typed != listed and "composed otherwise" in nearest(typed, [listed, "Biene"])
    assert nearest("Kafer", [typed, "Biene"]) == f"did you mean {typed!r}?"


def test_a_labelled_folder_is_listed_as_fit_lists_it(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder(classes=["a", "b"], each=3)
    (folder / "a" / "000.png").rename(folder / "a" / "0001")
    (folder / "a" / "notes").write_text("no image")
    (tmp_path / "elsewhere.png").write_bytes((folder / "b" / "000.png").read_bytes())
    (folder / "b" / "inside.png").symlink_to(folder / "b" / "001.png")
    os.mkfifo(folder / "b" / "pipe.png")
    names = sorted(Path(locate(folder).name(row)).name for row in range(len(locate(folder))))
    assert names == sorted(["0001", "001.png", "002.png", "000.png", "001.png", "002.png"])
    (folder / ".store").mkdir()
    (folder / "b" / "002.png").rename(folder / ".store" / "2")
    (folder / "b" / "002.png").symlink_to(folder / ".store" / "2")
    assert len(locate(folder)) == 6, "a store inside, as git-annex has it"
    (folder / "b" / "out.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InputError, match="a link that leads out of the folder"):
        locate(folder)


def test_a_damaged_photo_of_yours_has_a_remedy_that_works(make_folder: Make) -> None:
    folder = make_folder(classes=["a", "b"], each=3)
    (folder / "a" / "000.png").write_bytes((folder / "a" / "000.png").read_bytes()[:40])
    with pytest.raises(ArtefactError) as caught:
        list(datagen.ShardDataset(folder))
    assert caught.value.hint == "remove it, or save it anew" and caught.value.where == str(folder / "a" / "000.png")


@pytest.mark.parametrize(
    "shape, name", [((3, 32, 32), "colour32"), ((3, 64, 64), "colour64"), ((1, 28, 28), "grey28"), ((1, 64, 64), "grey64"), ((1, 8, 8), "digits")]
)
def test_the_recipe_that_fits_is_named(shape: tuple[int, int, int], name: str) -> None:
    from datagen.recipe import gather, suited
    from datagen.training.plan import _from

    assert _from(suited(gather(None, []), shape, 1000, "cpu")) == f"; recipe {name} (--recipe)"
    assert suited(gather(None, [], family="gan"), shape, 1000, "cpu").family == "gan" == suited(Recipe(family="gan"), shape, 1000, "cpu").family
