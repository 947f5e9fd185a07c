"""Near-copies of training images are told from fresh images by 64 numbers each."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from datagen.errors import ArtefactError
from datagen.recogniser import near, search

SHAPE = (3, 24, 24)


def scenes(count: int, seed: int) -> np.ndarray:
    """Return uint8 [count, 24, 24, 3]: smooth random pictures."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 200, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((24, 24), Image.Resampling.BICUBIC)) for each in coarse])


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    return scenes(3000, 1), np.arange(3000) % 4


@pytest.fixture(scope="module")
def reference(real: tuple[np.ndarray, np.ndarray]) -> near.Reference:
    return near.build(*real, np.arange(1000), np.arange(1000, 3000))


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda x: x, 0.99),
        (lambda x: x[:, :, ::-1], 0.99),
        (lambda x: np.stack([jpeg(each) for each in x]), 0.95),
        (lambda x: np.clip(x * 1.2, 0, 255).astype(np.uint8), 0.95),
        (lambda x: np.clip(x + np.random.default_rng(0).normal(0, 8, x.shape), 0, 255).astype(np.uint8), 0.95),
    ],
    ids=["exact", "mirrored", "JPEG 75", "brighter", "noisy"],
)
def test_planted_training_images_are_found(reference: near.Reference, real: tuple[np.ndarray, np.ndarray], change, least: float) -> None:
    planted = change(real[0][:200])
    found = [reference.copies(planted[real[1][:200] == k], k)[1].mean() for k in range(4)]
    assert np.mean(found) >= least


def test_fresh_images_are_not(reference: near.Reference) -> None:
    fresh = scenes(4000, 2)
    assert np.mean([reference.copies(fresh[k::4], k)[1].mean() for k in range(4)]) <= 0.002


def test_the_fewer_unseen_images_the_more_cautious_the_limit() -> None:
    scores = np.sort(np.random.default_rng(0).random(100_000) ** (1 / near.STEEPNESS))
    whole = near._limit(scores)
    assert np.isclose(whole, scores[100])
    few = [near._limit(np.random.default_rng(i).choice(scores, 50)) for i in range(200)]
    assert (scores < np.median(few)).mean() < 2 * near.ALARMS
    assert near._limit(np.zeros(0)) == 0.0


def test_distances_are_those_of_the_nearest_of_the_class(reference: near.Reference, real: tuple[np.ndarray, np.ndarray]) -> None:
    asked = scenes(20, 3)
    numbers = [search.descriptors(view, near.SIDE) @ reference.basis for view in (asked, asked[:, :, ::-1])]
    known = reference.numbers[reference.labels == 2]
    expected = np.min([np.linalg.norm(each[:, None] - known, axis=2).min(1) for each in numbers], axis=0)
    assert np.allclose(reference.look(asked, 2)[0], expected, atol=1e-3)
    distances, copies = reference.copies(asked, 9)
    assert np.isinf(distances).all() and not copies.any()


def test_a_smooth_image_of_a_class_that_hardly_varies_repeats_none() -> None:
    rng = np.random.default_rng(0)
    bases = scenes(2, 5)

    def drawn(label: int, count: int, sigma: float) -> np.ndarray:
        return np.clip(bases[label] + rng.normal(0, sigma, (count, *bases.shape[1:])), 0, 255).astype(np.uint8)

    sets = [(0, drawn(0, 60, 4)), (1, drawn(1, 400, 40))]  # the second sets the limit: its unseen images are far from all
    images, labels = np.concatenate([some for _, some in sets]), np.repeat([0, 1], [60, 400])
    built = near.build(images, labels, np.r_[0:55, 60:200], np.r_[200:460])
    smooth = np.repeat(bases[:1], 8, axis=0)
    assert (built.look(smooth, 0)[1] < built.limit).all() and not built.copies(smooth, 0)[1].any()
    assert built.copies(images[:55], 0)[1].all(), "its training images themselves are still told"


def test_a_class_of_one_image_and_no_unseen_ones_work() -> None:
    images = scenes(3, 4)
    alone = near.build(images, np.array([0, 1, 1]), np.arange(3), np.zeros(0, np.int64))
    assert alone.limit == 0 and not alone.copies(images, 0)[1].any()


def test_a_reference_comes_back_as_it_was(reference: near.Reference) -> None:
    raw = near.pack(reference)
    assert raw == near.pack(reference)
    again = near.unpack(raw, SHAPE, "here")
    assert np.array_equal(again.numbers, reference.numbers) and again.limit == reference.limit
    tensors = {"basis": reference.basis, "numbers": reference.numbers, "labels": reference.labels, "limit": np.array([0.1])}
    for bad in (b"no", raw[:-9], save(tensors | {"limit": np.array([np.nan])}), save({k: v for k, v in tensors.items() if k != "basis"})):
        with pytest.raises(ArtefactError):
            near.unpack(bad, SHAPE, "here")
    with pytest.raises(ArtefactError, match="does not fit"):
        near.unpack(raw, (1, 24, 24), "here")
