"""Fidelity, coverage and separability: known answers, independent packages on the same features, floors and errors that hold."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import coverage, fidelity, separability
from datagen.evaluation.measures.coverage import Coverage, prdc
from datagen.evaluation.measures.fidelity import Fidelity, frechet, frechet_error, frechet_infinite, kernel, kernel_error
from datagen.evaluation.measures.separability import Separability, told, z_of


def exact(count: int, mean: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """Return features whose sample mean and covariance are exactly `mean` and `root @ root.T`."""
    raw = np.random.default_rng(seed).standard_normal((count, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(raw, rowvar=False)))).T
    return white @ root.T + mean


def skewed(count: int, dimension: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    one = rng.standard_normal((count, dimension)) @ rng.standard_normal((dimension, dimension))
    return one, rng.gamma(2.0, size=(count, dimension)) + 0.3


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
    one, other = skewed(15 * dimension, dimension, dimension)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet(one, other) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dimension", [8, 32])
def test_distances_equal_torch_fidelity(dimension: int) -> None:
    pytest.importorskip("torch_fidelity")
    import torch
    from torch_fidelity import metric_fid, metric_kid

    one, other = skewed(10 * dimension, dimension, dimension)
    moments = [metric_fid.fid_features_to_statistics(torch.from_numpy(side)) for side in (one, other)]
    theirs = metric_fid.fid_statistics_to_metric(*moments, verbose=False)[metric_fid.KEY_METRIC_FID]
    assert frechet(one, other) == pytest.approx(theirs, rel=1e-6)
    settings = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    assert kernel(one, other) == pytest.approx(metric_kid.kernel_mmd(one, other, **settings), rel=1e-6)


def test_kernel_distance_equals_scikit_learn() -> None:
    from sklearn.metrics.pairwise import polynomial_kernel

    one, other = skewed(160, 16, 0)
    within = [polynomial_kernel(side, degree=3, gamma=1 / 16, coef0=1) for side in (one, other)]
    expected = sum((k.sum() - np.trace(k)) / (160 * 159) for k in within) - 2 * polynomial_kernel(one, other, degree=3, gamma=1 / 16, coef0=1).mean()
    assert kernel(one, other) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_by_hand() -> None:
    one, other = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 0.0]])

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 2 + 1) ** 3)

    within = sum(k(a, b) for i, a in enumerate(one) for j, b in enumerate(one) if i != j) / 6
    within += sum(k(a, b) for i, a in enumerate(other) for j, b in enumerate(other) if i != j) / 2
    across = sum(k(a, b) for a in one for b in other) / 6
    assert kernel(one, other) == pytest.approx(within - 2 * across, rel=1e-12)


@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 9))
def test_parts_do_not_change_the_kernel_distance(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 0.3
    assert kernel_error(one, other)[0] == pytest.approx(kernel(one, other), rel=1e-9, abs=1e-12)


def test_kernel_distance_is_unbiased_and_its_error_is_what_it_varies_by() -> None:
    rng = np.random.default_rng(0)
    for shift, low, high in ((0.0, 0.8, 2.0), (0.7, 0.8, 1.3)):
        found = np.array([kernel_error(rng.standard_normal((80, 4)), rng.standard_normal((80, 4)) + shift) for _ in range(150)])
        assert low < found[:, 1].mean() / found[:, 0].std() < high
        if not shift:
            assert abs(found[:, 0].mean()) < 3 * found[:, 0].std() / np.sqrt(150)
            assert found[:, 0].min() < 0 < found[:, 0].max()


def test_the_extrapolated_frechet_distance_loses_the_bias() -> None:
    rng = np.random.default_rng(1)
    draws = [(rng.standard_normal((400, 8)), rng.standard_normal((400, 8))) for _ in range(40)]
    plain, infinite = (np.array([of(*pair) for pair in draws]) for of in (frechet, frechet_infinite))
    assert plain.mean() > 0.05
    assert abs(infinite.mean()) < 0.1 * plain.mean()
    shifted = np.array([frechet_infinite(one, other + 1) for one, other in draws])
    assert shifted.mean() == pytest.approx(8, rel=0.03)


def test_the_error_of_the_frechet_distance_is_what_it_varies_by() -> None:
    rng = np.random.default_rng(2)
    found = np.array([frechet_error(rng.standard_normal((200, 4)), 1.3 * rng.standard_normal((200, 4)) + 0.5) for _ in range(40)])
    assert 0.7 < found[:, 1].mean() / found[:, 0].std() < 1.5


def test_leading_components_are_the_widest() -> None:
    features = np.random.default_rng(0).standard_normal((500, 4)) * [1, 5, 0.1, 3]
    basis = fidelity.leading(features, 2)
    assert np.allclose(np.abs(basis), np.array([[0, 0], [1, 0], [0, 0], [0, 1]]), atol=0.15)
    assert np.array_equal(fidelity.leading(features, 4), np.eye(4))


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize(("n", "m"), [(200, 200), (700, 150)])
def test_precision_recall_density_coverage_equal_their_authors_package(n: int, m: int, k: int) -> None:
    from prdc import compute_prdc

    rng = np.random.default_rng(n + k)
    real, other = rng.standard_normal((n, 6)), rng.standard_normal((m, 6)) * 0.8 + 0.4
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute_prdc(real, other, nearest_k=k)
    ours = {name: values.mean() for name, values in prdc(real, other, k).items()}
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], rel=1e-12), name


def test_a_tight_cluster_is_precise_and_covers_little() -> None:
    rng = np.random.default_rng(0)
    real, tight = rng.standard_normal((400, 4)), 0.2 * rng.standard_normal((400, 4))
    found = {name: values.mean() for name, values in prdc(real, tight, 5).items()}
    assert found["precision"] > 0.95 and found["density"] > 1.2
    assert found["recall"] < 0.2 and found["coverage"] < 0.3
    alike = prdc(real, rng.standard_normal((400, 4)), 5)["coverage"].mean()
    assert alike == pytest.approx(1 - 2**-5, abs=0.03)


def test_radii_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.arange(10.0)[:, None]
    assert coverage.radii(points, 2).tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1, 2]
    features = np.random.default_rng(0).standard_normal((60, 3))
    whole = prdc(features, features + 0.1, 3)
    monkeypatch.setattr(coverage, "BLOCK", 7)
    parts = prdc(features, features + 0.1, 3)
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_alike_sets_are_not_told_apart_and_a_shift_is() -> None:
    rng = np.random.default_rng(0)
    z = [z_of(told(rng.standard_normal((150, 3)), rng.standard_normal((150, 3)), seed)) for seed in range(40)]
    assert abs(np.mean(z)) < 0.6 and 0.6 < np.std(z) < 1.5
    far = told(rng.standard_normal((150, 3)), rng.standard_normal((150, 3)) + np.array([2, 0, 0]))
    assert far.mean() == pytest.approx(0.841, abs=0.05)
    assert z_of(np.array([True] * 75 + [False] * 25)) == 5


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def half(images: np.ndarray) -> np.ndarray:
    return images[:, :2].reshape(len(images), -1).astype(np.float32)


def noise(count: int, seed: int, shift: int = 0, spread: float = 30) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = np.clip(rng.normal(120 + shift + 15 * labels[:, None, None, None], spread, (count, 4, 4, 1)), 0, 255).astype(np.uint8)
    return Labelled(images, labels)


def context(synthetic: Labelled) -> Context:
    return Context(("a", "b", "c"), noise(400, 0), synthetic, noise(400, 1), (), {"recogniser": flat, "random": half})


@pytest.mark.parametrize("measure", [Fidelity, Coverage, Separability])
def test_fresh_images_are_at_the_floor_and_damaged_ones_depart(measure: type) -> None:
    fresh, damaged = (list(measure().measure(context(noise(500, 2, shift)))) for shift in (0, 40))
    assert [f.measure.split()[-1] for f in fresh[:: len(fresh) // 2]] == ["recogniser", "random"]
    assert not any(f.details["departs"] for f in fresh)
    assert all(f.details["departs"] for f in damaged)
    assert all(f.low <= f.estimate <= f.high for f in [*fresh, *damaged])


def test_both_distances_have_one_n_and_a_floor_about_nothing() -> None:
    for finding in Fidelity().measure(context(noise(500, 2))):
        assert finding.details["images"] == 200
        assert abs(finding.details["floor"]) < 4 * finding.details["floor_error"]
        assert "no farther" in finding.sentence and "FID" not in finding.sentence
    for finding in Fidelity().measure(context(noise(120, 2))):
        assert finding.details["images"] == 120


def test_coverage_speaks_of_the_class_that_is_missing_variety() -> None:
    made = noise(600, 2)
    made.images[made.labels == 1] = made.images[np.flatnonzero(made.labels == 1)[0]]
    first = next(iter(Coverage().measure(context(made)))).details
    assert first["thinnest"][0] == "b"
    rows = {row["class"]: row for row in first["per_class"]}
    assert rows["b"]["coverage"] < 0.2
    assert rows["a"]["coverage"] > 0.7
    assert rows["b"]["coverage_floor"] > 0.8


@pytest.mark.parametrize(("measure", "fewest"), [(Fidelity, fidelity.FEWEST), (Coverage, coverage.FEWEST), (Separability, separability.FEWEST)])
def test_too_few_images_give_a_sentence(measure: type, fewest: int) -> None:
    found = list(measure().measure(context(noise(fewest - 1, 2))))
    assert found and all(np.isnan(f.estimate) and "too few" in f.sentence for f in found)
