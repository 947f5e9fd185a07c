"""Conditional variational autoencoder with a class prior fitted over its latents after training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from datagen.contracts import Spec, Stage, State, Walk
from datagen.generators import losses
from datagen.generators.descent import adam, descend
from datagen.generators.layers import Painter, Tower, normal_like
from datagen.generators.prior import ClassGaussians

FEATURES = 256
WALKED, NUMBERS = 500, 1 << 25
"""training images that are looked at together after the last step, and numbers that they have at most"""


class Encoder(nn.Module):
    """Images [N, C, H, W] and labels [N] to mean and log-variance [N, latent] of the posterior."""

    def __init__(self, spec: Spec, width: int, latent: int) -> None:
        super().__init__()
        self.tower = Tower(spec.shape, width, FEATURES)
        self.embed = nn.Embedding(spec.classes, FEATURES)
        self.head = nn.Linear(FEATURES, 2 * latent)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = F.leaky_relu(self.tower(images) + self.embed(labels), 0.2)
        mean, log_variance = self.head(features).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 8)


class Decoder(nn.Module):
    """Latents [N, latent] and labels [N] to the mean image [N, C, H, W]; a class has its own offset to the first layer."""

    def __init__(self, spec: Spec, width: int, latent: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.classes, 32)
        self.painter = Painter(latent + 32, spec.shape, width)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.painter(torch.cat([latents, self.embed(labels)], dim=1))


EXPLAINED = {
    "elbo": "−ELBO = E[−log p(x | z, y)] + beta · KL, nats an image: what is minimised",
    "nats": "E[−log N(x; decoder(z, y), σ²)], nats an image, σ² the mean squared error of the batch: how badly images are rebuilt",
    "kl": "KL(q(z | x) ‖ N(0, 1)), nats an image: what the latent knows of the image",
}


def walked(state: State) -> int:
    """Return how many training images are looked at together after the last step."""
    return max(1, min(WALKED, NUMBERS // math.prod(state.spec.shape)))


class CVAE:
    """Evidence lower bound (Kingma & Welling 2013) with the variance of the pixels at its optimum, conditional on the class."""

    paper = "Kingma & Welling 2013, eq. 3; beta: Higgins et al. 2017, eq. 4; variance: Rybkin et al. 2021, eq. 5; class condition: Sohn et al. 2015"
    kept = ("decoder", "prior")
    explained = EXPLAINED

    def plan(self, spec: Spec) -> Mapping[str, Any]:
        """Return batch, learning rate, width, latent size and beta for this shape."""
        pixels = spec.shape[0] * spec.shape[1] * spec.shape[2]
        latent = 16 if pixels <= 300 else 32 if pixels <= 1600 else 64 if pixels <= 6400 else 128
        wide = 64 if spec.recipe.device == "cuda" else 32
        batch = 128 if pixels <= 300 or spec.recipe.device == "cuda" else 64
        return {"batch": batch, "learning_rate": 2e-3, "width": wide, "latent": latent, "beta": 1.0, "half_life": 20_000}

    def noise(self, spec: Spec) -> int:
        """Return the size of the latent."""
        return int(spec.recipe.latent or 0)

    def stages(self, spec: Spec) -> Sequence[Stage]:
        """Return the one stage that trains encoder and decoder."""
        return [Stage("autoencoder", self._build, self._step, averaged=("encoder", "decoder"))]

    def _build(self, state: State) -> None:
        spec, recipe = state.spec, state.spec.recipe
        width, latent = int(recipe.width or 0), int(recipe.latent or 0)
        encoder, decoder = Encoder(spec, width, latent), Decoder(spec, width, latent)
        state.modules |= {"encoder": encoder, "decoder": decoder, "prior": ClassGaussians(spec.classes, latent)}
        weights = [*encoder.parameters(), *decoder.parameters()]
        if state.trains:
            state.optimizers["autoencoder"] = adam(weights, state, betas=(0.9, 0.99), decay=1e-4)

    def _step(self, state: State, images: torch.Tensor, labels: torch.Tensor, done: float) -> Mapping[str, torch.Tensor]:
        mean, log_variance = state.modules["encoder"](images, labels)
        latents = mean + normal_like(mean) * (0.5 * log_variance).exp()
        painted = state.modules["decoder"](latents, labels).float()
        variance = losses.best_variance(images, painted)
        nats = losses.gaussian_nats(images, painted, variance)
        kl = losses.gaussian_kl(mean, log_variance)
        bound = losses.elbo(nats, kl, 1.0 if state.spec.recipe.beta is None else state.spec.recipe.beta)
        per_number = descend(state.optimizers["autoencoder"], bound / images[0].numel())
        return {"elbo": per_number * images[0].numel(), "nats": nats.mean().detach(), "kl": kl.mean().detach()}

    @torch.no_grad()
    def finish(self, state: State, images: Walk) -> None:
        """Fit the class prior to the posteriors of the training images."""
        means, variances, labels = [], [], []
        for pictures, classes in images(walked(state)):
            mean, log_variance = state.modules["encoder"](pictures, classes)
            means.append(mean.cpu())
            variances.append(log_variance.exp().cpu())
            labels.append(classes.cpu())
        state.modules["prior"].fit(torch.cat(means), torch.cat(variances), torch.cat(labels))

    def sample(self, state: State, labels: torch.Tensor, noise: torch.Tensor, spread: float, guidance: float) -> torch.Tensor:
        """Return images float [N, C, H, W] in [-1, 1] for labels [N] and noise [N, latent]."""
        latents = state.modules["prior"](labels, noise, spread, guidance)
        return state.modules["decoder"](latents, labels).float().clamp(-1, 1)
