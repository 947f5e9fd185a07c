"""Copies of training images are found and named however they are disguised, and fresh images are not; membership shows where it should."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import alignment, copies, drawing, membership, wording
from datagen.evaluation.measures.alignment import Known, align, left, mirrored
from datagen.evaluation.measures.copies import Copies, equal, limit
from datagen.recogniser import search
from datagen.records import Finding

SIDE = 24


def patches() -> np.ndarray:
    """Return photographs' patches uint8 [N, 24, 24, 3] in random order, without those that show a smooth ground (sky)."""
    from sklearn.datasets import load_sample_images

    found = []
    for photo in load_sample_images().images:
        height, width = (length // SIDE for length in photo.shape[:2])
        cut = photo[: height * SIDE, : width * SIDE].reshape(height, SIDE, width, SIDE, 3).swapaxes(1, 2)
        found.append(cut.reshape(-1, SIDE, SIDE, 3))
    images = np.concatenate(found)
    detail = np.abs(np.diff(images.astype(np.int64), axis=1)).mean((1, 2, 3))
    images = images[detail > 4]
    return np.ascontiguousarray(images[np.random.default_rng(0).permutation(len(images))])


@pytest.fixture(scope="module")
def photographs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, unseen and fresh patches."""
    images = patches()
    first, second = int(0.4 * len(images)), int(0.7 * len(images))
    return images[:first], images[first:second], images[second:]


def each(change: Callable[[Image.Image], Image.Image]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda images: np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer)


def crop(image: Image.Image) -> Image.Image:
    rng = np.random.default_rng(list(image.tobytes()[::97]))
    left_edge, top = rng.random(2) * 0.05 * SIDE
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left_edge, top, left_edge + 0.95 * SIDE, top + 0.95 * SIDE))


def brighter(images: np.ndarray) -> np.ndarray:
    return np.clip(images * 1.2 + 10, 0, 255).astype(np.uint8)


def noisy(images: np.ndarray) -> np.ndarray:
    return np.clip(images + np.random.default_rng(1).normal(0, 8, images.shape), 0, 255).astype(np.uint8)


def shifted(images: np.ndarray) -> np.ndarray:
    return np.pad(images[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")


DISGUISES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "exact": (np.copy, 0.99),
    "mirrored": (mirrored, 0.99),
    "jpeg 75": (each(jpeg), 0.95),
    "brighter": (brighter, 0.95),
    "crop 95 %": (each(crop), 0.95),
    "noise 8": (noisy, 0.95),
    "shifted": (shifted, 0.95),
}


def flat(images: np.ndarray) -> np.ndarray:
    return search.reduced(images, 6).reshape(len(images), -1)


def context(real: np.ndarray, synthetic: np.ndarray, test: np.ndarray) -> Context:
    parts = [Labelled(x, np.arange(len(x)) % 2, tuple(f"{i}.png" for i in range(len(x)))) for x in (real, synthetic, test)]
    return Context(("a", "b"), *parts, (), {"recogniser": flat})


def measured(real: np.ndarray, synthetic: np.ndarray, test: np.ndarray) -> tuple[Finding, Finding]:
    first, second, *_ = Copies().measure(context(real, synthetic, test))
    return first, second


def test_planted_copies_are_found_and_named(photographs: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "LISTED", 10_000)
    real, unseen, fresh = photographs
    sources = real[:60]
    planted = {name: np.ascontiguousarray(change(sources)) for name, (change, _) in DISGUISES.items()}
    found, _ = measured(real, np.concatenate([*planted.values(), fresh]), unseen)
    named = {copy["synthetic"]["row"]: copy for copy in found.details["copies"] if copy["named"]}
    for i, (name, (_, share)) in enumerate(DISGUISES.items()):
        hits = [named.get(i * len(sources) + k, {"real": {"row": -1}})["real"]["row"] == k for k in range(len(sources))]
        assert np.mean(hits) >= share, name
    assert sum(row >= len(planted) * len(sources) for row in named) <= 0.001 * len(fresh)
    assert found.details["unseen_named"] <= 0.001 * len(unseen)
    assert set(found.details["reasons"]) == {"near", "named", "equal"}
    assert named[0]["transform"] == "as it is" and named[60]["transform"] == "mirrored"
    crops = [named[4 * 60 + k]["transform"] for k in range(60) if 4 * 60 + k in named]
    assert sum("crop of 9" in text for text in crops) > 0.9 * len(crops)
    assert {k: named[60][k]["name"] for k in ("synthetic", "real")} == {"synthetic": "60.png", "real": "0.png"}
    assert len(named) == found.details["named"] <= found.details["likely"] == len(found.details["copies"])
    assert found.details["equal_pixels"] == 120
    assert [e["mirrored"] for e in found.details["equal"]] == [False] * 60 + [True] * 60


def test_fresh_photographs_are_no_copies(photographs: tuple[np.ndarray, ...]) -> None:
    real, unseen, fresh = photographs
    found, member = measured(real, fresh, unseen)
    assert found.details["named"] == 0 and found.details["copies"] == []
    assert not found.details["departs"] and found.details["reasons"] == []
    assert not member.details["departs"]
    assert f"0 of {len(fresh)} (at most" in found.sentence


def test_an_overfit_set_is_flagged(photographs: tuple[np.ndarray, ...]) -> None:
    real, unseen, _ = photographs
    overfit = np.clip(real + np.random.default_rng(3).normal(0, 5, real.shape), 0, 255).astype(np.uint8)
    found, member = measured(real, overfit, unseen)
    assert found.details["reasons"] == ["near", "named"]
    assert found.details["named"] > 0.95 * len(real)
    assert member.details["departs"] and member.estimate > 0.95
    assert member.details["rate"]["low"] > 0.5


def test_few_training_images_are_warned_of(photographs: tuple[np.ndarray, ...]) -> None:
    real, unseen, fresh = photographs
    found, _ = measured(real, fresh, unseen)
    assert found.details["few"] and f"below {copies.FEW}" in found.sentence
    many = np.concatenate([real] * (2 * copies.FEW // len(real) + 1))
    assert not measured(many, fresh, unseen)[0].details["few"]


def test_pairs_are_the_closest_and_quantiles_rise(photographs: tuple[np.ndarray, ...]) -> None:
    real, unseen, fresh = photographs
    images = fresh.copy()
    images[5] = real[7]
    found = measured(real, images, unseen)[0].details
    first = found["pairs"][0]
    assert first["synthetic"]["row"] == 5 and first["real"]["row"] == 7
    assert first["distance"] == 0 and first["pixel_difference"] == 0 and first["unseen_nearer"] == 0
    assert [pair["distance"] for pair in found["pairs"]] == sorted(pair["distance"] for pair in found["pairs"])
    assert found["quantiles"]["unseen"] == sorted(found["quantiles"]["unseen"])


def test_too_few_images_give_a_sentence() -> None:
    images = np.random.default_rng(0).integers(0, 256, (copies.FEWEST - 1, 8, 8, 1), dtype=np.uint8)
    found = measured(images, images, images)
    assert all(np.isnan(f.estimate) and "fewer than 20" in f.sentence for f in found)


@pytest.mark.parametrize(("unseen", "expected"), [([2.0] * 1000, 1.0), ([0.9, 2.0, 2.0], 0.9), ([0.2, 2.0, 2.0], 1.0), ([0.51] * 2 + [2.0] * 1998, 1.0)])
def test_the_limit_lies_below_what_unseen_images_show(unseen: list[float], expected: float) -> None:
    assert limit(np.array(unseen)) == pytest.approx(expected)
    assert sum(copies.PLAIN < value <= limit(np.array(unseen)) for value in unseen) <= 0.001 * len(unseen)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_no_limit_lets_false_alarms_through(unseen: list[float]) -> None:
    found = limit(np.array(unseen))
    assert copies.PLAIN <= found <= 1
    assert sum(copies.PLAIN < value <= found for value in unseen) <= copies.ALARMS * len(unseen)


@given(st.floats(0.3, 2), st.floats(-40, 40), st.integers(0, 9))
def test_brightness_and_contrast_leave_nothing(gain: float, offset: float, seed: int) -> None:
    image = np.random.default_rng(seed).integers(60, 180, (1, 8, 8, 3)).astype(np.float32)
    assert left(np.clip(gain * image + offset, 0, 255), image)[0] < 0.5
    other = np.random.default_rng(seed + 100).integers(60, 180, (1, 8, 8, 3)).astype(np.float32)
    assert left(image, other)[0] > 25


def test_a_negative_is_no_copy() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1)).astype(np.float32)
    assert left(255 - image, image)[0] == pytest.approx(image.std(), rel=1e-4)


def test_alignment_says_what_was_done(photographs: tuple[np.ndarray, ...]) -> None:
    real = photographs[0][:40]
    queries = np.stack([real[3], mirrored(real[4:5])[0], shifted(real[5:6])[0]])
    found = align(queries, real, np.tile(np.arange(10), (3, 1)))
    assert found.row.tolist() == [3, 4, 5]
    assert [found.name(i) for i in range(2)] == ["as it is", "mirrored"]
    assert found.name(2).startswith("shifted by")
    assert found.residual[0] < 1e-3 and found.ratio[1] < 1e-3


def test_no_query_and_grey_and_odd_shapes_are_aligned() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 40, 7, 1), dtype=np.uint8)
    known = Known(images)
    assert len(known.explain(images[:0]).row) == 0
    assert known.explain(images[:9]).row.tolist() == list(range(9))


def test_reduced_images_keep_their_mean_and_small_ones_stay() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 60, 45, 3), dtype=np.uint8)
    small = search.reduced(images, 32)
    assert small.shape == (5, 32, 24, 3)
    assert np.allclose(small.mean((1, 2)), images.mean((1, 2)), atol=0.01)
    assert np.array_equal(search.reduced(images[:, :20, :20], 32), images[:, :20, :20].astype(np.float32))
    assert np.array_equal(search.reduced(np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1), 2)[0, ..., 0], [[2.5, 4.5], [10.5, 12.5]])


@given(st.integers(1, 25), st.integers(2, 30), st.integers(1, 8), st.integers(0, 5))
def test_the_search_finds_what_a_loop_finds(queries: int, known: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two, rows = (rng.standard_normal((n, 4)).astype(np.float32) for n in (queries, queries, known))
    apart = np.minimum(*(((q[:, None] - rows[None]) ** 2).sum(2) for q in (one, two)))
    found = search.nearest([one, two], rows, count)
    assert found.shape == (queries, min(count, known))
    assert np.allclose(np.sort(np.take_along_axis(apart, found, 1), 1), np.sort(apart, 1)[:, :count], atol=1e-4)


@given(st.integers(2, 30), st.integers(0, 5))
def test_closest_others(count: int, seed: int) -> None:
    features = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)
    apart = np.sqrt(((features[:, None].astype(float) - features[None]) ** 2).sum(2))
    within, _ = search.closest(features, features)
    assert np.array_equal(within, np.zeros(count))
    np.fill_diagonal(apart, np.inf)
    found, rows = search.closest(features, features, others=True)
    assert np.allclose(found, apart.min(1), atol=1e-6)
    assert (rows != np.arange(count)).all()


def test_equal_finds_every_twin() -> None:
    known = np.random.default_rng(0).integers(0, 256, (30, 3, 3, 1), dtype=np.uint8)
    images = np.concatenate([known[[4, 4]], mirrored(known[9:10]), 255 - known[:2]])
    assert equal(known, images) == [(0, 4, False), (1, 4, False), (2, 9, True)]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.lists(st.integers(0, 5), min_size=2, max_size=30))
def test_the_curve_is_the_share_of_pairs_in_order(members: list[int], others: list[int]) -> None:
    found = membership.curve(np.array(members, float), np.array(others, float))
    pairs = [(a < b) + 0.5 * (a == b) for a in members for b in others]
    assert found.mean == pytest.approx(np.mean(pairs))
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_the_curves_interval_holds_what_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        found = membership.curve(rng.standard_normal(60), rng.standard_normal(80) + 1)
        hits += found.low <= 0.760250 <= found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_the_rate_at_one_percent() -> None:
    others = np.arange(100, 1100, dtype=float)
    assert membership.rate(np.array([0.0, 109, 110, 5000]), others).mean == 0.5
    assert np.isnan(membership.rate(others, others[:99]).mean)


def test_shares_in_words() -> None:
    assert wording.counted(0, 5000) == "0 of 5,000 (at most 0.06 %)"
    assert wording.counted(50, 5000) == "50 of 5,000 (1 %, 95 % interval 0.76 to 1.3)"
    assert wording.counted(0, 2) == "0 of 2 (at most 100.0 %)"
    assert wording.number(float("nan")) is None and wording.number(1.23456789) == 1.23457


@given(st.lists(st.integers(0, 4), max_size=60), st.lists(st.integers(0, 4), max_size=60), st.integers(1, 80))
def test_shared_rows_have_equal_classes(one: list[int], other: list[int], most: int) -> None:
    first, second = drawing.shared(np.array(one, np.int64), np.array(other, np.int64), most, 1)
    counts = [np.bincount(np.array(labels, np.int64)[rows], minlength=5) for labels, rows in ((one, first), (other, second))]
    assert np.array_equal(*counts)
    assert len(set(first.tolist())) == len(first) and len(set(second.tolist())) == len(second)
    full = np.minimum(*(np.bincount(labels, minlength=5) if labels else np.zeros(5, int) for labels in (one, other)))
    assert (counts[0] <= full).all()
    if full.sum() <= most:
        assert np.array_equal(counts[0], full)
    assert len(first) <= most + 3


@given(st.lists(st.integers(0, 4), max_size=60))
def test_halves_share_no_row_and_every_class(labels: list[int]) -> None:
    one, other = drawing.halves(np.array(labels, np.int64), 3)
    assert len(one) == len(other) == len(labels) // 2
    assert not set(one.tolist()) & set(other.tolist())
    counts = [np.bincount(np.array(labels, np.int64)[rows], minlength=5) for rows in (one, other)]
    assert np.abs(counts[0] - counts[1]).max() <= 1


def test_moves_are_named_in_words() -> None:
    found = alignment.Aligned(*(np.zeros(2) for _ in range(3)), np.array([[1.0, 0.1, -1.6], [0.9, 0, 0]]), np.array([False, True]))
    assert [found.name(0), found.name(1)] == ["shifted by 5.0 %", "mirrored, crop of 90 %"]
