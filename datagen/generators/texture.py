"""What a decoder leaves out of images, in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

NUMBERS = 16_000_000
"""that the directions are found from at most: 64 MB"""

SPARE = 16
"""directions that are looked for besides, so that the last ones are found as well (Halko et al. 2011, section 4.3)"""


class Texture(nn.Module):
    """Coordinates of what a decoder leaves out along its leading directions over the training images: principal components about zero.

    A decoder of minutes is smooth; what it misses is real detail, most of it of high frequency. Without training, these numbers give the
    largest part of it back.

    Args:
        many: directions.
        shape: channels, height, width of the images.
    """

    basis: torch.Tensor

    def __init__(self, many: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(many, math.prod(shape)))

    def every(self, count: int) -> int:
        """Return of how many images one is enough to fit to."""
        return max(1, -(-count * self.basis.shape[1] // NUMBERS))

    @torch.no_grad()
    def fit(self, left: torch.Tensor) -> None:
        """Find the directions of what is left out of some images, float [N, C, H, W]; with fewer images than directions the others stay zero."""
        flat = left.flatten(1).to(self.basis)
        found = torch.svd_lowrank(flat, q=min(len(self.basis) + SPARE, *flat.shape), niter=4)[2].T[: len(self.basis)]
        self.basis.zero_()
        self.basis[: len(found)] = found

    def numbers(self, left: torch.Tensor) -> torch.Tensor:
        """Return the coordinates [N, many] of what is left out of images, float [N, C, H, W]."""
        return left.flatten(1).to(self.basis) @ self.basis.T

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return what stands for coordinates [N, many], float [N, C * H * W]."""
        return numbers @ self.basis
