"""Priors over latents, fitted for each class after an autoencoder has been trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

NEIGHBOURS, EACH = 20, 10
"""images that a local Gaussian is fitted to, and images of a class for each of its Gaussians"""
EXTRA = NEIGHBOURS + 1
"""numbers of noise that local Gaussians take besides those of a latent"""
BLOCK = 256
"""neighbourhoods that are looked for together"""
MOST = 20_000
"""images of a class that are looked at"""
NUMBERS = 8_000_000
"""that all Gaussians together may have: 32 MB"""


class ClassGaussians(nn.Module):
    """One Gaussian a class over the latents; a standard normal until it is fitted.

    The aggregate posterior of a class is matched in its first two moments: the covariance of its posterior means plus
    the mean of its posterior variances. The covariance of the means is shrunk towards the one pooled over all
    classes, the more the fewer images the class has (Friedman 1989, regularised discriminant analysis, eq. 14 to 16).
    """

    mean: torch.Tensor
    factor: torch.Tensor

    def __init__(self, classes: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(classes, latent))
        self.register_buffer("factor", _units(classes, latent))

    @torch.no_grad()
    def fit(self, means: torch.Tensor, variances: torch.Tensor, labels: torch.Tensor) -> None:
        """Fit to posterior means and variances float [N, latent] of images with labels int64 [N]; classes without images stay."""
        means, variances = means.double(), variances.double()
        latent = means.shape[1]
        centred, count = means.clone(), torch.bincount(labels, minlength=len(self.mean))
        for label in count.nonzero().flatten().tolist():
            centred[labels == label] -= means[labels == label].mean(dim=0)
        pooled = centred.T @ centred / max(1, len(means) - int((count > 0).sum()))
        for label in count.nonzero().flatten().tolist():
            here, n = labels == label, int(count[label])
            own = centred[here].T @ centred[here]
            covariance = (own + latent * pooled) / (n - 1 + latent) + torch.diag(variances[here].mean(dim=0))
            self.mean[label] = means[here].mean(dim=0).to(self.mean)
            self.factor[label] = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(latent, dtype=torch.float64)).to(self.factor)

    def forward(self, labels: torch.Tensor, noise: torch.Tensor, spread: float = 1.0, guidance: float = 0.0) -> torch.Tensor:
        """Return latents [N, latent] for labels [N] and standard normal noise [N, latent]; guidance moves a class away from the mean of all."""
        mean = self.mean + guidance * (self.mean - self.mean.mean(dim=0))
        return mean[labels] + spread * torch.einsum("nij,nj->ni", self.factor[labels], noise)


def components(counts: Sequence[int], latent: int) -> list[int]:
    """Return how many Gaussians each class gets: about one to `EACH` of its images, one below two neighbourhoods, less where all would be large."""
    wanted = [min(count, MOST) // EACH if count >= 2 * NEIGHBOURS else 1 for count in counts]
    share = min(1.0, NUMBERS / ((NEIGHBOURS + 1) * latent * max(1, sum(wanted))))
    return [max(1, int(many * share)) for many in wanted]


class LocalGaussians(nn.Module):
    """Many Gaussians a class over the latents, each fitted to the neighbourhood of one image (Vincent & Bengio 2003, manifold Parzen windows).

    A neighbourhood's mean and covariance are of its images' posteriors: no single image is kept. The drawn latents follow the
    bends of a class that one Gaussian cuts across, without training; classes of few images have one Gaussian, as `ClassGaussians`.
    Takes EXTRA numbers of noise more than a latent has: how far along each neighbour, and which Gaussian of the class.

    Args:
        counts: training images a class.
        latent: numbers a latent has.
    """

    mean: torch.Tensor
    along: torch.Tensor
    factor: torch.Tensor
    centre: torch.Tensor
    first: torch.Tensor
    many: torch.Tensor

    def __init__(self, counts: Sequence[int], latent: int) -> None:
        super().__init__()
        many = components(counts, latent)
        number = sum(many)
        self.register_buffer("many", torch.tensor(many))
        self.register_buffer("first", torch.tensor([0, *itertools.accumulate(many[:-1])]))
        self.register_buffer("centre", torch.zeros(len(counts), latent))
        self.register_buffer("mean", torch.zeros(number, latent))
        self.register_buffer("along", torch.zeros(number, NEIGHBOURS, latent))
        self.register_buffer("factor", _units(len(counts), latent))

    @torch.no_grad()
    def fit(self, means: torch.Tensor, variances: torch.Tensor, labels: torch.Tensor) -> None:
        """Fit to posterior means and variances float [N, latent] of images with labels int64 [N]; classes without images stay."""
        whole = ClassGaussians(*self.centre.shape)
        whole.fit(means, variances, labels)
        self.centre.copy_(whole.mean)
        for label, (first, many) in enumerate(zip(self.first.tolist(), self.many.tolist(), strict=True)):
            rows = torch.nonzero(labels == label)[:, 0]
            self.along[first : first + many] = 0
            if many == 1 or len(rows) < NEIGHBOURS:
                self.mean[first : first + many], self.factor[label] = whole.mean[label], whole.factor[label]
                continue
            self.factor[label] = torch.diag(variances[rows].double().mean(dim=0).sqrt()).to(self.factor)
            own = means[rows[_spaced(len(rows), MOST)]]
            for place, anchors in enumerate(own[_spaced(len(own), many)].split(BLOCK)):
                near = own[torch.cdist(anchors, own).topk(NEIGHBOURS, largest=False).indices]
                here = slice(first + place * BLOCK, first + place * BLOCK + len(anchors))
                self.mean[here] = near.mean(dim=1)
                self.along[here] = (near - near.mean(dim=1, keepdim=True)) / math.sqrt(NEIGHBOURS - 1)

    def forward(self, labels: torch.Tensor, noise: torch.Tensor, spread: float = 1.0, guidance: float = 0.0) -> torch.Tensor:
        """Return latents [N, latent] for labels [N] and standard normal noise [N, latent + EXTRA].

        Spread scales the distance to the mean of the class, guidance moves that away from the mean of all.
        """
        own, along, which = noise.split([self.mean.shape[1], NEIGHBOURS, 1], dim=1)
        share = torch.special.ndtr(which[:, 0].double()).clamp(0, 1 - 1e-9)
        place = self.first[labels] + (share * self.many[labels]).long()
        centre = self.centre[labels]
        latents = self.mean[place] + torch.einsum("nkj,nk->nj", self.along[place], along) + torch.einsum("nij,nj->ni", self.factor[labels], own)
        return centre + guidance * (centre - self.centre.mean(dim=0)) + spread * (latents - centre)


def _units(many: int, size: int) -> torch.Tensor:
    """Return so many unit matrices [many, size, size]; torch.eye makes torch load its compiler on the device "meta"."""
    found = torch.zeros(many, size, size)
    found.diagonal(dim1=1, dim2=2).fill_(1)
    return found


def _spaced(count: int, most: int) -> torch.Tensor:
    """Return at most so many places int64 between 0 and count - 1, evenly spaced."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()
