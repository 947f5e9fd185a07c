"""What would quietly make a report wrong: names that collide, programs and images that change, classes that nobody tests, repeats of one fit."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_report import labelled
from test_evaluation import _no_timing, call, fitted, folders
from test_evaluation_extent import NEAREST_MEAN

from datagen.errors import InputError, UsageError
from datagen.evaluation import experiment
from datagen.evaluation.arms import Part, Trial
from datagen.evaluation.inputs import OTHERS, Asked
from datagen.evaluation.measures.coverage import Coverage
from datagen.evaluation.measures.fidelity import Fidelity
from datagen.evaluation.report import advice
from datagen.recogniser.fit import Settings
from datagen.records import READ, Recipe

__all__ = ["_no_timing", "folders"]
Make = Callable[..., Path]


@pytest.mark.parametrize("name", ["test", "real", "command", "native", "train 0", "select 1"])
def test_a_set_may_be_called_like_one_of_the_real_ones(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    made = tmp_path / "sets" / name
    shutil.copytree(folders["synthetic"], made)
    found = call(folders, tmp_path / "r", [made], repeats=1)
    assert list(found["data"]["synthetic"]) == [f"synthetic {name}"]
    usual = call(folders, tmp_path / "usual", repeats=1)
    for arm in ("synthetic", "both"):
        assert (found["arms"][arm]["images"], found["arms"][arm]["repeats"]) == (usual["arms"][arm]["images"], usual["arms"][arm]["repeats"])


def test_names_of_sets_are_different_and_none_of_the_real_ones() -> None:
    paths = ("a/x", "b/x", "c/x#2", "d/test", "e/synthetic test", "f/train 0", "g/x")
    named = Asked(paths).named()
    assert tuple(named.values()) == paths and len(named) == len(paths) and not OTHERS & set(named)
    assert list(named)[:3] == ["x", "x#2", "x#2#2"]


def test_a_changed_program_trains_its_arms_anew(folders: dict[str, Path], tmp_path: Path) -> None:
    script, log = tmp_path / "train.py", tmp_path / "ran"
    noting = f"open({str(log)!r}, 'a').write('ran ')\n"
    script.write_text(noting + NEAREST_MEAN)
    asked = {"train_command": f"{sys.executable} {script} {{train}} {{test}} {{predictions}}", "repeats": 1}
    first = call(folders, tmp_path / "r", **asked)
    assert log.read_text().split() == ["ran"] * 4
    assert call(folders, tmp_path / "r", **asked)["finished"] and len(log.read_text().split()) == 4
    worse = NEAREST_MEAN.replace("min(means", "max(means")
    assert worse != NEAREST_MEAN
    script.write_text(noting + worse)
    again = call(folders, tmp_path / "r", **asked)
    assert not again["finished"] and len(log.read_text().split()) == 8
    assert all(again["arms"][arm]["accuracy"]["mean"] < 0.5 < first["arms"][arm]["accuracy"]["mean"] for arm in first["arms"])
    page = (tmp_path / "r/report.html").read_text()
    assert "Your own command, run on each set" in page and "steps" not in " ".join(first["next"]) and "half of every batch" not in page


def test_what_a_command_writes_itself_changes_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    script, log, settings = tmp_path / "train.py", tmp_path / "ran.log", tmp_path / "my.toml"
    log.write_text("")
    settings.write_text("one")
    script.write_text(f"open({str(log)!r}, 'a').write('ran ')\n" + NEAREST_MEAN)
    asked = {"train_command": f"{sys.executable} {script} {{train}} {{test}} {{predictions}} {log} {settings}", "repeats": 1}
    script.write_text("import sys; del sys.argv[4:]\n" + script.read_text())
    call(folders, tmp_path / "r", **asked)
    assert call(folders, tmp_path / "r", **asked)["finished"] and log.read_text().split() == ["ran"] * 4
    settings.write_text("two")
    assert not call(folders, tmp_path / "r", **asked)["finished"] and log.read_text().split() == ["ran"] * 8


def test_training_images_that_changed_are_seen_where_the_test_images_come_later(folders: dict[str, Path], tmp_path: Path) -> None:
    reading = Recipe(holdout=0.0).settings(READ)
    run = fitted(folders, tmp_path / "run", split={"train": 18, "select": 2, "test": 0}, settings=reading)
    assert call(folders, tmp_path / "r", real=None, run=run, repeats=1)["verdict"]
    next((folders["real"] / "class0").iterdir()).unlink()
    with pytest.raises(InputError, match="changed since the run was fitted"):
        call(folders, tmp_path / "r2", real=None, run=run, repeats=1)


@pytest.mark.parametrize("part", ["real", "test", "synthetic"])
def test_a_finished_report_is_not_that_of_other_images(folders: dict[str, Path], tmp_path: Path, part: str) -> None:
    before = call(folders, tmp_path / "r", repeats=1)
    assert call(folders, tmp_path / "r", repeats=1)["finished"]
    sorted((folders[part] / "class0").iterdir())[0].unlink()
    after = call(folders, tmp_path / "r", repeats=1)
    assert not after["finished"]
    told = [json.dumps(report["data"][part], sort_keys=True) for report in (before, after)]
    assert told[0] != told[1]
    for arm in {"real": ["synthetic"], "synthetic": ["real"], "test": []}[part]:
        assert after["arms"][arm]["repeats"] == before["arms"][arm]["repeats"]


def test_a_focus_that_cannot_be_leaves_nothing_behind(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="says classes alone"):
        call(folders, tmp_path / "r", focus="class0", train_command="python train.py {train} {test} {predictions}")
    assert not (tmp_path / "r").exists()
    with pytest.raises(UsageError, match="unknown class 'clas0'"):
        call(folders, tmp_path / "r", focus="clas0", repeats=1)
    assert call(folders, tmp_path / "r", focus="class0", repeats=1)["measures"]["focus_recall"]["class"] == "class0"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1 / 0", "ZeroDivisionError"),
        ("return images[:1].reshape(1, -1)", r"the shape \[1, "),
        ("return images.reshape(len(images), -1) * float('nan')", "not finite"),
    ],
)
def test_features_that_fail_are_told_before_anything_is_trained(folders: dict[str, Path], tmp_path: Path, body: str, said: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(f"def features(images):\n    {body}\n")
    with pytest.raises(UsageError, match=said) as error:
        call(folders, tmp_path / "r", features=f"{file}:features", repeats=1)
    assert error.value.where == "--features" and not (tmp_path / "r/arms").exists()
    file.write_text("def features(images):\n    return images.reshape(len(images), -1)[:, :30]\n")
    found = call(folders, tmp_path / "r", features=f"{file}:features", repeats=1)
    assert "fidelity_kernel_given" in found["measures"]


def test_classes_that_nobody_tests_are_no_fault() -> None:
    """The last class has no unseen image, and the measures that share rows out by class say what they can."""
    parts = {"real": labelled(4, 30, 0), "synthetic": labelled(4, 30, 1), "test": labelled(3, 40, 2)}

    def encode(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :8].astype(np.float32)

    context = experiment.Context(tuple("abcd"), *(parts[part] for part in ("real", "synthetic", "test")), (), {"pixels": encode})
    found = [*Coverage().measure(context), *Fidelity().measure(context)]
    assert len(found) == 3 and all(np.isfinite(finding.estimate) for finding in found)


def test_each_replicate_is_trained_on_as_often_and_counts_once(folders: dict[str, Path], make_folder: Make, tmp_path: Path) -> None:
    others = [make_folder(name, each=8 + seed, size=(12, 12), grey=True, seed=seed) for seed, name in enumerate(("more", "other"), 7)]
    sets = [folders["synthetic"], *others]
    with pytest.raises(UsageError, match="2 repeats leave 1 of 3 replicates out"):
        call(folders, tmp_path / "few", sets, replicates=True, repeats=2)
    found = call(folders, tmp_path / "r", sets, replicates=True, repeats=None, quick=False, steps=2)
    assert len(found["arms"]["both"]["repeats"]) == 6, "five are usual with so few unseen images"
    assert "Intervals are over the sets" in " ".join(found["measured"]["saw"])


def test_repeats_of_one_fit_do_not_narrow_the_interval_over_fits() -> None:
    parts = {"real": labelled(2, 10, 0), "synthetic": labelled(2, 10, 1), "test": labelled(2, 10, 2)}
    context = experiment.Context(("a", "b"), *(parts[part] for part in ("real", "synthetic", "test")), (), {}, replicates=2)
    values = np.array([[0.0], [1.0], [0.5], [1.0]])
    assert context.by_replicate(values).tolist() == [[0.25], [1.0]]
    trial = Trial({**parts, "other": parts["real"]}, ("a", "b"), Settings(), 0, sets=("synthetic", "other"))
    arm = experiment.Arm("synthetic", (Part("synthetic"),))
    assert [trial.source(arm.parts[0], arm, repeat) for repeat in range(4)] == ["synthetic", "other"] * 2


def test_one_training_of_each_arm_is_said_to_be_little(folders: dict[str, Path], tmp_path: Path) -> None:
    once, twice = (call(folders, tmp_path / str(repeats), repeats=repeats) for repeats in (1, 2))
    assert once["verdict"]["kind"] == "unclear" and twice["verdict"]["kind"] != "unclear" and "--repeats 3" in " ".join(once["next"])
    assert "One training of each arm cannot tell" in (tmp_path / "1/report.html").read_text()
    assert "One training of each arm cannot tell" in (tmp_path / "1/report.md").read_text()


def test_nearness_that_few_unseen_images_explain_is_no_advice(folders: dict[str, Path], tmp_path: Path) -> None:
    report = call(folders, tmp_path / "r", repeats=1)
    report["measures"]["copies"] |= {"low": 0.05, "departs": False}
    assert not any("very near to training images" in step for step in advice.next_steps(report))
    report["measures"]["copies"]["departs"] = True
    assert any("very near to training images" in step for step in advice.next_steps(report))
    assert report["measures"]["copies"]["expected"] == pytest.approx((1 + 0.01 * 35) / 37, abs=1e-6)


def test_a_report_that_is_given_away_does_not_name_the_run(folders: dict[str, Path], tmp_path: Path) -> None:
    from datagen.evaluation import inputs
    from datagen.progress import Progress

    found = inputs.gather(
        Asked((str(folders["synthetic"]),), str(folders["real"]), str(folders["test"])), Recipe(), progress=Progress(quiet=True), report=tmp_path / "scan.json"
    )
    secret = inputs.dataclasses.replace(found, described={**found.described, "run": "clinic-run"})
    assert secret.nameless().described["run"] == "the run" and found.nameless().described["run"] is None
