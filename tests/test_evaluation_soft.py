"""Labels or probabilities: which of them synthetic images alone are learnt by is decided on validation, and said."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation import _no_timing, call, fitted, folders

from datagen.cli.evaluate import summary
from datagen.errors import FailedUnder, InputError, UsageError
from datagen.evaluation import arms, choose, inputs, plan
from datagen.evaluation import soft as soft_labels
from datagen.evaluation.arms import Arm, Labelled, Trial
from datagen.evaluation.choose import Choice
from datagen.progress import Progress
from datagen.reading.shards import Loaded
from datagen.recipe import gather

__all__ = ["_no_timing", "folders"]
Make = Callable[..., Path]
LONGER = {"quick": False, "steps": 60, "repeats": 1, "judge_learning_rate": 0.05}


def given(monkeypatch: pytest.MonkeyPatch, *, right: str, classes: int = 3, only: str = "") -> None:
    """Let the set have right labels and probabilities of the next class, which outweigh them, or right probabilities and labels drawn at random."""
    real_load = inputs.load

    def load(path: Path, **options: Any) -> Loaded:
        found = real_load(path, **options)
        if only not in str(path):
            return found
        drawn = np.random.default_rng(0).permutation(found.labels)
        hard, soft = (found.labels, (found.labels + 1) % classes) if right == "hard" else (drawn, found.labels)
        return dataclasses.replace(found, labels=hard, probabilities=(0.9 * np.eye(classes)[soft] + 0.1 / classes).astype(np.float16))

    monkeypatch.setattr(inputs, "load", load)
    if right == "hard":
        monkeypatch.setattr(soft_labels, "labels_between", functools.partial(soft_labels.labels_between, weight=0.9))


@pytest.mark.parametrize("right", ["hard", "soft"])
def test_validation_takes_the_labels_that_teach(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str) -> None:
    given(monkeypatch, right=right)
    taught: dict[str, list[bool]] = {}
    real_train = arms.train

    def noted(trial: Trial, arm: Arm, parts: list[Labelled], *rest: Any) -> Any:
        taught.setdefault(arm.name, []).extend(part.soft is not None for part in parts)
        return real_train(trial, arm, parts, *rest)

    monkeypatch.setattr(arms, "train", noted)
    lines: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: lines.append(text))
    found = call(folders, tmp_path / "r", full=True, **LONGER)
    scores = found["chosen"]["scores"]["labels"]
    assert found["chosen"]["labels"] == right and max(scores, key=scores.__getitem__) == right and set(scores) == {"hard", "soft"}
    assert {arm: value["labels"] for arm, value in found["arms"].items()} == {"real": "hard", "classical": "hard", "synthetic": right, "both": "hard"}
    soft = right == "soft"
    assert found["arms"]["synthetic"]["accuracy"]["mean"] > 0.6, "labels drawn at random would teach nothing"
    assert set(taught["synthetic"]) == set(taught["curve synthetic"]) == {soft} and not any(taught["both"] + taught["real"])
    assert {soft} == {kind for name in taught if name.startswith("amount") for kind in taught[name]}
    assert [(taught[f"{kind} labels"]) for kind in ("hard", "soft")] == [[False], [True]]
    said = " ".join(found["measured"]["saw"])
    assert ("alone are learnt by soft labels" in said) == soft and ("alone are learnt by their class labels" in said) == (not soft)
    assert "does this report know that the filter learnt from none of the validation part" in said
    assert (", learnt by soft labels," in found["measures"]["exchange"]["sentence"]) == soft
    assert any(line.startswith("soft labels, on validation: ") and line.endswith("validation images right") for line in lines)
    for text in (summary(found), (tmp_path / "r/report.md").read_text(), (tmp_path / "r/report.html").read_text()):
        assert ("soft labels" in text) == soft


def test_the_filter_of_the_run_knows_none_of_the_validation_part(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, right="soft")
    run = fitted(folders, tmp_path / "run")
    for others in ([], ["synthetic"]):
        monkeypatch.setattr(inputs, "_others", lambda *_, others=others: others)
        found = call(folders, tmp_path / f"r{len(others)}", real=None, test=None, run=run, **LONGER)
        assert set(found["chosen"]["scores"]["labels"]) == {"hard", "soft"}
        assert ("does this report know that the filter" in " ".join(found["measured"]["saw"])) == bool(others)


def test_a_bar_that_is_missed_names_the_labels(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, right="soft")
    with pytest.raises(FailedUnder, match=r"of synthetic-real \(synthetic images learnt by soft labels\) is "):
        call(folders, tmp_path / "r", fail_under="synthetic-real>=0.99", **LONGER)
    with pytest.raises(FailedUnder, match="of both is "):
        call(folders, tmp_path / "r", fail_under="both>=1.5", **LONGER)


def test_sets_are_decided_one_by_one() -> None:
    trial = Trial({"validation": None, "a": None, "b": None, f"{arms.PROBABILITIES}b": None}, ("x", "y"), plan.Settings(steps=30), 0, sets=("a", "b"))  # type: ignore[dict-item]
    asked: list[Arm] = []

    def train(listed: Any) -> Any:
        asked.extend(listed)
        return [dataclasses.make_dataclass("Result", ["correct"])(np.array([True, arm.name == "soft labels"])) for arm in listed]

    assert choose.labels(trial, ("a", "b"), train) == {"b": {"hard": 0.5, "soft": 1.0}}
    assert {(arm.set, arm.tested, arm.steps) for arm in asked} == {("b", "validation", 10)}
    assert choose.labels(trial, ("",), train) == {}, "replicates of which one has no probabilities"
    asked.clear()
    whole = dataclasses.replace(trial, parts={**trial.parts, f"{arms.PROBABILITIES}a": None})  # type: ignore[dict-item]
    assert choose.labels(whole, ("",), train) == {"": {"hard": 0.5, "soft": 1.0}} and [arm.set for arm in asked] == ["a", "b", "a", "b"]
    for hard, soft, images, wanted in (
        (0.5, 0.5, 100, "soft"),
        (0.54, 0.5, 100, "soft"),
        (0.56, 0.5, 100, "hard"),
        (0.54, 0.5, 400, "hard"),
        (1.0, 94 / 95, 95, "soft"),
        (1.0, 93 / 95, 95, "hard"),
    ):
        found = Choice(0.1).labelled({"hard": hard, "soft": soft}, images)
        assert (found.labels, found.validated) == (wanted, images), "soft labels, unless class labels are better by more than chance"


def test_two_sets_say_their_own_labels(folders: dict[str, Path], make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, right="soft", only="synthetic")
    plain = make_folder("plain", each=16, size=(12, 12), grey=True, seed=7)
    found = call(folders, tmp_path / "r", [plain, folders["synthetic"]], **LONGER)
    assert found["chosen"]["labels"] == "hard" == found["arms"]["synthetic"]["labels"] and found["sets"]["plain"]["labels"] == {}
    assert found["sets"]["synthetic"]["arms"]["synthetic"]["labels"] == "soft" and set(found["sets"]["synthetic"]["labels"]) == {"hard", "soft"}
    assert "Synthetic images of synthetic alone are learnt by soft labels" in " ".join(found["measured"]["saw"])
    assert (tmp_path / "r/report.md").read_text().count("(soft labels)") == 1 == (tmp_path / "r/report.html").read_text().count("(soft labels)")


def test_nothing_is_tried_without_probabilities_or_in_a_first_look(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = call(folders, tmp_path / "none", **LONGER)
    assert found["chosen"]["labels"] == "hard" and "labels" not in found["chosen"]["scores"]
    given(monkeypatch, right="soft")
    assert call(folders, tmp_path / "quick")["chosen"]["labels"] == "hard"
    kept = call(folders, tmp_path / "hard", labels="hard", **LONGER)
    assert kept["chosen"]["labels"] == "hard" and "labels" not in kept["chosen"]["scores"]
    with pytest.raises(UsageError, match="no probabilities"):
        call(folders, tmp_path / "own", labels="soft", train_command="python t.py {train} {test} {predictions}")
    soft = call(folders, tmp_path / "soft", labels="soft", steps=60)
    assert {arm: value["labels"] for arm, value in soft["arms"].items()} == {"real": "hard", "classical": "hard", "synthetic": "soft", "both": "soft"}
    assert soft["arms"]["synthetic"]["accuracy"]["mean"] > 0.6 and "--labels soft)" in " ".join(soft["measured"]["saw"])


def test_probabilities_of_other_classes_are_no_labels(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no probabilities for --labels soft"):
        call(folders, tmp_path / "r", labels="soft")
    given(monkeypatch, right="soft", classes=4)
    with pytest.raises(InputError, match="other classes than the real images"):
        call(folders, tmp_path / "r", labels="soft")
    assert "labels" not in call(folders, tmp_path / "r", **LONGER)["chosen"]["scores"]


def test_a_report_of_before_the_choice_is_continued_as_it_was(folders: dict[str, Path], tmp_path: Path) -> None:
    assert call(folders, tmp_path / "r", labels="hard")["finished"] is False
    assert call(folders, tmp_path / "r")["finished"] is True
    begun = json.loads((tmp_path / "r/plan.json").read_text())
    begun["asked"]["settings"]["labels"] = ["strange"]
    (tmp_path / "r/plan.json").write_text(json.dumps(begun))
    with pytest.raises(Exception, match="begun with something else"):
        call(folders, tmp_path / "r")


def test_a_plan_counts_what_is_tried(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = gather(None, [], quick=False, steps=30)
    sizes = plan.Sizes(300, 100, 2, 3, (1, 12, 12), select=120)
    plain, tried = (plan.make(recipe, dataclasses.replace(sizes, soft=soft), device="cpu") for soft in (0, 2))
    assert tried.runs - plain.runs == pytest.approx(4 / choose.SHORTER, abs=0.02)
    assert tried.settings.steps == plain.settings.steps


def test_names_of_sets_are_no_names_of_parts(tmp_path: Path) -> None:
    asked = inputs.Asked((str(tmp_path / "validation"), str(tmp_path / "probabilities of x"), str(tmp_path / "plain")))
    assert list(asked.named()) == ["synthetic validation", "synthetic probabilities of x", "plain"]
