"""The rule `shapes`: its shapes are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.rules.shapes import Shapes


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("circle", np.pi / 4),
        ("diamond", 0.5),
        ("square", 1.0),
        ("triangle", 0.5),
        ("ring", np.pi / 4 * 0.7),
        ("cross", 0.51),
    ],
)
def test_the_mask_fills_its_box_as_the_shape_does(name: str, share: float) -> None:
    rule = Shapes()
    shares = []
    for seed in range(40):
        drawn = rule.draw(seed, rule.classes.index(name))
        assert drawn.mask is not None and drawn.box is not None
        left, top, right, bottom = drawn.box
        shares.append((drawn.mask > 0).sum() / ((right - left) * (bottom - top)))
    assert abs(np.mean(shares) - share) < 0.06


def test_the_shape_stands_out_from_its_ground() -> None:
    rule = Shapes()
    for seed in range(60):
        drawn = rule.draw(seed, seed % len(rule.classes))
        assert drawn.mask is not None
        inside, outside = drawn.image[drawn.mask > 0].mean(axis=0), drawn.image[drawn.mask == 0].mean(axis=0)
        assert np.abs(inside - outside).max() > 40


def test_places_and_sizes_vary() -> None:
    boxes = np.array([Shapes().draw(seed, 0).box for seed in range(100)])
    assert boxes[:, :2].std(axis=0).min() > 2
    assert (boxes[:, 2] - boxes[:, 0]).std() > 2
