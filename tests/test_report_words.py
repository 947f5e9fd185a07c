"""What the report says and draws: axes, curves, advice, who saw what, Markdown, and the figures computed again by other code."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_report import SKILLS, drawn, experiment_of, report_of

from datagen.evaluation import outcome, statistics
from datagen.evaluation.arms import Trial
from datagen.evaluation.experiment import CURVE, Context
from datagen.evaluation.report import advice, charts, curves, page, scatter, text, words
from datagen.pages import svg
from datagen.recogniser.fit import Settings

ROOT = Path(__file__).parent.parent
POINTS = [{"images": n, "accuracy": a, "fitted": a} for n, a in {100: 0.5, 200: 0.6, 400: 0.8}.items()]


@pytest.mark.parametrize(("low", "high"), [(0.985, 0.991), (0.0, 1.0), (0.5, 0.5), (0.001, 0.002), (1.0, 1.0)])
def test_axes_hold_what_they_show(low: float, high: float) -> None:
    axis = svg.Axis(low, high)
    assert axis.low <= low <= high <= axis.high
    assert 0 <= axis.low < axis.high <= 1
    assert 2 <= len(axis.ticks()) <= 9
    assert all(0.9 <= axis.place(value) <= 99.1 for value in (low, high, *axis.ticks()))


@pytest.mark.parametrize("reach", [0.004, 0.03, 0.2, 0.51, 3.0])
def test_a_scale_about_zero_holds_what_it_shows(reach: float) -> None:
    around = charts.Around(reach)
    assert min(reach, 1.0) * 0.999 <= around.reach <= 1.0
    assert around.place(0) == 50 and around.place(-around.reach) == 2 and around.place(9.0) == 98


def test_the_curve_is_on_a_log_axis_and_says_its_bound() -> None:
    frame = curves.Frame([100, 200, 400], [0.5, 0.8])
    assert frame.x(200) == pytest.approx((frame.x(100) + frame.x(400)) / 2)
    assert frame.y(0.8) < frame.y(0.5)
    found = {"points": POINTS, "synthetic": 0.6, "images": 200.0, "low": 150.0, "high": None, "bound": ""}
    drawing = str(curves.learning(found))
    assert "worth about 200 real images" in drawing and f'cx="{frame.x(200):.2f}%"' in drawing and "band" in drawing
    above = str(curves.learning(found | {"synthetic": 0.9, "images": None, "low": None, "bound": "above"}))
    assert "worth all 400 real images or more" in above and "meet" not in above and "band" not in above
    assert "fewer than 100 real images" in str(curves.learning(found | {"synthetic": 0.4, "images": None, "bound": "below"}))
    assert curves.learning({}) is None
    assert (
        "too flat" in str(curves.learning(found | {"images": None, "low": None, "bound": "flat"}))
        and words.worth(found | {"bound": "flat"}) == "cannot be told"
    )
    assert words.worth(found) == "about 200" and words.worth(found | {"bound": "above"}) == "400 or more" and words.worth({}) == "–"


def test_the_map_shows_the_leading_directions() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 5)) * [9, 4, 0.1, 0.1, 0.1]
    places = scatter.project(values)
    assert abs(np.corrcoef(places[:, 0], values[:, 0])[0, 1]) > 0.99 and abs(np.corrcoef(places[:, 1], values[:, 1])[0, 1]) > 0.99
    inside = scatter.framed(places)
    assert (inside >= scatter.EDGE).all() and (inside <= np.array([scatter.WIDTH, scatter.HEIGHT]) - scatter.EDGE).all()
    assert scatter.project(values[:, :1]).shape == (300, 2)
    names = scatter.apart({"one": np.array([100.0, 50]), "two": np.array([104.0, 52]), "far": np.array([400.0, 50])})
    assert abs(names["one"][1] - names["two"][1]) >= scatter.LINE and names["far"] == (400, 55)


def advised(report: dict[str, Any], found: str) -> bool:
    return any(found in step for step in words.next_steps(report))


def test_advice_follows_the_figures() -> None:
    far = report_of(experiment_of(("a", "b", "c"), each=60, skills=SKILLS | {"synthetic": 0.5, "both": 0.9}))
    assert "The generator is the limit" in far["next"][0]
    assert "lose most" in far["next"][1]
    near = report_of(experiment_of(("a", "b", "c"), each=60, skills=SKILLS | {"real": 0.995, "synthetic": 0.99, "both": 0.995}))
    assert advised(near, "little to gain") and not advised(far, "little to gain")
    assert advised(far | {"measured": far["measured"] | {"limited": True}}, "machine is slow") and not advised(far, "machine is slow")
    uneven = far | {"measures": far["measures"] | {"balance": {"apart_test": 0.3, "floor": 0.05}}}
    assert "--proportions real): 30 % of them" in words.next_steps(uneven)[0] and not advised(far, "--proportions real")
    even = far | {"measures": far["measures"] | {"balance": {"apart_test": 0.3, "floor": 0.25}}}
    assert not advised(even, "--proportions real"), "real and unseen images differ as much"
    copied = far | {"measures": far["measures"] | {"copies": {"low": 0.2, "departs": True}}}
    assert advised(copied, "repeats what it saw") and not advised(far, "repeats what it saw")
    good = report_of(experiment_of(("a", "b", "c"), each=60, skills={"real": 0.9, "classical": 0.9, "synthetic": 0.88, "both": 0.9}))
    harm = good | {"verdict": good["verdict"] | {"kind": "harms"}}
    assert advised(good, "nearly as good as real ones") and not advised(harm, "nearly as good as real ones")
    assert advised(harm, "take the place of better ones") and not advised(good, "take the place of better ones")
    shortcut = far | {"measures": far["measures"] | {"focus_shortcut": {"suspected": True}}}
    assert "takes blur for the class" in words.next_steps(shortcut)[0]
    best = {"at": 4.0, "mean": 0.99, "low": 0.98, "high": 1.0}
    swept = far | {"measures": far["measures"] | {"sweep_ratio": {"points": [best, best | {"at": 1.0, "mean": 0.9, "low": 0.8}]}}}
    assert advised(swept, "4 for each real one gave 99.0 %") and not advised(far, "for each real one gave")


@pytest.mark.parametrize(("half", "weak"), [(0.30, True), (0.74, True), (0.76, False), (0.80, False)])
def test_a_recogniser_that_was_still_learning_is_the_first_thing_said(half: float, weak: bool) -> None:
    context = experiment_of(("a", "b"), each=60, skills={"real": 0.8, "classical": 0.8, "synthetic": 0.5, "both": 0.8})
    report = report_of(context)
    mean, measured = report["arms"]["real"]["accuracy"]["mean"], report["measured"] | {"limited": True}
    points = [{"images": 10, "accuracy": 0.1}, {"images": report["data"]["real"]["images"], "accuracy": half - 0.8 + mean}]
    learnt = report | {"measured": measured, "measures": report["measures"] | {"exchange": {"points": points}}}
    learnt["caution"] = words.caution(learnt)
    steps = words.next_steps(learnt)
    assert ("Train the recogniser longer" in steps[0]) is weak and any("machine is slow" in step for step in steps) is not weak
    assert (learnt["caution"] is not None) is weak and ("weak recogniser, which was still learning" in text.markdown(learnt).split("## ")[0]) is weak
    assert words.caution(report | {"measures": report["measures"] | {"exchange": {"points": points[:1]}}}) is None, "fewer images tell nothing of steps"


def test_a_recogniser_at_the_level_of_chance_gives_no_praise() -> None:
    report = report_of(experiment_of(("a", "b"), each=60, skills={"real": 0.52, "classical": 0.52, "synthetic": 0.5, "both": 0.52}))
    assert "learnt hardly anything" in (words.caution(report) or "") and "naming the largest class always would get 50.0 %" in (words.caution(report) or "")
    assert not any("nearly as good as real" in step for step in words.next_steps(report)) and "longer" in words.next_steps(report)[0]


def test_a_cheaper_rival_is_recommended_where_it_does_as_well() -> None:
    context = experiment_of(("a", "b", "c"), each=60, skills={"real": 0.7, "classical": 0.92, "synthetic": 0.69, "both": 0.92}, base="classical")
    report = report_of(context)
    assert report["verdict"]["kind"] == "none_seen" and advised(report, "classically augmented copies give as much and cost nothing")
    assert not advised(report_of(dataclasses.replace(context, choice=dataclasses.replace(context.choice, base="real"))), "cost nothing")


def test_who_saw_the_unseen_images_is_said() -> None:
    context = experiment_of(("a", "b"))
    own = report_of(context)["measured"]["saw"][-1]
    test = {"folder": "data", "images": 100, "counts": {"a": 10, "b": 10}, "held_out": True}
    held = report_of(context, test=test)["measured"]["saw"][-1]
    run = report_of(context, test=test, run="run")["measured"]["saw"][-1]
    assert "cannot know" in own and "held out here" in held and "was not fitted to them" in run


def saying(context: Context, **described: Any) -> str:
    return " ".join(report_of(context, **described)["measured"]["saw"])


def test_choices_curves_and_commands_are_said_with_their_figures() -> None:
    context = experiment_of(("a", "b"), base="classical", once={f"{CURVE} 10": 0.5, f"{CURVE} 20": 0.6, f"{CURVE} synthetic": 0.55})
    said = saying(context)
    assert "A validation part of 60 of the real training images" in said
    assert "the learning rate 0.2 (90.0 %; 0.1 gave 88.0 %)" in said and "the arm to beat real + classical copies (91.0 %; real gave 90.0 %)" in said
    assert "The learning curve trains on 10, 20 real images, every point for 250 steps, half of an arm's, once" in said
    assert "20 copies of them, shifted, scaled and turned a little (policy geometric)" in said
    assert "by the user's own command (python train.py)" in saying(context, command="python train.py")
    assert words.tested({"tested": {"times": 3}}).startswith("3 evaluations of this folder")
    assert advice.next_steps is words.next_steps


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A1", "+1", "-1", "@x", "a|b", "<img src=x>", "[a](http://b)", "`x`", "\u202ex", "a\nb"])
def test_cells_of_the_text_are_harmless(name: str) -> None:
    cell = text.cell(name)
    assert not cell.startswith(("=", "+", "-", "@"))
    assert "<" not in cell and "\n" not in cell and "\u202e" not in cell
    assert all(cell[place - 1] == "\\" for place, char in enumerate(cell) if char in "|[]`")
    context = experiment_of((name, "other"))
    rows = [line for line in page.markdown(report_of(context)).splitlines() if line.startswith(f"| {cell} |")]
    assert len(rows) == 1 and rows[0].replace("\\|", "").count("|") == 5


def test_the_text_says_what_the_page_says() -> None:
    context = experiment_of(("a", "b", "c"), base="classical")
    report = report_of(context, times=2)
    said = page.markdown(report)
    assert text.plain(report["verdict"]["sentence"]) in said
    assert "| real + classical copies (to beat) |" in said and "| real + synthetic minus real + classical copies |" in said
    assert all(text.plain(sentence) in said for sentence in [*report["measured"]["saw"], *report["next"], words.tested(report)])
    assert said.index("2 evaluations") > said.index("## How it was measured")


def recomputed(file: Path) -> dict[str, list[float]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "recompute.py"), str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[1]: [float(value) for value in line.split()[2:]] for line in lines}


@pytest.mark.parametrize("grouped", [False, True])
def test_other_code_computes_the_same_figures(tmp_path: Path, grouped: bool) -> None:
    context = experiment_of(("a", "b", "c"), each=80)
    groups = tuple(f"g{row // 4}" for row in range(240)) if grouped else ()
    test = dataclasses.replace(context.test, groups=groups)
    rng = np.random.default_rng(9)
    parts = {"real": context.real, "synthetic": context.synthetic, "test": test}
    arms = [drawn(arm, repeat, skill, parts, 3, rng) for arm, skill in SKILLS.items() for repeat in range(3)]
    arms = [dataclasses.replace(result, set="" if result.arm in {"real", "classical"} else "shards") for result in arms]
    context = dataclasses.replace(context, test=test, arms=tuple(arms))
    report = report_of(context)
    (tmp_path / "predictions.parquet").write_bytes(outcome.predictions(arms, Trial(parts, context.classes, Settings(), 0)))
    found = recomputed(tmp_path / "predictions.parquet")
    wanted = {arm: value["accuracy"] for arm, value in report["arms"].items()} | report["differences"]
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name][0] == pytest.approx(value["mean"], abs=1.1e-6)
    both, real = (np.stack([r.correct for r in arms if r.arm == arm]).astype(float) for arm in ("both", "real"))
    for name, values in {"both": both, "real": real, "both-real": both - real}.items():
        ends = statistics.bootstrap(values, groups=np.array(groups) if grouped else None)
        assert found[name][1:] == pytest.approx(ends, abs=0.006)


def test_the_script_that_recomputes_shares_no_code() -> None:
    code = (ROOT / "benchmarks" / "recompute.py").read_text()
    assert "import datagen" not in code and "from datagen" not in code
