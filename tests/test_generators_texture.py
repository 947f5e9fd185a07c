"""What a decoder leaves out, in a few numbers: which directions, what comes back, and that images drawn with it look as the training images do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datagen.contracts import Spec, State
from datagen.generators import prior
from datagen.generators.texture import Texture
from datagen.generators.vae import VAE
from datagen.records import Recipe


def test_the_directions_are_the_leading_ones() -> None:
    rng = np.random.default_rng(0)
    left = rng.normal(size=(300, 48)) * np.array([10.0] * 6 + [1.0] * 42) @ np.linalg.qr(rng.normal(size=(48, 48)))[0]
    texture = Texture(6, (3, 4, 4))
    torch.manual_seed(0)
    texture.fit(torch.from_numpy(left).float().view(300, 3, 4, 4))
    leading = np.linalg.svd(left, full_matrices=False)[2][:6]
    torch.testing.assert_close(texture.basis @ texture.basis.T, torch.eye(6), atol=1e-4, rtol=0)
    wanted = torch.from_numpy(leading.T @ leading).float()
    torch.testing.assert_close(texture.basis.T @ texture.basis, wanted, atol=1e-2, rtol=0)


def test_what_lies_in_few_directions_comes_back_and_fewer_images_than_directions_will_do() -> None:
    torch.manual_seed(0)
    left = torch.randn(200, 3) @ torch.randn(3, 1 * 5 * 7)
    texture = Texture(8, (1, 5, 7))
    for some in (left, left[:4]):
        texture.fit(some.view(-1, 1, 5, 7))
        torch.testing.assert_close(texture(texture.numbers(some.view(-1, 1, 5, 7))), some, atol=1e-3, rtol=0)
    assert (texture.basis[4:] == 0).all()


def test_large_images_take_bounded_memory() -> None:
    texture = Texture(1, (3, 64, 64))
    assert texture.every(100) == 1
    assert 60_000 / texture.every(60_000) * 3 * 64 * 64 <= 16_000_000


def test_no_direction_leads_to_a_single_neighbour() -> None:
    torch.manual_seed(0)
    points = torch.randn(200, 6)
    local = prior.LocalGaussians([200], 6)
    local.fit(points, torch.full_like(points, 1e-4), torch.zeros(200, dtype=torch.long))
    ends = local.mean[:, None] + local.along.float() * (prior.NEIGHBOURS - 1) ** 0.5
    nearest = torch.cdist(ends.flatten(0, 1), points).min(dim=1).values
    assert (nearest < 1e-2).float().mean() < 0.01, "before they are turned, every one of them ends at a training image"
    anchor = points[torch.cdist(local.mean[:1], points).argsort()[0]]
    assert anchor.shape == (200, 6)
    near = points[torch.cdist(points[:1], points).topk(prior.NEIGHBOURS, largest=False).indices[0]]
    along = local.along[0].float()
    torch.testing.assert_close(along.T @ along, torch.cov(near.T), atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("texture", [0, 40])
def test_images_drawn_with_texture_vary_as_the_training_images_do(texture: int) -> None:
    """The decoder is untrained here, so that all detail is left out by it."""
    rng = np.random.default_rng(0)
    labels = torch.arange(2).repeat_interleave(400)
    waves = np.sin(np.arange(256).reshape(16, 16) * rng.uniform(0.5, 3, (2, 5))[:, :, None, None])
    images = np.einsum("nk,nkhw->nhw", rng.normal(0, 0.2, (800, 5)), waves[labels.numpy()])
    pictures = torch.from_numpy(images[:, None]).float().clamp(-1, 1)
    family, recipe = VAE(), Recipe(family="vae", device="cpu", texture=texture, width=8, latent=4)
    spec = Spec(2, (1, 16, 16), (400, 400), recipe)
    spec = Spec(2, spec.shape, spec.counts, recipe.planned(**family.plan(spec)))
    torch.manual_seed(0)
    state = State(spec)
    for stage in family.stages(spec):
        stage.build(state)
    family.finish(state, lambda batch: zip(pictures.split(batch), labels.split(batch), strict=True))
    with torch.no_grad():
        drawn = family.sample(state, labels, torch.randn(800, family.noise(spec)), 1.0, 0.0)
    for label in range(2):
        real, made = pictures[labels == label], drawn[labels == label]
        share = (made.var(dim=0).sum() / real.var(dim=0).sum()).item()
        assert (0.8 < share < 1.1) if texture else share < 0.1
        if texture:
            torch.testing.assert_close(torch.cov(made.flatten(1).T), torch.cov(real.flatten(1).T), atol=0.06, rtol=0.3)
