"""The learning curve read backwards, subsamples, recall at equal false alarms and the blur shortcut, against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.evaluation import curve, focus
from datagen.evaluation.arms import Labelled, subset
from datagen.records import ArmResult


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_monotone_fit_equals_its_minimax_formula(values: list[float]) -> None:
    found, y = curve.monotone(np.array(values)), np.array(values)
    expected = [max(min(y[a : b + 1].mean() for b in range(i, len(y))) for a in range(i + 1)) for i in range(len(y))]
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("wanted", "images"),
    [(0.5, 100.0), (0.6, math.sqrt(100 * 200)), (0.7, 200.0), (0.8, math.sqrt(200 * 400)), (0.9, 400.0), (0.91, math.inf), (0.49, 0.0)],
)
def test_the_curve_is_read_backwards_over_the_logarithm(wanted: float, images: float) -> None:
    assert curve.inverse([100, 200, 400], np.array([0.5, 0.7, 0.9]), wanted) == pytest.approx(images)


def test_a_flat_stretch_is_reached_at_its_first_point() -> None:
    assert curve.inverse([10, 20, 40, 80], np.array([0.5, 0.7, 0.7, 0.9]), 0.7) == pytest.approx(20)


def correct(accuracy: float, seed: int, images: int = 4000) -> np.ndarray:
    return (np.random.default_rng(seed).permutation(images) < accuracy * images)[None]


def test_a_synthetic_set_equals_the_real_images_that_do_as_well() -> None:
    images, accuracies = [100, 200, 400, 800], [0.6, 0.7, 0.8, 0.9]
    real = [correct(value, seed) for seed, value in enumerate(accuracies)]
    found = curve.equal(images, real, correct(0.75, 9), deviation=0.002)
    assert found.images == pytest.approx(math.sqrt(200 * 400), rel=0.01)
    assert 200 < found.low < found.images < found.high < 400 and not found.bound
    wide = curve.equal(images, real, correct(0.75, 9), deviation=0.05)
    assert wide.low < found.low and wide.high > found.high
    above, below = (curve.equal(images, real, correct(value, 9), deviation=0.002) for value in (0.95, 0.3))
    assert (above.bound, math.isinf(above.images), below.bound, below.images) == ("above", True, "below", 0.0)
    assert above.low >= 700 and below.high <= 110


@pytest.mark.parametrize("synthetic", [0.979, 0.98, 0.983])
def test_a_curve_that_does_not_rise_tells_no_number(synthetic: float) -> None:
    real = [correct(value, seed, 800) for seed, value in enumerate([0.979, 0.981, 0.98, 0.981])]
    found = curve.equal([61, 120, 250, 500], real, correct(synthetic, 9, 800), deviation=0.002)
    assert found.bound == "flat" and math.isnan(found.images)


def test_equal_sets_are_worth_each_other() -> None:
    real = [correct(value, seed) for seed, value in enumerate([0.6, 0.7, 0.8, 0.9])]
    found = curve.equal([100, 200, 400, 800], real, correct(0.9, 5), deviation=0.005)
    assert found.low <= 800


@given(st.integers(2, 100_000), st.integers(1, 50))
def test_sizes_of_the_curve(images: int, classes: int) -> None:
    found = curve.sizes(max(images, classes), classes)
    assert found == sorted(set(found)) and all(classes <= size < max(images, classes) for size in found)
    if images >= 16 * classes:
        assert len(found) == 4


@settings(deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(0, 4), min_size=8, max_size=80), st.data())
def test_subsets_lie_inside_each_other_and_hold_every_class(seed: int, labels: list[int], data: st.DataObject) -> None:
    whole = Labelled(np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels))
    small, large = sorted(data.draw(st.tuples(st.integers(1, len(labels)), st.integers(1, len(labels)))))
    one, other = subset(whole, small, seed), subset(whole, large, seed)
    assert set(one) <= set(other) and len(set(other)) == len(other)
    assert set(whole.labels[one]) == set(labels)
    assert len(other) == max(large, len(set(labels)))


def test_subsets_keep_groups_together_and_classes_in_proportion() -> None:
    labels = np.repeat([0, 1], [400, 100])
    groups = tuple(f"g{label}-{i // 10}" for i, label in enumerate(labels))
    found = subset(Labelled(np.zeros((500, 1, 1, 1), np.uint8), labels, (), groups), 100, 0)
    assert np.bincount(labels[found]).tolist() == [80, 20]
    assert len({groups[i] for i in found}) == 10


def result(predicted: list[int], labels: np.ndarray, scores: list[float], blurred: list[int]) -> ArmResult:
    found = np.array(predicted)
    return ArmResult("arm", 0, found, found == labels, 1, 1, 1.0, scores=np.array(scores), blurred=np.array(blurred))


def test_recall_at_the_real_arms_false_alarms() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    real = result([1, 1, 0, 0, 1, 0, 0, 0], labels, [0.9, 0.8, 0.3, 0.2, 0.7, 0.1, 0.1, 0.1], [0] * 8)
    assert focus.alarms(real, labels, 1) == 0.25
    other = np.array([0.9, 0.5, 0.45, 0.2, 0.6, 0.4, 0.1, 0.0])
    assert focus.found_at(other, labels, 1, 0.25).tolist() == [True, True, True, False], "one of four others may pass: the threshold is 0.4"
    assert focus.found_at(other, labels, 1, 0.0).tolist() == [True, False, False, False]
    assert focus.found_at(other, labels, 1, 1.0).all()
    assert focus.recalls([real], [real], labels, 1).tolist() == [[True, True, True, True]]


def test_a_planted_blur_shortcut_is_flagged_and_a_clean_set_is_not() -> None:
    labels = np.repeat([0, 1], [90, 10])
    clean = result(labels.tolist(), labels, [0.5] * 100, labels.tolist())
    turning = result(labels.tolist(), labels, [0.5] * 100, [1] * 30 + [0] * 60 + [1] * 10)
    excess, suspected = focus.shortcut([clean] * 3, [turning] * 3, labels, 1)
    assert suspected and excess.mean == pytest.approx(1 / 3)
    assert not focus.shortcut([clean] * 3, [clean] * 3, labels, 1)[1]
    assert not focus.shortcut([turning] * 3, [turning] * 3, labels, 1)[1], "real images alone show it too"


def test_blurred_images_keep_their_shape_and_lose_their_detail() -> None:
    chess = (np.indices((9, 12)).sum(0) % 2 * 255).astype(np.uint8)[None, :, :, None].repeat(3, 3)
    found = focus.blurred(chess)
    assert found.shape == chess.shape and found.dtype == np.uint8
    assert np.ptp(found[0, 2:-2, 2:-2].astype(int)) < 90
    flat = np.full((2, 8, 8, 1), 77, np.uint8)
    assert np.array_equal(focus.blurred(flat), flat)
