"""Augmentation of the judge: small shifts, zooms and changes of contrast; mirror images only where they are asked for."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from datagen import machine
from datagen.errors import UsageError, nearest

POLICIES = ("shift", "zoom", "contrast", "mirror")
ZOOM, CONTRAST = 0.1, 0.2


def parse(policy: str) -> tuple[str, ...]:
    """Return the parts of a policy such as "shift,zoom"; "none" has none; UsageError where a part is unknown."""
    parts = tuple(part for part in policy.split(",") if part != "none")
    for part in parts:
        if part not in POLICIES:
            raise UsageError(f"unknown augmentation {part!r}", hint=nearest(part, POLICIES))
    return parts


def reach(height: int, width: int) -> tuple[int, int]:
    """Return the largest shift in pixels, down and across: one in twelve, one at least."""
    return max(1, round(height / 12)), max(1, round(width / 12))


def augment(images: torch.Tensor, parts: tuple[str, ...], generator: torch.Generator) -> torch.Tensor:
    """Return images float [N, C, H, W] changed at random, each on its own.

    Args:
        images: standardised, zero is the mean.
        parts: what `parse` returned.
        generator: on the CPU, so that every device draws alike.
    """
    if "contrast" in parts:
        factor = 1 + CONTRAST * (2 * torch.rand(len(images), 1, 1, 1, generator=generator) - 1)
        images = images * machine.moved(factor, images.device)
    if "mirror" in parts:
        turned = machine.moved(torch.rand(len(images), generator=generator) < 0.5, images.device)
        images = torch.where(turned[:, None, None, None], images.flip(3), images)
    if "zoom" in parts:
        return _zoomed(images, generator, shift="shift" in parts)
    return _shifted(images, generator) if "shift" in parts else images


def _shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each image by whole pixels; what comes in repeats the edge."""
    count, _, height, width = images.shape
    down, across = reach(height, width)
    padded = F.pad(images, (across, across, down, down), mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    rows = torch.randint(2 * down + 1, (count,), generator=generator)
    columns = torch.randint(2 * across + 1, (count,), generator=generator)
    places = machine.moved(torch.stack([torch.arange(count), rows, columns]), images.device)
    chosen: torch.Tensor = windows.permute(0, 2, 3, 1, 4, 5)[places[0], places[1], places[2]]
    return chosen


def _zoomed(images: torch.Tensor, generator: torch.Generator, *, shift: bool) -> torch.Tensor:
    """Scale each image by up to ten per cent about a shifted centre, by bilinear interpolation."""
    count, _, height, width = images.shape
    scale = 1 + ZOOM * (2 * torch.rand(count, generator=generator) - 1)
    most = torch.tensor([2 * reach(height, width)[1] / width, 2 * reach(height, width)[0] / height])
    centre = (2 * torch.rand(count, 2, generator=generator) - 1) * (most if shift else 0)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale
    matrix[:, :, 2] = centre
    grid = F.affine_grid(machine.moved(matrix, images.device), [count, 1, height, width], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
