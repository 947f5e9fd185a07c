"""Intervals against known answers and other code, and the verdict they lead to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from datagen.evaluation import statistics
from datagen.evaluation.statistics import Interval, accuracy, bootstrap, interval, paired, quantile_t, recalls, verdict, wilson


@pytest.mark.parametrize("freedom", [1, 2, 5, 20, 21, 40, 999])
def test_quantiles_of_students_t(freedom: int) -> None:
    assert quantile_t(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=3e-4)


@given(st.integers(1, 400), st.data())
def test_wilson_equals_scipy(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, "wilson")
    found = wilson(hits / count, count)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_wilson_without_images() -> None:
    assert all(math.isnan(value) for value in vars(wilson(0.0, 0)).values())


def test_a_single_repeat_has_the_interval_of_its_images() -> None:
    values = (np.arange(400) < 300).astype(float)[None]
    found = interval(values)
    error = math.sqrt(0.75 * 0.25 / 400)
    assert found.mean == 0.75
    assert (found.low, found.high) == pytest.approx((0.75 - 1.96 * error, 0.75 + 1.96 * error), abs=0.006)


def test_few_repeats_that_disagree_widen_the_interval_to_students_t() -> None:
    values = np.stack([np.arange(2000) < count for count in (1500, 1600, 1700)])
    reach = scipy.stats.t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    found = interval(values, limits=(0, 1))
    assert (found.low, found.high) == pytest.approx((0.8 - reach, 0.8 + reach), abs=1e-3)


def test_intervals_stay_within_their_limits() -> None:
    values = np.stack([np.ones(50), np.ones(50), np.arange(50) < 40])
    assert interval(values, limits=(0.0, 1.0)).high == 1.0


def test_the_bootstrap_covers_about_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        low, high = bootstrap((rng.random((1, 150)) < 0.8).astype(float), seed=trial, draws=400)
        hits += low <= 0.8 <= high
    assert 178 <= hits <= 199


def test_the_bootstrap_sees_the_spread_of_repeats_too() -> None:
    same = np.tile((np.arange(100) < 50).astype(float), (5, 1))
    apart = np.stack([(np.arange(100) < count).astype(float) for count in (10, 30, 50, 70, 90)])
    assert np.diff(bootstrap(apart)) > 1.5 * np.diff(bootstrap(same))


def test_the_bootstrap_in_pieces_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (np.random.default_rng(1).random((3, 70)) < 0.6).astype(float)
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4) != bootstrap(values, seed=5)
    monkeypatch.setattr(statistics, "CELLS", 7000)
    assert bootstrap(values, seed=4) == pytest.approx(bootstrap(np.array(values), seed=5), abs=0.03)


def test_equal_arms_have_no_difference() -> None:
    found = interval(np.zeros((3, 100)))
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert verdict(found, 0.5, 0.5, images=100, repeats=3).kind == "none_seen"


def test_pairing_makes_small_steady_gains_visible() -> None:
    rng = np.random.default_rng(2)
    real = np.stack([rng.random(2000) < 0.7] * 3).astype(float)
    both = real.copy()
    both[:, np.flatnonzero(real[0] == 0)[:30]] = 1
    paired, alone = interval(both - real), interval(both, limits=(0, 1))
    assert paired.low > 0
    assert alone.low < real.mean(), "unpaired the gain drowns in the spread of the images"


@pytest.mark.parametrize(
    ("low", "high", "kind", "words"),
    [
        (
            0.003,
            0.021,
            "helps",
            "helps: accuracy rises by 1.2 points (95 % interval +0.3 to +2.1), from 97.4 % with real images to 98.6 % (898 unseen real images, 3 repeats).",
        ),
        (-0.021, -0.003, "harms", "harms: accuracy falls by 1.2 points (95 % interval −2.1 to −0.3)"),
        (-0.01, 0.014, "none_seen", "no difference that was seen: +0.2 points (95 % interval −1.0 to +1.4)"),
        (0.0, 0.02, "none_seen", "only a difference of about 1.0 points or more could have been seen."),
        (-0.02, 0.0, "none_seen", "0.0)"),
    ],
)
def test_verdicts(low: float, high: float, kind: str, words: str) -> None:
    found = verdict(Interval((low + high) / 2, low, high), 0.974, 0.986, images=898, repeats=3)
    assert found.kind == kind
    assert words in found.sentence
    assert found.sentence.endswith(".") and "\n" not in found.sentence


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.7), (-0.3, -0.1), (-0.1, 0.1)])
def test_one_training_of_each_arm_gives_no_verdict(low: float, high: float) -> None:
    found = verdict(Interval((low + high) / 2, low, high), 0.3, 0.8, images=900, repeats=1)
    assert found.kind == "unclear" and "One training of each arm cannot tell" in found.sentence


def test_recalls_are_of_the_true_class() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 3])
    correct = np.array([[1, 1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 1, 0, 1]], bool)
    found = recalls(correct, labels, 4)
    assert [r.mean for r in found[:2]] == [5 / 8, 1 / 4]
    assert math.isnan(found[2].mean)
    assert found[3].mean == 1.0 and found[3].low < 0.3


def test_confusion_counts_true_by_predicted() -> None:
    found = statistics.confusion(np.array([[0, 1, 1], [0, 0, 1]]), np.array([0, 0, 1]), 3)
    assert found.tolist() == [[3, 1, 0], [0, 2, 0], [0, 0, 0]]


@pytest.mark.parametrize(("value", "text"), [(0.0123, "+1.2"), (-0.004, "−0.4"), (0.0004, "0.0"), (-0.0004, "0.0"), (0.0, "0.0")])
def test_points_in_words(value: float, text: str) -> None:
    assert statistics.points(value) == text


def test_groups_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    by_group = (rng.random(40) < 0.7).astype(float)
    values, groups = np.repeat(by_group, 25)[None], np.repeat(np.arange(40), 25)
    apart, together = interval(values, groups=None), interval(values, groups=groups)
    assert together.half == pytest.approx(5 * apart.half, rel=0.15), "25 equal images a group say as much as one"
    single = interval(values, groups=np.arange(1000))
    assert (single.low, single.high) == (apart.low, apart.high), "groups of one image change nothing"


def test_a_handful_of_images_never_gives_an_interval_without_width() -> None:
    base, better = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    found = paired(better, base)
    assert found.mean == 1.0 and found.high == 1.0
    assert found.low < 0.75
    same = paired(base, base)
    assert same.mean == 0.0 and same.low < -0.2 and same.high > 0.2
    assert paired(base, base, level=0.995).low < same.low, "more classes at once, wider intervals"


def test_arms_that_never_differ_are_not_said_to_be_equal_for_certain() -> None:
    right = np.ones((5, 410), bool)
    same = paired(right, right)
    assert same.mean == 0 and same.high == -same.low == pytest.approx(1.96 * math.sqrt(2) / 412, rel=0.01), "five repeats make no new images"
    assert accuracy(right).mean == accuracy(right).high == 1 and 0.990 < accuracy(right).low < 0.995
    groups = np.arange(410) // 10
    assert paired(right, right, groups=groups).high == pytest.approx(1.96 * math.sqrt(2) / 43, rel=0.01), "nor do images of one group"
    rng = np.random.default_rng(0)
    hard = rng.random(2000)
    one, other = (np.stack([rng.random(2000) < (share + hard) / 2 for _ in range(3)]) for share in (0.9, 0.8))
    usual = interval(one.astype(float) - other)
    assert paired(one, other).half == pytest.approx(usual.half, rel=0.25), "where arms differ in many images little changes"
    assert accuracy(one).half == pytest.approx(interval(one.astype(float)).half, rel=0.25)


def test_one_repeat_has_the_interval_of_bonett_and_price() -> None:
    rng = np.random.default_rng(1)
    better, base = rng.random((1, 30)) < 0.9, rng.random((1, 30)) < 0.7
    gained, lost = ((int((a & ~b).sum()) + 1) / 32 for a, b in ((better, base), (base, better)))
    reach = 1.959964 * math.sqrt((gained + lost - (gained - lost) ** 2) / 32)
    assert statistics._two_more(better.astype(float) - base, (-1, 1), None, 0.95) == pytest.approx((gained - lost - reach, gained - lost + reach), abs=1e-6)


def test_what_a_handful_of_images_can_show() -> None:
    assert statistics.visible(12) == pytest.approx(0.24, abs=0.005)
    assert statistics.visible(0) <= 1
