"""`evaluate` from folders to report: arms, hold-outs, continuing, refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import datagen
from datagen import seeds, storage
from datagen.errors import InputError, OutputError, SafetyError, UsageError
from datagen.evaluation import arms, experiment, plan
from datagen.evaluation.arms import Arm, Labelled, Part, Trial
from datagen.evaluation.kept import Kept
from datagen.evaluation.plan import Plan, Sizes
from datagen.evaluation.run import evaluate
from datagen.evaluation.runner import Runner
from datagen.progress import Progress
from datagen.recogniser import timing
from datagen.recogniser.fit import Settings
from datagen.records import READ, Recipe
from datagen.sources import scan

Make = Callable[..., Path]
SMALL = {"quick": True, "steps": 6, "judge_batch": 12, "repeats": 2, "threads": 1, "device": "cpu"}


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(settings: Settings, *rest: Any, **options: Any) -> timing.Timed:
        return timing.Timed(dataclasses.replace(settings, width=4), 1, 1000.0, {"fp32 contiguous 1 thread": 1000.0})

    monkeypatch.setattr(timing, "choose", choose)


@pytest.fixture
def folders(make_folder: Make) -> dict[str, Path]:
    """Return real, test and synthetic folders of three classes of 12x12 grey images."""
    sizes = {"real": (20, 0), "test": (12, 1), "synthetic": (16, 2)}
    return {name: make_folder(name, each=each, size=(12, 12), grey=True, seed=seed) for name, (each, seed) in sizes.items()}


def call(folders: dict[str, Path], out: Path, sets: list[Path] | None = None, **options: Any) -> dict[str, Any]:
    """Evaluate with nothing chosen and no learning curve (quick), unless the options say otherwise."""
    given = {"real": folders["real"], "test": folders["test"]} | {k: options.pop(k) for k in ("real", "test", "run", "dry_run") if k in options}
    return evaluate(sets or folders["synthetic"], out=out, recipe=Recipe(**{**SMALL, **options}), progress=Progress(quiet=True), **given)


def test_the_whole_way(folders: dict[str, Path], tmp_path: Path) -> None:
    found = call(folders, tmp_path / "r", steps=40)
    on_disk = json.loads((tmp_path / "r/report.json").read_text())
    assert {k: v for k, v in found.items() if k in on_disk} == on_disk
    assert found["report"] == str(tmp_path / "r/report.html") and (tmp_path / "r/report.html").is_file()
    assert list(found["arms"]) == ["real", "classical", "synthetic", "both"]
    for arm, images in {"real": 60, "classical": 108, "synthetic": 48, "both": 108}.items():
        value = found["arms"][arm]
        assert value["accuracy"]["low"] <= value["accuracy"]["mean"] <= value["accuracy"]["high"]
        assert value["accuracy"]["mean"] > 0.8, "the classes are easy"
        assert (value["images"], value["steps"], len(value["repeats"])) == (images, 40, 2)
        assert np.sum(value["confusion"]) == 2 * 36
    assert found["verdict"]["kind"] in {"helps", "none_seen", "harms", "unclear"}
    assert found["data"]["test"] == found["data"]["test"] | {"folder": "test", "images": 36, "held_out": False}
    assert str(tmp_path) not in (tmp_path / "r/report.html").read_text() + (tmp_path / "r/report.json").read_text()
    status = json.loads((tmp_path / "r/status.json").read_text())
    assert status["exit_code"] == 0
    assert sorted(p.name for p in (tmp_path / "r").iterdir() if not p.name.startswith(".")) == [
        "arms",
        "plan.json",
        "predictions.parquet",
        "report.html",
        "report.json",
        "report.md",
        "scan.json",
        "scored.json",
        "status.json",
    ]


def test_a_finished_report_is_left_alone(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call(folders, tmp_path / "r", repeats=1)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("*") if p.name != ".lock"}
    monkeypatch.setattr(arms, "train", None)
    again = call(folders, tmp_path / "r", repeats=1)
    assert again == first | {"finished": True}
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("*") if p.name != ".lock"}


def test_a_stopped_evaluation_trains_only_what_is_missing(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = call(folders, tmp_path / "whole")
    trained: list[tuple[str, int]] = []
    real_run = arms.run

    def stopping(trial: Trial, arm: Arm, repeat: int, progress: Progress | None = None) -> Any:
        if len(trained) == 5:
            raise KeyboardInterrupt
        trained.append((arm.name, repeat))
        return real_run(trial, arm, repeat, progress)

    monkeypatch.setattr(arms, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        call(folders, tmp_path / "r")
    assert len(list((tmp_path / "r/arms").iterdir())) == 5
    damaged = next((tmp_path / "r/arms").glob("both-0-*"))
    damaged.write_bytes(damaged.read_bytes().replace(b'"steps": 6', b'"steps": 7'))
    trained.clear()
    found = call(folders, tmp_path / "r")
    assert trained == [("both", 0), ("classical", 1), ("synthetic", 1), ("both", 1)]
    assert timeless(found) == timeless(whole)


def timeless(value: Any) -> Any:
    """Return JSON without times and the place of the report."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in {"seconds", "out", "report"}}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def test_another_question_in_the_same_folder_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    call(folders, tmp_path / "r", repeats=1)
    with pytest.raises(UsageError, match="steps: 6, now 7"):
        call(folders, tmp_path / "r", repeats=1, steps=7)
    with pytest.raises(UsageError, match="begun with something else: test"):
        call(folders, tmp_path / "r", repeats=1, test=folders["real"])


def test_out_of_others_is_left_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/mine.txt").write_text("x")
    for out, words in [
        (tmp_path / "r", "not empty"),
        (tmp_path / "r/mine.txt", "is a file"),
        (folders["real"] / "r", "lies inside"),
        (folders["synthetic"], "lies inside"),
    ]:
        with pytest.raises(OutputError, match=words):
            call(folders, out)
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["mine.txt"]


def test_a_dry_run_plans_and_writes_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    found = call(folders, tmp_path / "r", dry_run=True)
    assert (found["real"], found["synthetic"], found["test"], found["steps"], found["repeats"]) == (60, {"synthetic": 48}, 36, 6, 2)
    assert not (tmp_path / "r").exists()


def test_classes_are_matched_by_name(folders: dict[str, Path], tmp_path: Path) -> None:
    (folders["synthetic"] / "class1").rename(folders["synthetic"] / "klass1")
    with pytest.raises(InputError, match="not among the real training images: 'klass1'") as caught:
        call(folders, tmp_path / "r")
    assert caught.value.code == 3
    shutil.rmtree(folders["synthetic"] / "klass1")
    with pytest.raises(InputError, match="not among the synthetic images: 'class1'"):
        call(folders, tmp_path / "r2")


def test_a_set_that_tops_up_rare_classes_has_none_of_the_largest(folders: dict[str, Path], tmp_path: Path, make_folder: Make) -> None:
    datagen.synthesize("rule:shapes", tmp_path / "shards", quota=str(_quota(tmp_path)), format="folder", mark=False)
    real = make_folder("shown", classes=list(datagen.ShardDataset(tmp_path / "shards").classes), each=14, size=(32, 32))
    test = make_folder("unseen", classes=list(datagen.ShardDataset(tmp_path / "shards").classes), each=6, size=(32, 32), seed=1)
    found = call(folders, tmp_path / "r", [tmp_path / "shards"], real=real, test=test)
    assert found["verdict"]["sentence"] and found["data"]["synthetic"]["shards"]["counts"]["circle"] == 0


def _quota(folder: Path) -> Path:
    """Write a quota with none of one class."""
    path = folder / "quota.json"
    path.write_text(json.dumps({"circle": 0, "cross": 8, "diamond": 8, "ring": 8, "square": 8, "triangle": 8}))
    return path


def test_a_test_class_nobody_trains_on_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["test"] / "class1", folders["test"] / "other")
    for path in (folders["test"] / "class1").iterdir():
        path.unlink()
        Image.fromarray(np.random.default_rng(int(path.stem)).integers(0, 256, (12, 12), dtype=np.uint8)).save(path)
    with pytest.raises(InputError, match="'other'"):
        call(folders, tmp_path / "r")


def test_unseen_images_among_the_synthetic_ones_close_the_gate(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(folders["test"] / "class2/003.png", folders["synthetic"] / "class2/leak.png")
    with pytest.raises(SafetyError, match=r"1 unseen test images are among the synthetic ones, first class2/leak.png = class2/003.png") as caught:
        call(folders, tmp_path / "r")
    assert caught.value.code == 7


def test_a_folder_of_its_own_or_a_holdout(folders: dict[str, Path], tmp_path: Path) -> None:
    found = call(folders, tmp_path / "r", test=None, holdout=0.3, repeats=1)
    real, test = found["data"]["real"], found["data"]["test"]
    assert real["images"] + test["images"] == 60
    assert 5 < test["images"] < 35 and test["held_out"]
    with pytest.raises(UsageError, match="no unseen real images"):
        call(folders, tmp_path / "r2", test=None, holdout=0.0)


def fitted(folders: dict[str, Path], run: Path, **data: Any) -> Path:
    """Write the data.json of a run that was fitted to the real folder with a hold-out of its own."""
    recipe = Recipe(holdout=0.4)
    dataset = scan.scan(folders["real"], recipe)
    run.mkdir()
    value = {"source": str(folders["real"]), "test": None, "key": "ab12", "fingerprint": dataset.fingerprint, "settings": recipe.settings(READ), **data}
    storage.write_json(run / "data.json", value)
    return run


def test_a_runs_own_images_and_holdout(folders: dict[str, Path], tmp_path: Path) -> None:
    from datagen.sources import split

    found = call(folders, tmp_path / "r", real=None, test=None, run=fitted(folders, tmp_path / "run"), repeats=1)
    dataset = scan.scan(folders["real"], Recipe())
    expected = split.split(dataset, holdout=0.4, key="ab12").test
    assert found["data"]["test"]["images"] == len(expected)
    assert found["data"]["run"] == "run"
    images = np.stack([np.asarray(Image.open(folders["real"] / dataset.paths[i])) for i in expected])[..., None]
    assert found["data"]["test"]["sha256"] == Labelled(images, dataset.labels[expected]).digest()
    assert any("held out by the run's own key" in sentence for sentence in found["measured"]["saw"])


def test_a_run_whose_images_changed_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    run = fitted(folders, tmp_path / "run")
    next((folders["real"] / "class0").iterdir()).unlink()
    with pytest.raises(InputError, match="changed since the run was fitted"):
        call(folders, tmp_path / "r", real=None, test=None, run=run)


def test_what_is_asked_must_make_sense(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no real images are given"):
        call(folders, tmp_path / "r", real=None)
    with pytest.raises(UsageError, match="contradict"):
        call(folders, tmp_path / "r", run=fitted(folders, tmp_path / "run"))
    for several, words in {(): "no synthetic images", (folders["synthetic"], folders["synthetic"]): "given twice"}.items():
        with pytest.raises(UsageError, match=words):
            evaluate(several, real=folders["real"], out=tmp_path / "r")
    broken = fitted(folders, tmp_path / "broken", settings=None)
    with pytest.raises(InputError, match="does not say"):
        call(folders, tmp_path / "r", real=None, test=None, run=broken)
    assert not (tmp_path / "r/plan.json").exists()


def test_real_images_of_another_size_are_brought_to_the_synthetic_ones(folders: dict[str, Path], make_folder: Make, tmp_path: Path) -> None:
    folders["real"] = make_folder("big", each=14, size=(30, 20), seed=5)
    found = call(folders, tmp_path / "r", repeats=1)
    assert found["measured"]["shape"] == [1, 12, 12]


def trial(real: Labelled, synthetic: Labelled, test: Labelled, **settings: Any) -> Trial:
    made = Settings(**{"steps": 25, "batch": 16, "width": 4, **settings})
    return Trial({"real": real, "synthetic": synthetic, "test": test}, ("a", "b"), made, 0)


def planned(repeats: int = 1, **changes: Any) -> Plan:
    return Plan(Settings(), repeats, 1, 1000.0, {}, **changes)


def halves(count: int, seed: int, *, swapped: bool = False) -> Labelled:
    """Return images that are bright on the left (a) or on the right (b)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 80, (count, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label : 4 * label + 4] += 120
    return Labelled(images, 1 - labels if swapped else labels)


def test_each_arm_learns_from_its_own_images() -> None:
    context = experiment.conduct(trial(halves(80, 0), halves(80, 1, swapped=True), halves(60, 2), steps=50), planned())[""]
    assert context.correct("real").mean() > 0.95
    assert context.correct("classical").mean() > 0.95
    assert context.correct("synthetic").mean() < 0.05, "labels of the synthetic images are wrong, so must be what was learnt from them"
    found = {(r.arm, r.steps, r.images) for r in context.arms}
    assert found == {("real", 50, 80), ("classical", 50, 160), ("synthetic", 50, 80), ("both", 50, 160)}


def test_the_features_come_from_real_training_images_with_a_seed_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int, int]] = []
    real_train = arms.train

    def noted(trial: Trial, arm: Arm, parts: list[Labelled], seed: int, progress: Progress | None) -> Any:
        calls.append((arm.name, len(parts), seed))
        return real_train(trial, arm, parts, seed, progress)

    monkeypatch.setattr(arms, "train", noted)
    experiment.conduct(trial(halves(40, 0), halves(30, 1), halves(20, 2), steps=2), planned(2))
    assert [(name, parts) for name, parts, _ in calls] == [("real", 1), ("classical", 2), ("synthetic", 1), ("both", 2)] * 2 + [("real", 1)]
    seeds_of_arms = [seed for _, _, seed in calls[:-1]]
    assert seeds_of_arms == [seeds.integer("arm", 0, repeat) for repeat in (0, 0, 0, 0, 1, 1, 1, 1)]
    assert calls[-1][2] not in seeds_of_arms


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_arms_trained_side_by_side_come_out_the_same(precision: str, tmp_path: Path) -> None:
    first = trial(halves(40, 0), halves(30, 1), halves(20, 2), steps=12)
    first = dataclasses.replace(first, settings=dataclasses.replace(first.settings, precision=precision))
    wanted = [arms.real(), arms.rival("geometric", 40), Arm("synthetic", (Part("synthetic"),))]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = Runner(first, Kept(None), Progress(quiet=True)).all(wanted, 2)
        together = Runner(first, Kept(tmp_path), Progress(tmp_path, quiet=True), lanes=3).all(wanted, 2)
    finally:
        torch.set_num_threads(before)
    assert [(r.arm, r.repeat, r.loss) for r in together] == [(r.arm, r.repeat, r.loss) for r in alone]
    assert [r.arm for r in Runner(first, Kept(tmp_path), Progress(quiet=True), lanes=3).all(wanted, 2)] == [arm.name for arm in wanted] * 2


def test_when_one_training_fails_those_at_its_side_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def run(trial: Trial, arm: Arm, repeat: int, progress: Any) -> Any:
        if arm.name == "real":
            raise UsageError("broken")
        try:
            for _ in range(1000):
                time.sleep(0.01)
                progress.advance()
        finally:
            ended.append(arm.name)

    monkeypatch.setattr(arms, "run", run)
    first = trial(halves(40, 0), halves(30, 1), halves(20, 2), steps=3)
    begun = time.monotonic()
    with pytest.raises(UsageError, match="broken"):
        Runner(first, Kept(None), Progress(quiet=True), lanes=2).all([arms.real(), arms.rival("none", 4), arms.rival("flips", 4)])
    assert time.monotonic() - begun < 5 and len(ended) <= 2


def test_kept_arms_are_found_by_all_that_decides_them(tmp_path: Path) -> None:
    first = trial(halves(40, 0), halves(30, 1), halves(20, 2), steps=2)
    hashes = {name: part.digest() for name, part in first.parts.items()}
    keyed = dataclasses.replace(first, hashes=hashes, focus=1)
    kept, real = Kept(tmp_path), arms.real()
    result = arms.run(keyed, real, 0)
    kept.put(keyed, real, result)
    again = kept.get(keyed, real, 0)
    assert again is not None and again.scores is not None and again.blurred is not None
    for name in ("predicted", "correct", "scores", "blurred"):
        assert np.array_equal(getattr(again, name), getattr(result, name))
    assert (again.steps, again.loss, again.images) == (2, result.loss, 40)
    changes: list[dict[str, Any]] = [{"settings": Settings(steps=3)}, {"seed": 1}, {"focus": 0}, {"hashes": {**hashes, "real": "0" * 64}}]
    changes += [{"hashes": {**hashes, name: "f" * 64}} for name in ("test", "command")]
    assert all(kept.get(dataclasses.replace(keyed, **change), real, 0) is None for change in changes)
    assert kept.get(keyed, real, 1) is None and kept.get(keyed, Arm("both", (Part("real"), Part("synthetic"))), 0) is None
    assert all(kept.get(keyed, dataclasses.replace(real, **change), 0) is None for change in ({"steps": 5}, {"balance": "weighted"}, {"learning_rate": 0.3}))
    other = dataclasses.replace(keyed, hashes={**hashes, "synthetic": "0" * 64})
    assert kept.get(other, real, 0) is not None, "the real arm does not depend on the synthetic images"


def test_plans_grow_with_the_images_and_respect_slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(images: int, rate: float = 1e6, test: int = 5000, sets: int = 1, **settings: Any) -> Plan:
        monkeypatch.setattr(timing, "choose", lambda s, *rest, **options: timing.Timed(s, 1, rate, {}))
        return plan.make(Recipe(**settings), Sizes(images, test, sets, 10, (1, 8, 8)), device="cpu")

    assert (made(900).settings.steps, made(900).settings.batch, made(900).settings.learning_rate) == (408, 32, 0.1)
    assert (made(60_000).settings.steps, made(60_000).settings.batch, made(60_000).settings.learning_rate) == (2531, 128, 0.2)
    assert (made(5000).settings.batch, made(900, judge_batch=96).settings.batch, made(5000).settings.learning_rate) == (64, 96, 0.14)
    quick = made(900, quick=True)
    assert (quick.settings.steps, quick.repeats, quick.chooses, quick.curve) == (200, 3, False, 0)
    assert (made(60_000, quick=True).settings.steps, made(900, quick=True, repeats=1).repeats) == (506, 1)
    assert (made(900).repeats, made(900, test=400).repeats, made(900, test=400, repeats=2).repeats) == (3, 5, 2)
    slow = made(60_000, rate=30.0)
    assert slow.limited and slow.settings.steps == plan.FEWEST_STEPS
    assert not made(60_000, rate=100.0, deterministic=True).limited
    assert made(60_000, steps=7, rate=1.0).settings.steps == 7
    assert made(60_000, rate=1000).seconds < 98 * 60 and made(1600, rate=1000).seconds < 7 * 60, "the promised times on a plain machine"
    assert made(900, sets=3).runs > made(900).runs + 5 and made(900, full=True).runs > made(900).runs + 5
    written = json.loads(json.dumps(slow.written()))
    assert plan.stored(written) == slow
    more = plan.extended(slow, Recipe(repeats=7, full=True), Sizes(60_000, 5000, 1, 10, (1, 8, 8)))
    assert (more.repeats, more.sweeps, more.settings) == (7, True, slow.settings) and more.runs > slow.runs


def test_another_shape_than_the_synthetic_images_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for asked, shown in (({"size": (16, 16)}, "which are 12x12"), ({"colour": "rgb"}, "which are grey")):
        with pytest.raises(UsageError, match=shown):
            evaluate(folders["synthetic"], real=folders["real"], test=folders["test"], out=tmp_path / "r", progress=Progress(quiet=True), **asked)
    assert not (tmp_path / "r/report.json").exists()
    same = evaluate(
        folders["synthetic"], real=folders["real"], test=folders["test"], out=tmp_path / "r", dry_run=True, size=(12, 12), colour="grey", quick=True
    )
    assert same["shape"] == [1, 12, 12]
