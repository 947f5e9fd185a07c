"""Moving average of weights, counted in images."""

from __future__ import annotations

import copy

import torch
from torch import nn

RAMP = 0.1


class Average:
    """Exponential moving average of one net's weights (Karras et al. 2018, section 2; ramp: Karras et al. 2020, appendix B).

    Args:
        net: the net that trains.
        half_life: images after which a weight counts half; at most a tenth of the images seen.
    """

    def __init__(self, net: nn.Module, half_life: float) -> None:
        self.half_life = half_life
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self._pairs(net)

    def _pairs(self, net: nn.Module) -> None:
        self.source = [p.detach() for p in net.parameters()]
        self.target: list[torch.Tensor] = [p.detach() for p in self.net.parameters()]
        self.buffers = list(zip(self.net.buffers(), net.buffers(), strict=True))

    @torch.no_grad()
    def update(self, batch: int, images_seen: int) -> None:
        """Move towards the training weights after a step of `batch` images, `images_seen` in all; buffers are copied."""
        half_life = min(self.half_life, max(batch, images_seen * RAMP))
        torch._foreach_lerp_(self.target, self.source, 1 - 0.5 ** (batch / half_life))
        for target, source in self.buffers:
            target.copy_(source)
