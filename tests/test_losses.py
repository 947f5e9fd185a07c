"""Known answers for every objective."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from datagen.generators import losses

torch.manual_seed(0)
REAL, FAKE = torch.randn(64, dtype=torch.float64), torch.randn(64, dtype=torch.float64)


def slope(loss: object, *logits: torch.Tensor) -> list[torch.Tensor]:
    """Return the gradients of a loss of fresh copies of the logits."""
    fresh = [x.clone().requires_grad_() for x in logits]
    return list(torch.autograd.grad(loss(*fresh), fresh))  # type: ignore[operator]


def test_critic_is_two_log_two_at_even_odds() -> None:
    even = torch.zeros(10)
    assert losses.critic(even, even).item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert losses.relativistic_critic(even, even).item() == pytest.approx(math.log(2), abs=1e-6)


def test_critic_equals_its_definition() -> None:
    by_hand = -(torch.sigmoid(REAL).log().mean() + (1 - torch.sigmoid(FAKE)).log().mean())
    assert losses.critic(REAL, FAKE).item() == pytest.approx(by_hand.item(), abs=1e-12)
    assert losses.minimax(FAKE).item() == pytest.approx((1 - torch.sigmoid(FAKE)).log().mean().item(), abs=1e-12)
    assert losses.non_saturating(FAKE).item() == pytest.approx(-torch.sigmoid(FAKE).log().mean().item(), abs=1e-12)


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        (losses.critic, lambda r, f: (-(1 - torch.sigmoid(r)), torch.sigmoid(f))),
        (losses.hinge_critic, lambda r, f: (-(r < 1).double(), (f > -1).double())),
        (losses.relativistic_critic, lambda r, f: (-torch.sigmoid(f - r), torch.sigmoid(f - r))),
        (losses.relativistic_generator, lambda r, f: (torch.sigmoid(r - f), -torch.sigmoid(r - f))),
    ],
)
def test_gradients_of_pairs(loss: object, by_hand: object) -> None:
    for found, wanted in zip(slope(loss, REAL, FAKE), by_hand(REAL, FAKE), strict=True):  # type: ignore[operator]
        torch.testing.assert_close(found, wanted / len(REAL), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        (losses.minimax, lambda f: -torch.sigmoid(f)),
        (losses.non_saturating, lambda f: -(1 - torch.sigmoid(f))),
        (losses.hinge_generator, lambda f: -torch.ones_like(f)),
    ],
)
def test_gradients_of_generators(loss: object, by_hand: object) -> None:
    torch.testing.assert_close(slope(loss, FAKE)[0], by_hand(FAKE) / len(FAKE), atol=1e-6, rtol=0)  # type: ignore[operator]


def test_minimax_saturates_where_non_saturating_does_not() -> None:
    lost = torch.full((1,), -8.0)
    assert slope(losses.minimax, lost)[0].abs().item() < 1e-3
    assert slope(losses.non_saturating, lost)[0].abs().item() > 0.99


def test_gradient_penalty_of_a_linear_critic_is_the_square_of_its_weights() -> None:
    weights = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = losses.gradient_penalty((images * weights).sum(dim=(1, 2, 3)), images)
    assert penalty.item() == pytest.approx(weights.square().sum().item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(penalty, weights)
    torch.testing.assert_close(gradient, 2 * weights.detach())


def test_gradient_penalty_of_pairs_is_the_sum_of_both() -> None:
    real, fake = (torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    one, other = real.square().sum(dim=(1, 2, 3)), 3 * fake.square().sum(dim=(1, 2, 3))
    apart = losses.gradient_penalty(one, real) + losses.gradient_penalty(other, fake)
    assert losses.gradient_penalty(one + other, real, fake).item() == pytest.approx(apart.item(), rel=1e-12)


def test_gradient_penalty_of_a_quadratic_critic() -> None:
    images = torch.randn(6, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    penalty = losses.gradient_penalty(images.square().sum(dim=(1, 2, 3)), images)
    assert penalty.item() == pytest.approx(4 * images.detach().square().sum(dim=(1, 2, 3)).mean().item(), rel=1e-12)


def test_kl_equals_torch_and_monte_carlo() -> None:
    mean, log_variance = torch.randn(4, 6, dtype=torch.float64), 0.5 * torch.randn(4, 6, dtype=torch.float64)
    posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    found = losses.gaussian_kl(mean, log_variance)
    torch.testing.assert_close(found, kl_divergence(posterior, prior), atol=1e-9, rtol=0)
    draws = posterior.sample((40_000,))
    guess = (posterior.log_prob(draws) - prior.log_prob(draws)).mean(dim=0)
    torch.testing.assert_close(found, guess, atol=0.1, rtol=0.02)


def test_nats_equal_the_normal_density_of_torch() -> None:
    images, painted = torch.randn(3, 1, 5, 5, dtype=torch.float64), torch.randn(3, 1, 5, 5, dtype=torch.float64)
    wanted = -Normal(painted, math.sqrt(0.3)).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(losses.gaussian_nats(images, painted, 0.3), wanted, atol=1e-9, rtol=0)


def test_no_variance_explains_the_images_better_than_the_best() -> None:
    images, painted = torch.randn(8, 1, 6, 6, dtype=torch.float64), torch.randn(8, 1, 6, 6, dtype=torch.float64)
    best = losses.best_variance(images, painted)
    lowest = losses.gaussian_nats(images, painted, best).mean()
    assert all(losses.gaussian_nats(images, painted, best * f).mean() > lowest for f in (0.8, 0.95, 1.05, 1.25))


def test_elbo_weighs_kl_by_beta() -> None:
    nats, kl = torch.tensor([10.0, 20.0]), torch.tensor([1.0, 3.0])
    assert losses.elbo(nats, kl).item() == pytest.approx(17.0)
    assert losses.elbo(nats, kl, beta=0.5).item() == pytest.approx(16.0)


def test_perceptual_distance_looks_at_directions_alone() -> None:
    a = torch.randn(2, 5, 3, 3)
    assert losses.perceptual([a, a], [a, 7 * a]).item() == pytest.approx(0, abs=1e-6)
    assert losses.perceptual([a], [-a]).item() == pytest.approx(4, abs=1e-5), "opposite directions are two apart"
    across = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    across[0][0, 0], across[1][0, 1] = 1, 1
    assert losses.perceptual([across[0]], [across[1]]).item() == pytest.approx(2), "a right angle is the root of two apart"
