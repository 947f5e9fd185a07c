"""Convolutions whose weights learn by a matrix product where the images are small: there a processor's own way takes three to six times as long."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

PLACES = 16
"""places of the smaller image up to which the gradient of the weights is a matrix product"""
CHANNELS = 16
"""channels from which it is one"""


class Conv(nn.Conv2d):
    """nn.Conv2d with square kernels, its zeros around the image; in bf16 on a CPU with the gradient of `Convolve`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = x.shape[2] * x.shape[3] // self.stride[0] ** 2
        return convolved(x, self, transposed=False) if _wins(x, places, self.in_channels) else super().forward(x)


class UpConv(nn.ConvTranspose2d):
    """nn.ConvTranspose2d as above."""

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        if output_size is None and _wins(x, x.shape[2] * x.shape[3], self.out_channels):
            return convolved(x, self, transposed=True)
        return super().forward(x, output_size)


def _wins(x: torch.Tensor, places: int, channels: int) -> bool:
    return places <= PLACES and channels >= CHANNELS and x.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")


def convolved(x: torch.Tensor, net: nn.Conv2d | nn.ConvTranspose2d, *, transposed: bool) -> torch.Tensor:
    """Return what a convolution makes of images [N, C, H, W], in the precision of autocast."""
    precision = torch.get_autocast_dtype("cpu")
    bias = None if net.bias is None else net.bias.to(precision)
    with torch.autocast("cpu", enabled=False):
        found: torch.Tensor = Convolve.apply(x.to(precision), net.weight.to(precision), bias, net.stride[0], net.padding[0], transposed)
    return found


class Convolve(torch.autograd.Function):
    """A convolution, or a transposed one, of images [N, C, H, W] with weights [out, in, K, K], or [in, out, K, K], and a bias [out] or none."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, padding: int, transposed: bool) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding, transposed
        return (F.conv_transpose2d if transposed else F.conv2d)(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of images, weights and bias, by operations that have gradients themselves."""
        x, weight = ctx.saved_tensors
        stride, padding, transposed = ctx.how
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            how = [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1, [True, False, False]
            of_x = torch.ops.aten.convolution_backward(gradient, x, weight, None, *how)[0]
        if ctx.needs_input_grad[1]:
            small, large = (x, gradient) if transposed else (gradient, x)
            rows = small.permute(0, 2, 3, 1).flatten(0, 2)
            of_weight = (rows.mT @ windows(large, weight.shape[-1], stride, padding)).unflatten(1, (*weight.shape[2:], -1)).permute(0, 3, 1, 2)
        return of_x, of_weight, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None, None, None


def windows(images: torch.Tensor, side: int, stride: int, padding: int) -> torch.Tensor:
    """Return what a square window of images [N, C, H, W] holds at each of its places, one row [side * side * C] a place, channels last."""
    around = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    return around.unfold(1, side, stride).unfold(2, side, stride).permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
