"""Local Gaussians over latents: how many, what they follow, and what they keep of single images."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datagen.generators import prior
from datagen.generators.texture import Texture


def ring(count: int, radius: float) -> torch.Tensor:
    angles = 2 * torch.pi * torch.rand(count)
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def fitted(points: torch.Tensor, labels: torch.Tensor, classes: int) -> prior.LocalGaussians:
    found = prior.LocalGaussians(torch.bincount(labels, minlength=classes).tolist(), points.shape[1])
    found.fit(points, torch.full_like(points, 1e-4), labels)
    return found


def test_local_gaussians_follow_a_ring_that_one_gaussian_fills() -> None:
    torch.manual_seed(0)
    points, labels = torch.cat([ring(2000, 1.0), ring(2000, 3.0)]), torch.arange(2).repeat_interleave(2000)
    local, one = fitted(points, labels, 2), prior.ClassGaussians(2, 2)
    one.fit(points, torch.full_like(points, 1e-4), labels)
    for label, radius in enumerate((1.0, 3.0)):
        asked = torch.full((4000,), label)
        drawn = local(asked, torch.randn(4000, 2 + prior.EXTRA)).norm(dim=1)
        assert drawn.mean().item() == pytest.approx(radius, rel=0.05) and drawn.std().item() < 0.1 * radius
        assert one(asked, torch.randn(4000, 2)).norm(dim=1).std().item() > 0.3 * radius


def test_the_last_number_of_noise_says_which_and_all_are_drawn() -> None:
    torch.manual_seed(0)
    local = fitted(ring(600, 1.0), torch.zeros(600, dtype=torch.long), 1)
    local.mean[:, 0] = torch.arange(60)
    still = torch.zeros(5000, 2 + prior.EXTRA)
    still[:, -1] = torch.randn(5000)
    places = local(torch.zeros(5000, dtype=torch.long), still)
    assert len(places.unique(dim=0)) == int(local.many[0]) == 60
    still[0, -1], still[1, -1] = -40, 40
    ends = local(torch.zeros(2, dtype=torch.long), still[:2])
    torch.testing.assert_close(ends, local.mean[[0, -1]])


def test_no_mean_is_a_training_image_and_spread_and_guidance_move_what_they_should() -> None:
    torch.manual_seed(0)
    points, labels = torch.randn(400, 8), torch.arange(2).repeat_interleave(200)
    points[200:] += 5
    local = fitted(points, labels, 2)
    assert torch.cdist(local.mean, points).min() > 0.1
    noise, asked = torch.randn(3000, 8 + prior.EXTRA), torch.ones(3000, dtype=torch.long)
    plain, narrow, moved = local(asked, noise), local(asked, noise, 0.5), local(asked, noise, 1.0, 0.5)
    torch.testing.assert_close(narrow - local.centre[1], 0.5 * (plain - local.centre[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved - plain, (0.5 * (local.centre[1] - local.centre.mean(0))).expand(3000, 8), atol=1e-5, rtol=0)


def test_a_class_of_few_images_borrows_deviations_of_the_others() -> None:
    """So that it spreads as they do, and not within the handful of directions that its own images have."""
    torch.manual_seed(0)
    points, labels = torch.randn(405, 6), torch.tensor([0] * 400 + [1] * 5)
    points[400:] = 7 + 0.1 * points[400:]
    local = fitted(points, labels, 2)
    drawn = local(torch.ones(20_000, dtype=torch.long), torch.randn(20_000, 6 + prior.EXTRA))
    assert local.many.tolist() == [40, 1]
    torch.testing.assert_close(drawn.mean(dim=0), points[400:].mean(dim=0), atol=0.05, rtol=0)
    own, lent = points[400:].T.cov(), points[prior._spaced(400, prior.NEIGHBOURS - 5)] - points[:400].mean(dim=0)
    wanted = (5 * own + lent.T @ lent * (400 / 399)) / prior.NEIGHBOURS
    torch.testing.assert_close(drawn.T.cov(), wanted + 1e-4 * torch.eye(6), atol=0.05, rtol=0)
    assert torch.linalg.eigvalsh(drawn.T.cov())[0] > 0.1 and torch.linalg.eigvalsh(own)[0] < 1e-6


def test_a_class_of_few_images_borrows_no_texture() -> None:
    """Which would draw another class's edges: what lies beside its own images' textures stays empty."""
    torch.manual_seed(0)
    labels, textures = torch.tensor([0] * 60 + [1] * 3), torch.randn(63, 2)
    textures[60:, 1] = 4
    local = prior.LocalGaussians([60, 3], 6, Texture(2, (1, 4, 4)))
    local.fit(torch.randn(63, 6), torch.full((63, 6), 1e-4), labels, textures)
    drawn = local(torch.ones(5000, dtype=torch.long), torch.randn(5000, 6 + prior.EXTRA))[:, 6:]
    assert drawn[:, 0].std() > 0.1 * textures[60:, 0].std() and drawn[:, 1].std() < 1e-2


@pytest.mark.parametrize("counts", [[1], [3], [1, 1], [1, 40]])
def test_as_few_as_one_image_of_a_class_are_enough(counts: list[int]) -> None:
    torch.manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    local = fitted(torch.randn(len(labels), 4), labels, len(counts))
    asked = torch.arange(len(counts)).repeat(100)
    drawn = local(asked, torch.randn(len(asked), 4 + prior.EXTRA))
    assert drawn.isfinite().all() and (drawn.std(dim=0) > 0.005).all()


def test_every_gaussian_is_fitted_where_fewer_images_are_looked_at_than_there_are_gaussians() -> None:
    """As for a picture while a stage trains, and in sets of millions."""
    torch.manual_seed(0)
    local, points = prior.LocalGaussians([1000], 3), torch.randn(40, 3) + 10
    local.fit(points, torch.full_like(points, 1e-4), torch.zeros(40, dtype=torch.long))
    assert len(local.mean) == 100 and local.mean.min() > 5


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=50), st.integers(1, 512))
def test_components_are_bounded(counts: list[int], latent: int) -> None:
    found = prior.components(counts, latent)
    assert len(found) == len(counts) and min(found) >= 1
    assert sum(many for many in found if many > 1) * latent * (prior.NEIGHBOURS + 1) <= prior.NUMBERS
    assert all(many == 1 or many * prior.EACH <= count for many, count in zip(found, counts, strict=True))


OUTLINES = """
import sys, torch
from datagen import registry
from datagen.contracts import Spec, State
from datagen.records import Recipe
from datagen.synthesis.generator import _unfilled
for name in ("vae", "cvae", "dcgan", "gan"):
    family = registry.load("families", name)()
    spec = Spec(3, (3, 32, 32), (50, 60, 9), Recipe(family=name, device="cpu"))
    spec = Spec(3, spec.shape, spec.counts, spec.recipe.planned(**family.plan(spec)))
    for device in ("meta", "cpu"):
        state = State(spec, trains=False)
        with torch.device(device), _unfilled():
            for stage in family.stages(spec):
                stage.build(state)
        assert state.modules and not state.optimizers
assert "torch._dynamo" not in sys.modules, "seconds for every process that samples"
"""


def test_outlines_and_nets_to_sample_from_need_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", OUTLINES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
