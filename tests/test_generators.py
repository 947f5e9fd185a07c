"""Layers, augmentation and priors that families share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.generators import layers, prior
from datagen.generators.augment import augment

SIDES = st.integers(8, 50)


@settings(max_examples=25)
@given(height=SIDES, width=SIDES, channels=st.sampled_from([1, 3]))
def test_towers_and_painters_take_any_size(height: int, width: int, channels: int) -> None:
    shape = (channels, height, width)
    images = layers.Painter(6, shape, 4)(torch.randn(2, 6))
    assert images.shape == (2, *shape)
    assert layers.Tower(shape, 4, 7)(images).shape == (2, 7)


def test_resolutions_halve_down_to_a_few_pixels() -> None:
    assert layers.resolutions(32, 32) == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert layers.resolutions(28, 28) == [(28, 28), (14, 14), (7, 7)]
    assert layers.resolutions(48, 64)[-1] == (6, 8)


def test_residual_starts_as_the_identity() -> None:
    images = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(layers.Residual(4)(images), images)


@pytest.mark.parametrize("policy", ["translate", "cutout", "colour", "translate,cutout,colour"])
def test_augmentation_keeps_shape_and_passes_gradients(policy: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 16, 12, requires_grad=True)
    changed = augment(images, policy)
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    changed.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_no_augmentation_is_the_identity() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert augment(images, "none") is images
    assert augment(images, None) is images


def test_translation_moves_whole_pixels() -> None:
    torch.manual_seed(1)
    images = torch.zeros(64, 1, 16, 16)
    images[:, :, 8, 8] = 1
    moved = augment(images, "translate")
    assert moved.sum().item() == 64
    places = {tuple(place[2:].tolist()) for place in moved.nonzero()}
    assert len(places) > 10
    assert all(abs(row - 8) <= 2 and abs(column - 8) <= 2 for row, column in places)


def test_prior_has_the_moments_of_the_aggregate_posterior() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0] * 4000 + [1] * 4000)
    mix = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    means = torch.randn(8000, 2) @ mix.T + torch.stack([labels * 5.0, labels * -3.0], dim=1)
    fitted = prior.ClassGaussians(2, 2)
    fitted.fit(means, torch.full((8000, 2), 0.25), labels)
    drawn = fitted(torch.ones(40_000, dtype=torch.long), torch.randn(40_000, 2))
    torch.testing.assert_close(drawn.mean(dim=0), torch.tensor([5.0, -3.0]), atol=0.15, rtol=0)
    torch.testing.assert_close(torch.from_numpy(np.cov(drawn.numpy().T)).float(), mix @ mix.T + 0.25 * torch.eye(2), atol=0.3, rtol=0)


def test_prior_of_a_class_with_one_image_borrows_the_pooled_spread() -> None:
    torch.manual_seed(0)
    means = torch.cat([torch.randn(500, 3), torch.tensor([[9.0, 9.0, 9.0]])])
    fitted = prior.ClassGaussians(2, 3)
    fitted.fit(means, torch.full((501, 3), 0.01), torch.tensor([0] * 500 + [1]))
    drawn = fitted(torch.ones(5000, dtype=torch.long), torch.randn(5000, 3))
    torch.testing.assert_close(drawn.mean(dim=0), torch.full((3,), 9.0), atol=0.1, rtol=0)
    assert 0.7 < drawn.std(dim=0).mean() < 1.3


def test_guidance_moves_classes_apart_and_spread_scales() -> None:
    fitted = prior.ClassGaussians(2, 2)
    fitted.mean[1] = 4.0
    still = torch.zeros(1, 2)
    one = torch.tensor([1])
    assert fitted(one, still, 1.0, 0.0)[0, 0].item() == pytest.approx(4.0)
    assert fitted(one, still, 1.0, 0.5)[0, 0].item() == pytest.approx(5.0)
    assert fitted(one, torch.ones(1, 2), 0.5, 0.0)[0, 0].item() == pytest.approx(4.5)
