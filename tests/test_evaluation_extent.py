"""`evaluate` beyond its default: extended reports, several sets, replicates, sweeps, a class in focus, your own training, a bar to pass."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_evaluation import _no_timing, call, folders

from datagen.errors import DatagenError, FailedUnder, UsageError
from datagen.evaluation import arms, choose, plan
from datagen.evaluation.arms import Arm, Labelled, Trial
from datagen.progress import Progress
from datagen.recogniser.fit import Settings

__all__ = ["_no_timing", "folders"]
Make = Callable[..., Path]


def test_more_repeats_and_sets_train_only_what_is_missing(folders: dict[str, Path], make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, int]] = []
    real_run = arms.run

    def noted(trial: Trial, arm: Arm, repeat: int, progress: Progress | None = None) -> Any:
        trained.append((arm.title, repeat))
        return real_run(trial, arm, repeat, progress)

    monkeypatch.setattr(arms, "run", noted)
    first = call(folders, tmp_path / "r", repeats=1)
    assert first["tested"]["times"] == 1
    trained.clear()
    again = call(folders, tmp_path / "r", repeats=2)
    assert trained == [(name, 1) for name in ("real", "classical", "synthetic", "both")]
    assert len(again["arms"]["real"]["repeats"]) == 2 and again["tested"]["times"] == 2
    trained.clear()
    other = make_folder("other", each=16, size=(12, 12), grey=True, seed=7)
    found = call(folders, tmp_path / "r", [folders["synthetic"], other])
    assert trained == [("synthetic other", 0), ("both other", 0), ("synthetic other", 1), ("both other", 1)]
    assert list(found["sets"]) == ["synthetic", "other"] and found["verdict"]["set"] == "synthetic"
    assert set(found["sets"]["other"]["arms"]) == {"synthetic", "both"}
    assert found["sets"]["synthetic"]["arms"]["both"] == found["arms"]["both"]
    assert set(found["data"]["synthetic"]) == {"synthetic", "other"}


def test_an_extension_that_was_stopped_is_not_finished(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    call(folders, tmp_path / "r", repeats=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(arms, "run", stopped)
        call(folders, tmp_path / "r", repeats=2)
    found = call(folders, tmp_path / "r", repeats=2)
    assert not found["finished"] and len(found["arms"]["real"]["repeats"]) == 2
    assert call(folders, tmp_path / "r", repeats=2)["finished"]


def test_the_order_of_the_sets_decides_whose_verdict_comes_first(folders: dict[str, Path], make_folder: Make, tmp_path: Path) -> None:
    sets = [folders["synthetic"], make_folder("other", each=16, size=(12, 12), grey=True, seed=7)]
    assert call(folders, tmp_path / "r", sets, repeats=1)["verdict"]["set"] == "synthetic"
    again = call(folders, tmp_path / "r", sets[::-1], repeats=1)
    assert not again["finished"] and again["verdict"]["set"] == "other"


def test_more_real_images_are_planned_for_anew(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folders["real"], tmp_path / "mine")
    here = folders | {"real": tmp_path / "mine"}
    call(here, tmp_path / "r", repeats=1)
    before = json.loads((tmp_path / "r/plan.json").read_text())["images"]
    file = next((tmp_path / "mine").rglob("*.png"))
    image = np.asarray(Image.open(file)).copy()
    image[0, 0] ^= 1
    Image.fromarray(image).save(file.with_name("more.png"))
    planned, make = list[int](), plan.make
    monkeypatch.setattr(plan, "make", lambda recipe, sizes, **options: planned.append(sizes.real) or make(recipe, sizes, **options))
    assert not call(here, tmp_path / "r", repeats=1)["finished"]
    assert planned == [before[0] + 1]
    assert json.loads((tmp_path / "r/plan.json").read_text())["images"] == [before[0] + 1, *before[1:]]


def test_replicates_enter_one_arm_in_turn(folders: dict[str, Path], make_folder: Make, tmp_path: Path) -> None:
    other = make_folder("other", each=5, size=(12, 12), grey=True, seed=7)
    found = call(folders, tmp_path / "r", [folders["synthetic"], other], replicates=True, repeats=3)
    assert found["sets"] == {}
    sizes = [json.loads(path.read_text())["images"] for path in sorted((tmp_path / "r/arms").glob("synthetic-*"))]
    assert sizes == [48, 15, 48]


def test_everything_is_chosen_and_swept_when_asked(folders: dict[str, Path], make_folder: Make, tmp_path: Path) -> None:
    folders["real"] = make_folder("big", each=20, size=(20, 20), seed=5)
    for path in sorted((folders["real"] / "class1").iterdir())[8:]:
        path.unlink()
    found = call(folders, tmp_path / "r", quick=False, full=True, repeats=1, steps=9)
    assert set(found["chosen"]["scores"]) == {"learning_rate", "augment", "policy", "base"}
    assert set(found["chosen"]["scores"]["base"]) == {"real", "classical", "weighted", "oversampled"}
    assert found["chosen"]["images"] > 0 and found["verdict"]["base"] == found["chosen"]["base"]
    assert found["measured"]["settings"]["steps"] == 9
    assert list(found["arms"]) == ["real", "classical", "weighted", "oversampled", "synthetic", "both", "native"]
    exchange = found["measures"]["exchange"]
    assert len(exchange["points"]) >= 4 and exchange["points"][-1]["images"] == found["data"]["real"]["images"]
    assert exchange["steps"] == 4
    assert [point["at"] for point in found["measures"]["sweep_ratio"]["points"]] == [r for r in plan.RATIOS if r * 48 <= 48]
    assert found["measures"]["sweep_amount"]["points"][-1]["at"] == 24


def test_predictions_give_the_figures_again(folders: dict[str, Path], tmp_path: Path) -> None:
    from pyarrow import parquet

    found = call(folders, tmp_path / "r")
    rows = parquet.read_table(tmp_path / "r/predictions.parquet").to_pandas()
    assert list(rows.columns) == ["image", "group", "set", "arm", "repeat", "label", "predicted"]
    by_arm = (rows["label"] == rows["predicted"]).groupby(rows["arm"]).mean()
    assert {arm: round(value, 6) for arm, value in by_arm.items()} == {arm: value["accuracy"]["mean"] for arm, value in found["arms"].items()}
    assert rows["image"].nunique() == 36 and set(rows["label"]) == set(found["classes"])


@pytest.mark.parametrize(("bar", "error"), [("both-real>=-1", None), ("real >= 0", None), ("both-real>=0.99", FailedUnder), ("native>=0", UsageError)])
def test_a_bar_that_is_missed_is_exit_8(folders: dict[str, Path], tmp_path: Path, bar: str, error: type[DatagenError] | None) -> None:
    with contextlib.nullcontext() if error is None else pytest.raises(error) as caught:
        call(folders, tmp_path / "r", repeats=1, fail_under=bar)
    assert (tmp_path / "r/report.json").is_file()
    assert error is not FailedUnder or caught.value.code == 8
    for wrong, words in {"both>real": "cannot be understood", "both-reel>=0": "did you mean 'real'"}.items():
        with pytest.raises(UsageError, match=words):
            call(folders, tmp_path / "r2", fail_under=wrong)
    assert not (tmp_path / "r2").exists()


def test_your_own_training_is_the_judge(folders: dict[str, Path], tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(NEAREST_MEAN)
    found = call(folders, tmp_path / "r", train_command=f"{sys.executable} {script} {{train}} {{test}} {{predictions}}", repeats=1)
    assert list(found["arms"]) == ["real", "classical", "synthetic", "both"]
    assert all(value["accuracy"]["mean"] > 0.9 for value in found["arms"].values())


NEAREST_MEAN = """
import csv, sys
from pathlib import Path
import numpy as np
from PIL import Image

train, test, predictions = map(Path, sys.argv[1:])
read = lambda path: np.asarray(Image.open(path), float)
means = {folder.name: np.mean([read(p) for p in folder.iterdir()], axis=0) for folder in train.iterdir() if folder.is_dir()}
with predictions.open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["file", "class"])
    for path in sorted(test.iterdir()):
        rows.writerow([path.name, min(means, key=lambda name: ((read(path) - means[name]) ** 2).sum())])
"""


def test_a_class_in_focus(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("class0", "class2"):
        shutil.rmtree(folders["synthetic"] / name)
    with pytest.raises(UsageError, match="unknown class 'class9'"):
        call(folders, tmp_path / "r0", focus="class9")
    found = call(folders, tmp_path / "r", focus="class1", steps=30, repeats=1)
    assert list(found["arms"]) == ["real", "classical", "both"], "a set that only tops up one class cannot be trained on alone"
    recall = found["measures"]["focus_recall"]
    assert (recall["class"], recall["images"]) == ("class1", 12) and set(recall["arms"]) == {"real", "classical", "both"}
    assert set(recall["gains"]) == {"real", "classical"} and recall["gain"] in recall["gains"].values()
    for arm, gain in recall["gains"].items():
        assert gain["mean"] == pytest.approx(recall["arms"]["both"]["mean"] - recall["arms"][arm]["mean"])
    assert not found["measures"]["focus_shortcut"]["suspected"]


def test_small_sets_are_validated_on_three_disjoint_fifths() -> None:
    rng = np.random.default_rng(0)
    groups = tuple(f"g{i // 4}" for i in range(200))
    real = Labelled(rng.integers(0, 256, (200, 4, 4, 1), dtype=np.uint8), np.arange(200) % 3, tuple(map(str, range(200))), groups)
    found = choose.validation(real, np.arange(200) < 20, 0)
    assert sorted(found) == ["select 0", "select 1", "select 2", "train 0", "train 1", "train 2"]
    seen = [set(found[f"select {k}"].names) for k in range(3)]
    assert sum(map(len, seen)) == len(set.union(*seen)) and all(20 < len(part) < 60 for part in seen)
    for k in range(3):
        assert set(found[f"train {k}"].names) == set(real.names) - seen[k]
        assert not set(found[f"train {k}"].groups) & set(found[f"select {k}"].groups)
    large = choose.validation(Labelled(np.zeros((900, 4, 4, 1), np.uint8), np.zeros(900, np.int64)), np.arange(900) < 250, 0)
    assert (len(large["train 0"]), len(large["select 0"]), len(large)) == (650, 250, 2)
    assert choose.validation(real, np.zeros(200, bool), 0).keys() == found.keys()


@pytest.mark.parametrize(("plain", "mirrored", "chosen"), [(0.8, 0.9, "shift,mirror"), (0.8, 0.83, "shift"), (0.8, 0.8, "shift"), (1.0, 1.0, "shift")])
def test_mirroring_must_be_plainly_better(plain: float, mirrored: float, chosen: str) -> None:
    ways = {"shift": choose._Tried(plain, 0.5), "shift,mirror": choose._Tried(mirrored, 0.1)}
    assert choose._mirrored(ways, "shift", 100) == chosen, "one standard error of 100 images is 4 points"


def test_a_mirrored_class_is_another_class_and_a_symmetric_set_may_be_mirrored() -> None:
    rng = np.random.default_rng(0)

    def sided(count: int) -> Labelled:
        labels = rng.integers(0, 2, count)
        images = rng.integers(0, 80, (count, 8, 8, 1), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 4 * label : 4 * label + 4] += 120
        return Labelled(images, labels)

    parts = {"real": sided(60), "train 0": sided(40), "select 0": sided(40), "test": sided(10), "synthetic": sided(40)}
    trial = Trial(parts, ("left", "right"), Settings(steps=60, batch=16, width=4, augment="shift"), 0)
    found = choose.choose(trial, (40, arms.HALVES), lambda wanted: [arms.run(trial, arm, 0) for arm in wanted], given_rate=True, unbalanced=False)
    assert found.augment == "shift" and found.scores["augment"]["shift"] > found.scores["augment"]["shift,mirror"]
    assert found.policy != "flips" and found.parts == 1
