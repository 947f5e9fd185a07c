"""Priors over latents, fitted for each class after an autoencoder has been trained."""

from __future__ import annotations

import torch
from torch import nn


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
        self.register_buffer("factor", torch.eye(latent).repeat(classes, 1, 1))

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
