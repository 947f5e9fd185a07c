"""What fit chooses by usefulness, and the filter that travels with a generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load

from datagen.errors import ArtefactError
from datagen.recogniser import stored
from datagen.recogniser.fit import Settings, fit
from datagen.training import selection
from datagen.training.selection import How, Part, select

Draw = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def sides(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images that are bright above (0) or below (1)."""
    images = rng.integers(0, 60, (len(labels), 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 150
    return images


def part(count: int, seed: int) -> Part:
    labels = np.arange(count) % 2
    return Part(sides(labels, np.random.default_rng(seed)), labels)


def drawing(wrong: float, good_spread: float = 1.0) -> Draw:
    """Return a generator that draws the other class in a share of its images, and in all of them at any but one spread."""

    def draw(labels: np.ndarray, places: np.ndarray, spread: float) -> np.ndarray:
        rng = np.random.default_rng(int(places[0]) + 1000 * int(labels[0]))
        swapped = rng.random(len(labels)) < (wrong if spread == good_spread else 1.0)
        return sides(np.where(swapped, 1 - labels, labels), rng)

    return draw


def selected(draw: Draw, count: int = 80) -> selection.Selected:
    return select(part(120, 0), part(count, 1), draw, classes=2, how=How(60, 1200, "contiguous", 0, "cpu"))


def test_wrong_images_are_filtered_where_that_helps() -> None:
    found = selected(drawing(0.7))
    assert found.chosen["confidence"]["value"] == 0.6 and found.chosen["spread"]["value"] == 1.0
    assert found.chosen["expected"]["synthetic"] > 0.9 and found.chosen["expected"]["real"] > 0.9
    assert set(found.chosen["augment"]) == {"spread", "confidence"} and "real + synthetic" in found.chosen["augment"]["spread"]["why"]
    assert all(set(each) == set(selection.MODES) for each in found.scores.values())
    assert "to expect" in found.sentence and "80 select images" in found.chosen["spread"]["why"]


def test_with_few_steps_nothing_is_chosen_for_augment() -> None:
    found = select(part(120, 0), part(80, 1), drawing(0.7), classes=2, how=How(60, 1200, "contiguous", 0, "cpu", modes=1))
    assert found.chosen["confidence"]["value"] == 0.6 and found.chosen["augment"]["confidence"]["value"] == 0.0
    assert "too few" in found.chosen["augment"]["confidence"]["why"] and all(set(each) == {"replace"} for each in found.scores.values())


def test_the_spread_that_is_better_is_taken() -> None:
    found = selected(drawing(0.0, good_spread=1.3))
    assert found.chosen["spread"]["value"] == 1.3


def test_a_confidence_that_hardly_any_image_of_a_class_reaches_is_not_chosen() -> None:
    found = selected(drawing(0.9))
    assert found.chosen["confidence"]["value"] == 0.0 and (1.0, 0.6) not in found.scores
    assert "confidence 0.6 not tried: of some class only" in found.chosen["confidence"]["why"]


def test_where_nothing_is_better_all_stays_as_trained() -> None:
    found = selected(drawing(0.0))
    assert (found.chosen["spread"]["value"], found.chosen["confidence"]["value"]) == (1.0, 0.0)


def test_one_image_decides_nothing_and_many_do() -> None:
    plain, other = np.arange(100) < 90, np.arange(100) < 91
    assert selection._best({(1.0, 0.0): plain, (1.3, 0.0): other}) == (1.0, 0.0)
    assert selection._best({(1.0, 0.0): plain, (1.3, 0.0): np.arange(100) < 95}) == (1.3, 0.0)
    assert selection._best({(1.0, 0.0): np.arange(100) < 50, (1.3, 0.0): np.arange(100) >= 47}) == (1.0, 0.0), "many change, few gain"
    many = np.arange(5000)
    assert selection._best({(1.0, 0.0): many < 4000, (1.3, 0.6): many < 4090}) == (1.0, 0.0), "a short judge's small gain, however sure"
    assert selection._best({(1.0, 0.0): many < 4000, (1.3, 0.6): many < 4110}) == (1.3, 0.6)


def test_too_few_select_images_choose_nothing() -> None:
    found = selected(drawing(0.7), count=20)
    assert (found.chosen["spread"]["value"], found.chosen["confidence"]["value"], found.sentence) == (1.0, 0.0, "")
    assert "too few" in found.chosen["spread"]["why"] and "expected" not in found.chosen
    assert (found.filter.predict(part(40, 5).images).argmax(1) == part(40, 5).labels).mean() > 0.9


def test_accepted_rows_are_the_first_sure_ones_then_the_surest() -> None:
    labels, sure = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0.1, 0.9, 0.5, 0.8, 0.2, 0.3, 0.1])
    assert selection._accepted(labels, sure, np.array([3, 2]), 0.6).tolist() == [1, 3, 2, 5, 4]
    assert selection._accepted(labels, sure, np.array([2, 1]), 0.0).tolist() == [0, 1, 4]


def test_steps_stay_within_bounds() -> None:
    assert selection.planned(0) == {"steps": selection.FEWEST_STEPS, "modes": 1}
    assert selection.planned(1e9) == {"steps": selection.MOST_STEPS, "modes": 2}
    assert selection.planned(100 * selection.runs(1) * selection.BATCH) == {"steps": 100, "modes": 1}
    assert selection.planned(200 * selection.runs(2) * selection.BATCH) == {"steps": 200, "modes": 2}
    assert (selection.drawn(0), selection.drawn(6 * 1000), selection.drawn(1e9)) == (300, 1000, 2500)


def test_a_filter_comes_back_as_it_was() -> None:
    real = part(60, 0)
    fitted = fit(real.images, real.labels, classes=2, settings=Settings(steps=5, batch=16, width=stored.WIDTH), seed=0)
    raw = stored.pack(fitted)
    assert raw == stored.pack(fitted)
    again = stored.unpack(load(raw), 2, (1, 8, 8), "cpu", "here")
    assert np.array_equal(again.predict(real.images), fitted.predict(real.images))
    for bad in ({}, {k: v for k, v in load(raw).items() if k != "mean"}, load(raw) | {"mean": torch.tensor([float("nan")])}):
        with pytest.raises(ArtefactError):
            stored.unpack(bad, 2, (1, 8, 8), "cpu", "here")
    with pytest.raises(ArtefactError, match="does not fit"):
        stored.unpack(load(raw), 3, (1, 8, 8), "cpu", "here")
