"""Building blocks that families share: resolutions, residual blocks, class embeddings and shapes of nets."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from datagen import ranks
from datagen.generators.convolution import Conv, UpConv

COARSEST = 8


def resolutions(height: int, width: int, coarsest: int = COARSEST) -> list[tuple[int, int]]:
    """Return (height, width) from the image's own down by halving (rounded up) until the shorter side is below `coarsest`."""
    found = [(height, width)]
    while min(found[-1]) >= coarsest:
        found.append(((found[-1][0] + 1) // 2, (found[-1][1] + 1) // 2))
    return found


def widths(levels: int, width: int, most: int = 4) -> list[int]:
    """Return channels a level, finest first: `width` doubled at each halving, at most `most` times `width`."""
    return [width * min(2**level, most) for level in range(levels)]


class Residual(nn.Module):
    """x + conv(act(conv(act(x)))) on [N, C, H, W] with the last convolution at zero, so that it starts as the identity."""

    def __init__(self, channels: int, slope: float = 0.2) -> None:
        super().__init__()
        self.slope = slope
        self.first = Conv(channels, channels, 3, padding=1)
        self.last = Conv(channels, channels, 3, padding=1)
        for weights in self.last.parameters():
            nn.init.zeros_(weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(F.leaky_relu(x, self.slope))
        return x + self.last(F.leaky_relu(h, self.slope, inplace=True))


class Up(nn.Module):
    """Twice the resolution by a transposed convolution, cut to `size`: [N, C, h, w] to [N, D, *size]."""

    def __init__(self, inward: int, outward: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.conv = UpConv(inward, outward, 4, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x if x.shape[2:] == self.size else x[..., : self.size[0], : self.size[1]]


HALVED = 16


def _levels(shape: tuple[int, int, int], width: int) -> tuple[list[tuple[int, int]], list[int], int]:
    """Return sizes and channels a level and the stride of the way in: nets on images of 16 pixels or more begin at half their size."""
    sizes = resolutions(*shape[1:])
    stride = 2 if min(shape[1:]) >= HALVED else 1
    sizes = sizes[stride - 1 :]
    return sizes, widths(len(sizes), width), stride


class Tower(nn.Module):
    """Image [N, C, H, W] to features [N, outward]: residual blocks at each resolution, stride-2 convolutions between, then a linear map."""

    def __init__(self, shape: tuple[int, int, int], width: int, outward: int, blocks: int = 1) -> None:
        super().__init__()
        sizes, channels, stride = _levels(shape, width)
        layers: list[nn.Module] = [Conv(shape[0], channels[0], 2 * stride + 1, stride=stride, padding=stride)]
        for fine, coarse in pairwise(channels):
            layers += [Residual(fine) for _ in range(blocks if stride == 2 or fine > width else 0)]
            layers += [nn.LeakyReLU(0.2, inplace=True), Conv(fine, coarse, 3, stride=2, padding=1)]
        layers += [Residual(channels[-1]) for _ in range(blocks)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1] * math.prod(sizes[-1]), outward)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x)
        if h.requires_grad:
            kept = layout(self)
            h.register_hook(lambda gradient: gradient.contiguous(memory_format=kept))
        return self.head(F.leaky_relu(h, 0.2).flatten(1))


class Painter(nn.Module):
    """Vector [N, inward] to image [N, C, H, W]: a linear map to the coarsest resolution, residual blocks, then up step by step."""

    def __init__(self, inward: int, shape: tuple[int, int, int], width: int, blocks: int = 1) -> None:
        super().__init__()
        sizes, channels, stride = _levels(shape, width)
        sizes, channels = sizes[::-1], channels[::-1]
        self.start = (channels[0], *sizes[0])
        self.stem = nn.Linear(inward, math.prod(self.start))
        layers: list[nn.Module] = [Residual(channels[0]) for _ in range(blocks)]
        for level in range(1, len(sizes)):
            layers += [nn.LeakyReLU(0.2, inplace=True), Up(channels[level - 1], channels[level], sizes[level])]
            layers += [Residual(channels[level]) for _ in range(blocks if stride == 2 or level < len(sizes) - 1 else 0)]
        way_out = Up(channels[-1], shape[0], shape[1:]) if stride == 2 else Conv(channels[-1], shape[0], 3, padding=1)
        self.body = nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True), way_out)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(z).unflatten(1, self.start).contiguous(memory_format=layout(self)))


def layout(net: nn.Module) -> torch.memory_format:
    """Return the memory layout that a net's convolutions were brought into; on a CPU two that meet in one operation make it up to ten times slower."""
    turned = any(weights.ndim == 4 and not weights.is_contiguous() for weights in net.parameters())
    return torch.channels_last if turned else torch.contiguous_format


def normal_like(x: torch.Tensor) -> torch.Tensor:
    """Return standard normal numbers of the shape [N, ...], type and device of x, those of this process's share of the batch."""
    return ranks.drawn(lambda size: torch.randn(size, *x.shape[1:], dtype=x.dtype, device=x.device), len(x))


def uniform(size: int, device: torch.device) -> torch.Tensor:
    """Return numbers [size] between 0 and 1, those of this process's share of the batch."""
    return ranks.drawn(lambda whole: torch.rand(whole, device=device), size)


def class_mix(embed: nn.Embedding, labels: torch.Tensor, guidance: float) -> torch.Tensor:
    """Return the embedded classes [N, D], moved away from the mean of all classes by `guidance` times their distance to it."""
    chosen = embed(labels)
    return chosen if guidance == 0 else chosen + guidance * (chosen - embed.weight.mean(dim=0))
