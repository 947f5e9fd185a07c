"""Which images no generator saw: those of runs with other seeds, of runs that held none out, and what a flag may not change; one class in focus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation import SMALL, _no_timing, call, fitted, folders
from test_training import quick_fit

import datagen
from datagen import storage
from datagen.errors import InputError, OutputError, UsageError
from datagen.evaluation import arms, experiment
from datagen.evaluation.arms import HALVES, Labelled, Part
from datagen.evaluation.report import advice
from datagen.recipe import gather
from datagen.records import READ, Recipe

__all__ = ["_no_timing", "folders"]
Make = Callable[..., Path]


def test_fits_of_other_seeds_hold_the_same_images_out(make_folder: Make, tmp_path: Path) -> None:
    from datagen.sources import scan, split

    source = make_folder(each=30)
    for seed in (0, 1):
        quick_fit(source, tmp_path / f"run{seed}", seed=seed, images=64)
    first, second = (storage.read_json(tmp_path / f"run{seed}/data.json") for seed in (0, 1))
    assert first["key"] == second["key"] == split.KEY and first["split"] == second["split"] and first["split"]["test"] > 3
    dataset = scan.scan(source, Recipe())
    assert len(split.split(dataset, holdout=0.15, key=split.KEY).test) == first["split"]["test"]


def test_a_run_that_was_begun_with_a_key_of_its_own_keeps_it(make_folder: Make, tmp_path: Path) -> None:
    from datagen.progress import Progress
    from datagen.training import real

    source, out, recipe = make_folder(each=30), tmp_path / "run", gather(None, [], seed=3)
    out.mkdir()
    before = real.read(source, recipe, out, Progress(quiet=True), begun=False)
    storage.write_json(out / "data.json", storage.read_json(out / "data.json") | {"key": "another"})
    after = real.read(source, recipe, out, Progress(quiet=True), begun=True)
    assert set(after.parts.test.tolist()) != set(before.parts.test.tolist())


def saw(folders: dict[str, Path], out: Path, sets: list[Path], **options: Any) -> str:
    found = call(folders, out, sets, **({"real": None, "test": None, "repeats": 1} | options))
    return " ".join(found["measured"]["saw"])


def test_sets_of_another_generator_than_the_runs_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    run = fitted(folders, tmp_path / "run")
    assert "Whether the generator behind synthetic was, this report cannot know" in saw(folders, tmp_path / "r", [folders["synthetic"]], run=run)
    (run / "generator").mkdir()
    (run / "generator/card.json").write_text("{}")
    own = {"generator": storage.hash_file(run / "generator/card.json")}
    from datagen.evaluation import inputs
    from datagen.reading.shards import Loaded

    def loaded(told: dict[str, str] | None) -> Loaded:
        nothing = np.zeros((0, 1), np.uint8)
        return Loaded(nothing, nothing[:, 0], ("a",), None if told is None else {"ingredients": told}, [])

    made = {"own": loaded(own), "other": loaded({"generator": "ab" * 32}), "rule": loaded({"rule": "shapes"}), "folder": loaded(None)}
    assert inputs._others(made, str(run)) == ["other", "folder"] and inputs._others(made, None) == []


def test_images_of_a_fit_that_held_none_out_are_no_test(folders: dict[str, Path], tmp_path: Path) -> None:
    reading = Recipe(holdout=0.0, on_conflict="drop")
    run = fitted(folders, tmp_path / "run", split={"train": 54, "select": 6, "test": 0}, settings=reading.settings(READ))
    assert "a folder that was given after the fit" in saw(folders, tmp_path / "r", [folders["synthetic"]], run=run, test=folders["test"])
    taken = next((folders["real"] / "class0").iterdir())
    shutil.copy(taken, folders["test"] / "class0" / "taken.png")
    with pytest.raises(InputError, match="some are among the test images"):
        saw(folders, tmp_path / "r2", [folders["synthetic"]], run=run, test=folders["test"])


@pytest.mark.parametrize("given", [{"group": r"(\d)"}, {"holdout": 0.3}, {"resize": "pad"}, {"on_conflict": "drop"}])
def test_how_the_fit_read_its_images_is_not_changed_in_silence(folders: dict[str, Path], tmp_path: Path, given: dict[str, Any]) -> None:
    run = fitted(folders, tmp_path / "run")
    recipe = Recipe(**SMALL).changed("flag", **given)
    key = next(iter(given))
    with pytest.raises(UsageError, match="in the run's fit") as caught:
        datagen.evaluate(folders["synthetic"], run=run, out=tmp_path / "r", recipe=recipe)
    assert caught.value.where == key


def test_what_the_fit_was_told_too_may_be_said_again(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = Recipe(**SMALL).changed("flag", holdout=0.4, verify_data=True)
    assert datagen.evaluate(folders["synthetic"], run=fitted(folders, tmp_path / "run"), out=tmp_path / "r", recipe=recipe)["verdict"]


@pytest.mark.parametrize("name", ["report.html", "report.md", "report.json", "predictions.parquet"])
def test_a_file_of_yours_alone_is_not_taken_for_a_report(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    out = tmp_path / "report"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(OutputError, match="not a report"):
        call(folders, out, repeats=1)
    assert [path.name for path in out.iterdir() if path.name != ".lock"] == [name] and (out / name).read_text() == "mine"


def test_the_rival_of_a_top_up_has_the_same_share_of_a_batch() -> None:
    images = np.zeros((40, 8, 8, 1), np.uint8)
    real, made = Labelled(images, np.arange(40) % 2), Labelled(images[:4], np.zeros(4, np.int64))
    assert arms.shares(made, real) == (40.0, 4.0) and arms.shares(real, real) == HALVES
    (both,) = arms.with_synthetic("", {"set": made}, "set", real)
    rival = arms.rival("flips", len(made), arms.shares(made, real))
    assert [part.share for part in rival.parts] == [part.share for part in both.parts] == [40.0, 4.0]
    assert (
        [part.share for part in arms.rival("flips", 4).parts] == [1.0, 1.0] == [part.share for part in arms.with_synthetic("", {"s": real}, "s", real)[1].parts]
    )


def top_up(folders: dict[str, Path]) -> None:
    for name in ("class1", "class2"):
        shutil.rmtree(folders["synthetic"] / name)


def test_a_top_up_is_measured_beside_a_rival_like_it(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top_up(folders)
    trained: dict[str, tuple[Part, ...]] = {}
    train = arms.train
    monkeypatch.setattr(arms, "train", lambda trial, arm, *rest: (trained.setdefault(arm.name, arm.parts), train(trial, arm, *rest))[1])
    found = call(folders, tmp_path / "r", focus="class0", repeats=1, quick=False)
    assert [part.share for part in trained["classical"]] == [part.share for part in trained["both"]] == [60.0, 16.0]
    exchange = found["measures"]["exchange"]
    assert "they lack classes" in exchange["sentence"] and exchange["synthetic"] is None and exchange["points"][-1]["images"] == 60
    assert "there is no learning curve" not in (tmp_path / "r/report.html").read_text()
    assert not any("the synthetic images train for as many" in sentence for sentence in found["measured"]["saw"])
    strong = found["arms"]["real"]["accuracy"] | {"mean": exchange["points"][-1]["accuracy"] + 0.2, "low": 0.9}
    assert "still learning" in (advice.caution(found | {"arms": found["arms"] | {"real": found["arms"]["real"] | {"accuracy": strong}}}) or "")


@pytest.mark.parametrize("gone", [("class0",), ("class1", "class2")])
def test_a_focus_that_nothing_unseen_shows_is_refused_before_any_training(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: tuple[str, ...]
) -> None:
    for name in gone:
        shutil.rmtree(folders["test"] / name)
    monkeypatch.setattr(experiment, "conduct", lambda *given, **options: pytest.fail("trained"))
    with pytest.raises(UsageError, match="its recall at equal false alarms needs some"):
        call(folders, tmp_path / "r", focus="class0", repeats=1)


def test_classes_that_the_test_images_lack_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.rmtree(folders["test"] / "class2")
    found = call(folders, tmp_path / "r", repeats=1, dry_run=True)
    assert any("no unseen real image of 1 of 3 classes, about which nothing is measured: 'class2'" in note for note in found["notes"])


def test_the_next_command_fits_what_was_read(make_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datagen.cli.app import run

    quick_fit(make_folder(each=20), tmp_path / "run", images=64)
    for source, next_one in (("run", f"--run {tmp_path / 'run'}"), ("run/generator", "--real FOLDER --test FOLDER")):
        assert run(["synthesize", str(tmp_path / source), "--per-class", "2", "--out", str(tmp_path / f"of-{source.replace('/', '-')}")]) == 0
        assert next_one in capsys.readouterr().err


def test_an_edited_dataset_card_stays(tmp_path: Path) -> None:
    datagen.synthesize("rule:shapes", tmp_path / "s", per_class=4, workers=1)
    manifest = (tmp_path / "s/manifest.json").read_bytes()
    (tmp_path / "s/README.md").write_text("# mine\n")
    assert datagen.synthesize("rule:shapes", tmp_path / "s", per_class=4, workers=1)["finished"]
    assert (tmp_path / "s/README.md").read_text() == "# mine\n" and (tmp_path / "s/manifest.json").read_bytes() == manifest
    (tmp_path / "s/README.md").write_text("")
    (tmp_path / "s/classes.json").write_text("[]")
    datagen.synthesize("rule:shapes", tmp_path / "s", per_class=4, workers=1)
    assert json.loads((tmp_path / "s/classes.json").read_text()) and "datagen" in (tmp_path / "s/README.md").read_text()


def test_amounts_of_a_top_up_are_not_swept_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    top_up(folders)
    found = call(folders, tmp_path / "r", focus="class0", repeats=1, quick=False, full=True)
    assert found["measures"]["sweep_ratio"]["points"] and "points" not in found["measures"].get("sweep_amount", {})


def test_a_top_up_and_a_whole_set_are_not_compared_with_one_rival(folders: dict[str, Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(folders["synthetic"], whole)
    top_up(folders)
    with pytest.raises(UsageError, match="what the one must beat is not what the other must"):
        call(folders, tmp_path / "r", [whole, folders["synthetic"]], focus="class0", repeats=1)


def test_a_share_to_hold_out_contradicts_no_run_with_test_images_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = Recipe(**SMALL).changed("DATAGEN_HOLDOUT", holdout=0.2)
    run = fitted(folders, tmp_path / "run", test=str(folders["test"]))
    from datagen.sources import scan

    dataset = scan.scan(folders["real"], Recipe(), test=folders["test"])
    storage.write_json(run / "data.json", storage.read_json(run / "data.json") | {"fingerprint": dataset.fingerprint})
    assert datagen.evaluate(folders["synthetic"], run=run, out=tmp_path / "r", recipe=recipe)["verdict"]
