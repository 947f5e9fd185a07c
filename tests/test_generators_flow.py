"""The flow over latents: known answers for its loss and its paths, and what it learns."""

from __future__ import annotations

import math

import pytest
import torch

from datagen.generators.flow import Flow


class Growing(Flow):
    """A flow with a known velocity: everything grows at a rate of its class."""

    def velocity(self, x: torch.Tensor, time: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return x * labels[:, None]


def test_a_known_velocity_is_followed() -> None:
    flow = Growing(2, 4)
    flow.mean.fill_(10.0)
    flow.deviation.fill_(2.0)
    noise = torch.linspace(-2, 2, 4).repeat(2, 1)
    still, grown = flow(torch.tensor([0, 1]), noise)
    torch.testing.assert_close(still, 10 + 2 * noise[0])
    torch.testing.assert_close(grown, 10 + 2 * math.e * noise[1], rtol=0, atol=0.03)
    more = flow(torch.tensor([1]), noise[1:], guidance=0.5)[0]
    torch.testing.assert_close(more, 10 + 2 * math.exp(0.5) * noise[1], rtol=0, atol=0.03)
    torch.testing.assert_close(flow(torch.tensor([0]), noise[:1], spread=0.5)[0], 10 + noise[0])


def test_the_loss_of_a_flow_that_stands_still_is_the_variance_of_data_and_noise() -> None:
    torch.manual_seed(0)
    flow = Flow(2, 3, width=8, blocks=1)
    latents = 2 * torch.randn(20_000, 3)
    assert flow.loss(latents, torch.zeros(20_000, dtype=torch.long)).item() == pytest.approx(4 + 1, rel=0.05), "its last map begins at zero"


def test_scale_makes_latents_standard() -> None:
    torch.manual_seed(0)
    flow = Flow(2, 2)
    means = torch.randn(5000, 2) * torch.tensor([3.0, 0.1]) + 5
    flow.fit_scale(means, torch.full((5000, 2), 0.01))
    drawn = flow.standard(means + 0.1 * torch.randn(5000, 2))
    torch.testing.assert_close(drawn.mean(dim=0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), torch.ones(2), atol=0.05, rtol=0)


def test_a_flow_learns_a_ring_that_no_gaussian_has() -> None:
    torch.manual_seed(0)
    flow = Flow(2, 2, width=64, blocks=2)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=3e-3)
    for _ in range(400):
        labels = torch.randint(2, (256,))
        angle = torch.rand(256) * 6.2832
        points = torch.stack([angle.cos(), angle.sin()], dim=1) * torch.where(labels == 1, 2.0, 0.5)[:, None]
        loss = flow.loss(points, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for label, radius in ((0, 0.5), (1, 2.0)):
            lengths = flow(torch.full((500,), label), torch.randn(500, 2)).norm(dim=1)
            assert abs(lengths.median().item() - radius) < 0.25
            assert lengths.std().item() < 0.4 * radius
