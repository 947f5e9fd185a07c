"""Agreement, duplicates, balance and drift: shares, counts and differences with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import agreement, balance, drift
from datagen.evaluation.measures.agreement import Agreement, difference, weighted
from datagen.evaluation.measures.balance import Balance, apart, evenness
from datagen.evaluation.measures.drift import Drift
from datagen.evaluation.measures.duplicates import Duplicates, repeated
from datagen.evaluation.statistics import Interval, wilson

CLASSES = ("a", "b", "c")


def coded(labels: np.ndarray, said: np.ndarray, seed: int = 0) -> Labelled:
    """Return images whose first pixel is the class that `predict` will say."""
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = said
    return Labelled(images, np.asarray(labels, np.int64))


def predict(images: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[images[:, 0, 0, 0]]


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def context(real: Labelled, synthetic: Labelled, test: Labelled) -> Context:
    return Context(CLASSES, real, synthetic, test, (), {"recogniser": flat}, predict)


def right(count: int, wrong: int = 0, seed: int = 0) -> Labelled:
    """Return images of three classes in turn, the first `wrong` of them taken for the next class."""
    labels = np.arange(count) % 3
    return coded(labels, np.where(np.arange(count) < wrong, (labels + 1) % 3, labels), seed)


def test_label_noise_is_what_the_recogniser_does_not_explain() -> None:
    found = Agreement().measure(context(right(90), right(600, 150), right(600, 60)))
    assert found.estimate == 0.75
    assert found.details["unseen"]["mean"] == 0.9
    assert found.details["label_noise"]["mean"] == pytest.approx(0.15)
    assert found.details["label_noise"]["low"] > 0.1 and found.details["departs"]
    assert "15.0 % of the labels look wrong" in found.sentence
    assert [(c["class"], c["taken_for"], c["share"], c["unseen"]) for c in found.details["confused"]] == [
        ("a", "b", 0.25, 0.1),
        ("b", "c", 0.25, 0.1),
        ("c", "a", 0.25, 0.1),
    ]


def test_no_label_noise_where_real_images_are_as_hard() -> None:
    found = Agreement().measure(context(right(90), right(600, 60), right(600, 60)))
    assert not found.details["departs"] and "no wrong labels" in found.sentence
    assert found.details["label_noise"]["mean"] == 0


def test_unseen_images_are_weighted_to_the_synthetic_classes() -> None:
    synthetic = coded(np.zeros(100), np.zeros(100))
    test = coded(np.repeat([0, 1], 100), np.repeat([0, 0], 100))
    found = Agreement().measure(context(right(90), synthetic, test))
    assert found.details["unseen"]["mean"] == 1 and found.details["label_noise"]["mean"] == 0
    other = Agreement().measure(context(right(90), coded(np.full(100, 2), np.full(100, 2)), test))
    assert other.estimate == 1 and other.details["unseen"]["mean"] is None
    assert "no unseen real image has any of their classes" in other.sentence


def test_weights_by_hand() -> None:
    counts = np.array([[9, 1], [5, 5]])
    assert weighted(counts, np.array([1, 1])).mean == pytest.approx(0.7)
    assert weighted(counts, np.array([3, 1])).mean == pytest.approx(0.8)
    assert weighted(counts, np.array([1, 1])) == wilson(0.7, 20)


def test_newcombes_own_example() -> None:
    found = difference(wilson(56 / 70, 70), wilson(48 / 80, 80))
    assert [round(value, 4) for value in (found.mean, found.low, found.high)] == [0.2, 0.0524, 0.3339]


def test_no_predictions_no_agreement() -> None:
    found = Agreement().measure(Context(CLASSES, right(90), right(90), right(90), (), {"recogniser": flat}))
    assert math.isnan(found.estimate) and "no recogniser" in found.sentence
    few = Agreement().measure(context(right(90), right(agreement.FEWEST - 1), right(90)))
    assert math.isnan(few.estimate) and "fewer than" in few.sentence


def smooth(count: int, seed: int) -> Labelled:
    """Return different images: a few random waves each."""
    rng = np.random.default_rng(seed)
    place = np.linspace(0, 1, 12)
    waves = rng.uniform(0.5, 2.5, (count, 4, 2)) @ np.stack(np.meshgrid(place, place)).reshape(2, -1)
    values = np.sin(2 * np.pi * (waves + rng.random((count, 4, 1)))).sum(1).reshape(count, 12, 12, 1)
    return Labelled(np.clip(128 + 30 * values, 0, 255).astype(np.uint8), np.arange(count) % 3)


def test_repeated_images_are_counted_over_all() -> None:
    images = smooth(200, 0).images
    assert repeated(images) == 0
    assert repeated(np.concatenate([images, images[:7], images[:7]])) == 14


def test_near_duplicates_are_found_and_named() -> None:
    real, made = smooth(400, 0), smooth(400, 1)
    fresh = Duplicates().measure(context(real, made, smooth(90, 2)))
    assert not fresh.details["departs"] and fresh.details["share"]["mean"] < 0.02
    assert fresh.details["floor"]["mean"] <= 0.0101
    images = made.images.copy()
    images[300:360] = np.clip(images[:60].astype(int) + np.random.default_rng(0).integers(-2, 3, images[:60].shape), 0, 255)
    images[399] = images[398]
    found = Duplicates().measure(context(real, Labelled(images, made.labels, tuple(map(str, range(400)))), smooth(90, 2)))
    assert found.details["departs"] and found.details["equal"] == 1
    assert found.details["share"]["mean"] == pytest.approx(122 / 400, abs=0.03)
    first = found.details["pairs"][0]
    assert {first["one"]["name"], first["other"]["name"]} == {"398", "399"} and first["distance"] == 0
    seen = [frozenset((pair["one"]["row"], pair["other"]["row"])) for pair in found.details["pairs"]]
    assert len(set(seen)) == len(seen) > 5


def test_too_few_duplicates_to_look_for() -> None:
    found = Duplicates().measure(context(smooth(400, 0), smooth(40, 1), smooth(90, 2)))
    assert math.isnan(found.estimate) and found.details["of"] == 40


def counted(*counts: int) -> Labelled:
    labels = np.repeat(np.arange(3), counts)
    return Labelled(np.zeros((len(labels), 4, 4, 1), np.uint8), labels)


def test_balance_by_hand() -> None:
    found = Balance().measure(context(counted(50, 30, 20), counted(20, 30, 0), counted(10, 10, 10)))
    assert found.estimate == pytest.approx(0.3)
    assert found.details["missing"] == ["c"] and found.details["departs"]
    assert [row["ratio"] for row in found.details["per_class"]] == [0.8, 2, 0]
    assert found.details["largest"][0]["class"] == "b" and "'b': 60.0 % beside 30.0 %" in found.sentence
    assert "1 class has no synthetic image: 'c'" in found.sentence


@pytest.mark.parametrize(("synthetic", "departs"), [((50, 30, 20), False), ((40, 40, 40), False), ((50, 30, 27), False), ((500, 300, 300), True)])
def test_real_or_equal_shares_are_balanced(synthetic: tuple[int, ...], departs: bool) -> None:
    assert Balance().measure(context(counted(500, 300, 200), counted(*synthetic), counted(9, 9, 9))).details["departs"] is departs


def test_chance_by_the_textbook() -> None:
    assert balance.homogeneous(np.array([10, 20, 0]), np.array([20, 10, 0])) == pytest.approx(math.erfc(math.sqrt(20 / 3 / 2)))
    assert balance.homogeneous(np.array([5, 0]), np.array([9, 0])) == 1


def test_an_empty_set_has_no_balance() -> None:
    assert math.isnan(Balance().measure(context(counted(1, 1, 1), counted(0, 0, 0), counted(1, 1, 1))).estimate)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8).filter(any), st.integers(0, 9))
def test_shares_lie_at_most_one_apart(counts: list[int], seed: int) -> None:
    one = np.array(counts) / sum(counts)
    other = np.random.default_rng(seed).permutation(one)
    assert 0 <= apart(one, other) <= 1 and apart(one, one) == 0 and apart(one, other) == apart(other, one)
    assert -1e-12 <= evenness(one) <= 1 + 1e-12
    assert evenness(np.full(len(counts), 1 / len(counts))) == pytest.approx(1)


def test_statistics_by_hand() -> None:
    grey = np.zeros((1, 4, 4, 1), np.uint8)
    grey[0, :, 2:] = 100
    assert drift.brightness(grey)[0] == 50 and drift.contrast(grey)[0] == 50
    assert drift.edges(grey)[0] == 1
    assert drift.sharpness(grey)[0] == pytest.approx(math.log1p(100**2))
    assert math.isnan(drift.colourfulness(grey)[0])
    colour = np.zeros((1, 2, 2, 3), np.uint8)
    colour[..., 0] = 200
    assert drift.brightness(colour)[0] == pytest.approx(59.8, rel=1e-5)
    assert drift.colourfulness(colour)[0] == pytest.approx(0.3 * math.hypot(200, 100))
    colour[0, 0] = 0
    assert drift.colourfulness(colour)[0] == pytest.approx(math.hypot(100, 50) * 1.3)


def test_a_standardised_difference_by_hand() -> None:
    base, other = np.array([1.0, 2, 3, 4, 5]), np.array([3.0, 4, 5, 6, 7])
    value, error = drift.standardised(base, other)
    assert value == pytest.approx(2 / math.sqrt(2.5))
    assert error == pytest.approx(math.sqrt(0.4 + value**2 / 8))


def test_its_error_is_what_it_varies_by() -> None:
    rng = np.random.default_rng(0)
    found = np.array([drift.standardised(rng.normal(0, 2, 80), rng.normal(1, 3, 120)) for _ in range(400)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.12)
    assert found[:, 0].mean() == pytest.approx(0.5, abs=0.03)


def coloured(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tint = rng.uniform(0.4, 1, (count, 1, 1, 3))
    return np.clip(smooth(count, seed).images * tint + rng.normal(0, 10, (count, 12, 12, 3)), 0, 255).astype(np.uint8)


CHANGES = {
    "darker": lambda x: x * 0.7,
    "brighter": lambda x: x + 40,
    "of less contrast": lambda x: 0.6 * x + 0.4 * x.mean((1, 2, 3), keepdims=True),
    "paler": lambda x: 0.4 * x + 0.6 * x.mean(3, keepdims=True),
    "blurrier": lambda x: (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, (1, 1), (1, 2))) / 4,
    "sharper": lambda x: x + np.random.default_rng(0).normal(0, 15, x.shape),
    "poorer in edges": lambda x: (x + np.roll(x, 2, 1) + np.roll(x, 2, 2)) / 3,
}


@pytest.mark.parametrize("word", CHANGES)
def test_drift_says_which_way(word: str) -> None:
    real, fresh, test = (coloured(400, seed) for seed in range(3))
    changed = np.clip(CHANGES[word](fresh.astype(float)), 0, 255).astype(np.uint8)
    sets = [Labelled(x, np.arange(400) % 3) for x in (real, changed, test)]
    found = {f.details["word"]: f for f in Drift().measure(context(*sets))}
    assert word in found
    assert f"are {word} than unseen real ones" in found[word].sentence
    quiet = list(Drift().measure(context(sets[0], Labelled(fresh, sets[1].labels), sets[2])))
    assert [f.details["word"] for f in quiet] == [None] * 5 and not any(f.details["departs"] for f in quiet)


def test_grey_images_have_no_colour_and_few_no_drift() -> None:
    found = {f.measure: f for f in Drift().measure(context(smooth(90, 0), smooth(90, 1), smooth(90, 2)))}
    assert "no colour" in found["drift colourfulness"].sentence and not math.isnan(found["drift brightness"].estimate)
    few = list(Drift().measure(context(smooth(90, 0), smooth(10, 1), smooth(90, 2))))
    assert len(few) == 5 and all(math.isnan(f.estimate) for f in few)


def test_an_interval_of_two_equal_shares_is_about_nothing() -> None:
    found = difference(Interval(0.5, 0.4, 0.6), Interval(0.5, 0.4, 0.6))
    assert found.mean == 0 and found.low == pytest.approx(-found.high)
