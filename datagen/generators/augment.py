"""Differentiable augmentation for critics: the same random change on real and generated images (DiffAugment, Zhao et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from datagen import ranks


def colour(images: torch.Tensor) -> torch.Tensor:
    """Shift brightness by up to 0.5 and scale saturation by 0 to 2 and contrast by 0.5 to 1.5, each image by its own amount."""
    amount = ranks.drawn(lambda n: torch.rand(3, n, 1, 1, 1, device=images.device, dtype=images.dtype).transpose(0, 1), len(images)).transpose(0, 1)
    images = images + (amount[0] - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * amount[1])
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return middle + (images - middle) * (amount[2] + 0.5)


def translate(images: torch.Tensor, ratio: float = 0.125) -> torch.Tensor:
    """Move each image by its own whole pixels, up to `ratio` of each side; what comes in is zero (mid-grey)."""
    n, _, height, width = images.shape
    down, right = max(1, round(height * ratio)), max(1, round(width * ratio))
    rows = torch.arange(height, device=images.device) + _places(2 * down + 1, images)
    columns = torch.arange(width, device=images.device) + _places(2 * right + 1, images)
    padded = F.pad(images, (right, right, down, down)).permute(0, 2, 3, 1)
    each = torch.arange(n, device=images.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: torch.Tensor, ratio: float = 0.5) -> torch.Tensor:
    """Set a window of `ratio` of each side to zero (mid-grey), at its own place in each image."""
    height, width = images.shape[2:]
    top = _places(height, images) - int(height * ratio) // 2
    left = _places(width, images) - int(width * ratio) // 2
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    hit_rows = (rows >= top) & (rows < top + int(height * ratio))
    hit_columns = (columns >= left) & (columns < left + int(width * ratio))
    return images * ~(hit_rows[:, None, :, None] & hit_columns[:, None, None, :])


def _places(below: int, images: torch.Tensor) -> torch.Tensor:
    """Return a whole number int64 [N, 1] from 0 and below a limit for each image."""
    return ranks.drawn(lambda n: torch.randint(0, below, (n, 1), device=images.device), len(images))


POLICIES = {"colour": colour, "translate": translate, "cutout": cutout}


def augment(images: torch.Tensor, policy: str | None) -> torch.Tensor:
    """Apply a policy such as "translate,cutout" to images float [N, C, H, W]; "none" and None leave them alone."""
    for name in (policy or "none").split(","):
        if name != "none":
            images = POLICIES[name](images)
    return images
