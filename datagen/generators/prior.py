"""Priors over latents, fitted for each class after an autoencoder has been trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from datagen.generators.texture import Texture

NEIGHBOURS, EACH = 20, 10
"""images that a local Gaussian is fitted to, and images of a class for each of its Gaussians"""
EXTRA = NEIGHBOURS + 1
"""numbers of noise that local Gaussians take besides those of a latent"""
BLOCK = 256
"""neighbourhoods that are looked for together"""
MOST = 20_000
"""images of a class that are looked at"""
NUMBERS = 32_000_000
"""that all Gaussians together may have: 64 MB in half precision"""


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
    """Return how many Gaussians each class gets: about one to `EACH` of its images, less where all would be large."""
    wanted = [max(1, min(count, MOST) // EACH) for count in counts]
    share = min(1.0, NUMBERS / ((NEIGHBOURS + 1) * latent * max(1, sum(wanted))))
    return [max(1, int(many * share)) for many in wanted]


class LocalGaussians(nn.Module):
    """Many Gaussians a class over the latents, each fitted to the neighbourhood of one image (Vincent & Bengio 2003, manifold Parzen windows).

    A neighbourhood's mean and principal directions are of its images' posteriors: no single image is kept. The drawn latents follow the
    bends of a class that one Gaussian cuts across, without training. A class of fewer images than a neighbourhood has is one whole, and
    deviations of other classes' latents make up for what it lacks, so that its spread is not that of a handful (as shrinkage does in
    `ClassGaussians`). Its texture is its own alone: that of another class would draw that class's edges.
    Takes EXTRA numbers of noise more than a latent has: how far along each direction, and which Gaussian of the class.

    Args:
        counts: training images a class.
        latent: numbers a latent has.
        texture: what a decoder leaves out of an image; its numbers are drawn along with a latent, from the same neighbours.
    """

    mean: torch.Tensor
    along: torch.Tensor
    factor: torch.Tensor
    centre: torch.Tensor
    first: torch.Tensor
    many: torch.Tensor

    def __init__(self, counts: Sequence[int], latent: int, texture: Texture | None = None) -> None:
        super().__init__()
        self.latent, self.texture = latent, texture
        size = latent + (len(texture.basis) if texture is not None else 0)
        many = components(counts, size)
        number = sum(many)
        self.register_buffer("many", torch.tensor(many), persistent=False)
        self.register_buffer("first", torch.tensor([0, *itertools.accumulate(many[:-1])]), persistent=False)
        self.register_buffer("centre", torch.zeros(len(counts), size))
        self.register_buffer("mean", torch.zeros(number, size))
        self.register_buffer("along", torch.zeros(number, NEIGHBOURS, size, dtype=torch.float16))
        self.register_buffer("factor", _units(len(counts), latent))

    @torch.no_grad()
    def fit(self, means: torch.Tensor, variances: torch.Tensor, labels: torch.Tensor, texture: torch.Tensor | None = None) -> None:
        """Fit to posterior means and variances float [N, latent] of images with labels int64 [N]; classes without images stay.

        Args:
            means, variances, labels: as said.
            texture: float [N, texture] of the same images.
        """
        both = means if texture is None else torch.cat([means, texture], dim=1)
        rows_of = {label: torch.nonzero(labels == label)[:, 0] for label in labels.unique().tolist()}
        for label, rows in rows_of.items():
            self.centre[label] = both[rows].mean(dim=0)
            self.factor[label] = torch.diag(variances[rows].double().mean(dim=0).sqrt()).to(self.factor)
        for label, rows in rows_of.items():
            first, many = int(self.first[label]), int(self.many[label])
            if len(rows) < NEIGHBOURS:
                self.mean[first : first + many] = self.centre[label]
                self.along[first : first + many] = self._of_few(both, labels, label)
                continue
            walked = rows[_spaced(len(rows), MOST)]
            own = means[walked]
            for place, anchors in enumerate(own[_spaced(len(own), many, again=True)].split(BLOCK)):
                near = both[walked[torch.cdist(anchors, own).topk(NEIGHBOURS, largest=False).indices]]
                here = slice(first + place * BLOCK, first + place * BLOCK + len(anchors))
                self.mean[here] = near.mean(dim=1)
                self.along[here] = _turned((near - near.mean(dim=1, keepdim=True)) / math.sqrt(NEIGHBOURS - 1))

    def _of_few(self, both: torch.Tensor, labels: torch.Tensor, label: int) -> torch.Tensor:
        """Return directions [NEIGHBOURS, D] about the centre of a class of fewer images: their own deviations, and for the rest such of others' latents."""
        own, others = torch.nonzero(labels == label)[:, 0], torch.nonzero(labels != label)[:, 0]
        taken = torch.cat([own, others[_spaced(len(others), NEIGHBOURS - len(own))]])
        count = torch.bincount(labels)[labels[taken]]
        unbiased = (count / (count - 1).clamp(min=1)).sqrt()
        directions = torch.zeros(NEIGHBOURS, both.shape[1])
        directions[: len(taken)] = unbiased[:, None] * (both[taken] - self.centre.to(both)[labels[taken]]) / math.sqrt(len(taken))
        directions[len(own) :, self.latent :] = 0
        return _turned(directions[None])[0]

    def forward(self, labels: torch.Tensor, noise: torch.Tensor, spread: float = 1.0, guidance: float = 0.0) -> torch.Tensor:
        """Return latents and texture [N, latent + texture] for labels [N] and standard normal noise [N, latent + EXTRA].

        Spread scales the distance to the mean of the class, guidance moves that away from the mean of all.
        """
        own, along, which = noise.split([self.latent, NEIGHBOURS, 1], dim=1)
        exact = which.device.type != "mps"
        share = torch.special.ndtr(which[:, 0].double() if exact else which[:, 0]).clamp(0, 1 - (1e-9 if exact else 6e-8))
        place = self.first[labels] + (share * self.many[labels]).long()
        centre = self.centre[labels]
        drawn = self.mean[place] + torch.einsum("nkj,nk->nj", self.along[place].float(), along)
        drawn[:, : self.latent] += torch.einsum("nij,nj->ni", self.factor[labels], own)
        return centre + guidance * (centre - self.centre.mean(dim=0)) + spread * (drawn - centre)


def _turned(directions: torch.Tensor) -> torch.Tensor:
    """Return principal directions [N, K, D] of the same covariances as directions [N, K, D], so that none leads to a single neighbour."""
    axes = torch.linalg.eigh(directions.double() @ directions.double().mT).eigenvectors
    return (axes.mT @ directions.double()).to(directions)


def _units(many: int, size: int) -> torch.Tensor:
    """Return so many unit matrices [many, size, size]; torch.eye makes torch load its compiler on the device "meta"."""
    found = torch.zeros(many, size, size)
    found.diagonal(dim1=1, dim2=2).fill_(1)
    return found


def _spaced(count: int, most: int, *, again: bool = False) -> torch.Tensor:
    """Return at most so many places int64 between 0 and count - 1, evenly spaced; with `again` exactly so many, some of them several times."""
    return torch.linspace(0, count - 1, most if again else min(count, most)).round().long()
