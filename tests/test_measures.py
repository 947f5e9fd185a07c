"""Distances with known answers and against an independent formula; planted copies are found among the nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import distance, neighbours
from datagen.evaluation.measures.distance import Distance, frechet, kernel, kernel_blocks, like
from datagen.evaluation.measures.neighbours import Neighbours, closest, equal


def exact(count: int, mean: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """Return features whose sample mean and covariance are exactly `mean` and `root @ root.T`."""
    raw = np.random.default_rng(seed).standard_normal((count, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(raw, rowvar=False)))).T
    return white @ root.T + mean


def test_frechet_of_two_normal_distributions_in_one_dimension() -> None:
    one, other = exact(500, np.array([1.0]), np.array([[2.0]]), 0), exact(300, np.array([4.0]), np.array([[0.5]]), 1)
    assert frechet(one, other) == pytest.approx((4 - 1) ** 2 + (2 - 0.5) ** 2, rel=1e-9)


def test_frechet_of_commuting_covariances() -> None:
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
    first, second = np.array([1.0, 2.0, 3.0, 0.5]), np.array([2.0, 1.0, 0.1, 4.0])
    one = exact(200, np.zeros(4), turn * first, 0)
    other = exact(220, np.array([1.0, 0, 0, 2.0]), turn * second, 1)
    assert frechet(one, other) == pytest.approx(5 + ((first - second) ** 2).sum(), rel=1e-9)
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("dimension", [2, 16, 40])
def test_frechet_equals_the_formula_with_a_matrix_root(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    one = rng.standard_normal((20 * dimension, dimension)) @ rng.standard_normal((dimension, dimension))
    other = rng.gamma(2.0, size=(15 * dimension, dimension)) + 0.3
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet(one, other) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_by_hand() -> None:
    one, other = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 0.0]])

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 2 + 1) ** 3)

    within = sum(k(a, b) for i, a in enumerate(one) for j, b in enumerate(one) if i != j) / 6
    within += sum(k(a, b) for i, a in enumerate(other) for j, b in enumerate(other) if i != j) / 2
    across = sum(k(a, b) for a in one for b in other) / 6
    assert kernel(one, other) == pytest.approx(within - 2 * across, rel=1e-12)


def test_kernel_distance_is_unbiased_about_zero_and_sees_a_shift() -> None:
    rng = np.random.default_rng(0)
    values = [kernel(rng.standard_normal((60, 5)), rng.standard_normal((60, 5))) for _ in range(200)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    shifted = [kernel(rng.standard_normal((60, 5)), rng.standard_normal((60, 5)) + 1) for _ in range(20)]
    assert min(shifted) > max(values)


def test_kernel_blocks_use_every_image_once() -> None:
    sizes: list[tuple[int, int]] = []
    features = np.zeros((1100, 3))
    kernel_blocks(features, features[:1050], lambda a, b: sizes.append((len(a), len(b))) or 0.0)  # type: ignore[func-returns-value]
    assert sizes == [(550, 525), (550, 525)]


@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(lambda c: sum(c) > 0),
    shares=st.lists(st.integers(0, 9), min_size=6, max_size=6),
    part=st.floats(0.05, 1),
)
def test_rows_are_drawn_in_the_real_proportions(counts: list[int], shares: list[int], part: float) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = np.array(shares[: len(counts)], float) + 1e-3
    weights /= weights.sum()
    size = max(1, int(part * len(labels)))
    rows = like(labels, weights, size, 7)
    assert len(set(rows.tolist())) == size
    got = np.bincount(labels[rows], minlength=len(counts))
    for label, have in enumerate(counts):
        assert got[label] >= min(have, int(weights[label] * size) - 1)


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def noise(count: int, seed: int, shift: int = 0) -> Labelled:
    rng = np.random.default_rng(seed)
    images = np.clip(rng.normal(120 + shift, 30, (count, 4, 4, 1)), 0, 255).astype(np.uint8)
    return Labelled(images, rng.integers(0, 3, count), tuple(f"{i}.png" for i in range(count)))


def context(synthetic: Labelled, real: Labelled | None = None) -> Context:
    return Context(("a", "b", "c"), real or noise(400, 0), synthetic, noise(300, 1), (), {"recogniser": flat})


def test_fresh_images_lie_at_the_floor_and_damaged_ones_above() -> None:
    for finding in Distance().measure(context(noise(500, 2))):
        assert abs(finding.details["value"] - finding.details["floor"]) < 4 * finding.details["floor_deviation"] + 0.5
        assert finding.details["images"] == 150
        assert "no farther" in finding.sentence
    for finding in Distance().measure(context(noise(500, 2, shift=40))):
        assert finding.low <= finding.estimate <= finding.high
        assert finding.details["value"] > finding.details["floor"] + 4 * finding.details["floor_deviation"]
        assert " farther" in finding.sentence and "no farther" not in finding.sentence
        assert "not FID" in finding.sentence


def test_too_few_images_give_no_distance() -> None:
    found = list(Distance().measure(context(noise(distance.FEWEST - 1, 2))))
    assert [f.details for f in found] == [{"images": distance.FEWEST - 1}] * 2
    assert all(np.isnan(f.estimate) for f in found)


def test_one_scale_for_all_parts() -> None:
    found = context(noise(50, 2))
    unseen = found.features("test", 1000)
    assert unseen.var(0).mean() == pytest.approx(1, rel=1e-4)
    assert np.abs(unseen.mean(0)).max() < 1e-4
    assert np.allclose(
        found.features("synthetic", 1000) * flat(found.test.images).var(0).mean() ** 0.5 + flat(found.test.images).mean(0),
        flat(found.synthetic.images),
        atol=1e-3,
    )
    assert len(found.features("synthetic", 20)) == 20
    assert np.array_equal(found.rows("synthetic", 20), context(noise(50, 2)).rows("synthetic", 20))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_closest_is_what_a_loop_finds(queries: int, known: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 3, (queries, 3)).astype(np.float32), rng.standard_normal((known, 3)).astype(np.float32)
    distances, rows = closest(a, b)
    brute = np.sqrt(((a[:, None].astype(np.float64) - b[None]) ** 2).sum(2))
    assert np.allclose(distances, brute.min(1), atol=1e-6)
    assert np.allclose(brute[np.arange(queries), rows], brute.min(1), atol=1e-6)


def test_blocks_do_not_change_what_is_closest(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 4)), rng.standard_normal((40, 4))
    whole = closest(a, b)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    assert all(np.array_equal(x, y) for x, y in zip(whole, closest(a, b), strict=True))


def test_planted_copies_are_found_and_named() -> None:
    real, fresh = noise(400, 0), noise(200, 2)
    planted = {13: 5, 77: 250, 150: 399}
    images = fresh.images.copy()
    for row, source in planted.items():
        images[row] = real.images[source]
    found = Neighbours().measure(context(Labelled(images, fresh.labels, fresh.names), real))
    assert found.details["equal_pixels"] == 3
    assert {(e["synthetic"]["row"], e["real"]["row"]) for e in found.details["equal"]} == set(planted.items())
    pairs = {(p["synthetic"]["name"], p["real"]["name"]): p for p in found.details["pairs"][:3]}
    assert set(pairs) == {(f"{row}.png", f"{source}.png") for row, source in planted.items()}
    assert all(p["distance"] == 0 and p["pixel_difference"] == 0 for p in pairs.values())
    assert found.details["near"] >= 3
    assert "3 have exactly a training image's pixels" in found.sentence


def test_fresh_images_are_no_copies() -> None:
    found = Neighbours().measure(context(noise(400, 2)))
    assert found.details["equal_pixels"] == 0
    assert found.low < 0.02
    assert found.estimate < 0.05


def test_near_copies_by_faint_noise_are_near() -> None:
    real, rng = noise(400, 0), np.random.default_rng(4)
    copies = np.clip(real.images[:100] + rng.integers(-3, 4, (100, 4, 4, 1)), 0, 255).astype(np.uint8)
    found = Neighbours().measure(context(Labelled(copies, real.labels[:100])))
    assert found.estimate > 0.95


def test_a_zero_states_its_bound() -> None:
    far = Labelled(np.full((100, 4, 4, 1), 255, np.uint8), np.zeros(100, np.int64))
    found = Neighbours().measure(context(far))
    assert found.details["near"] == 0
    assert "at most 3.7 %" in found.sentence


def test_equal_finds_every_twin() -> None:
    known = np.random.default_rng(0).integers(0, 256, (30, 3, 3, 1), dtype=np.uint8)
    images = np.concatenate([known[[4, 4, 9]], 255 - known[:2]])
    assert equal(known, images) == [(0, 4), (1, 4), (2, 9)]
