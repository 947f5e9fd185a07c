"""Variational autoencoder in stages: a net that sees what tells classes apart, an autoencoder that keeps it, a prior over the latents."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from datagen.contracts import Spec, Stage, State, Walk
from datagen.generators import losses
from datagen.generators.cvae import EXPLAINED as OF_A_BOUND
from datagen.generators.cvae import Decoder, walked
from datagen.generators.descent import adam, descend
from datagen.generators.flow import Flow
from datagen.generators.layers import Tower, normal_like
from datagen.generators.prior import EXTRA, ClassGaussians, LocalGaussians
from datagen.generators.texture import Texture

FEW = 30
"""images of the smallest class from which a flow is learnt"""
FLOW = 0.5
"""step of the flow beside that of the autoencoder"""
SEEING, GROUPS = 16, 4
"""channels of the recogniser's first layer, at least, and groups of channels in its norms"""
TEXTURE = 256
"""numbers of what the decoder leaves out, at most a third of those of an image"""
PERCEPTION = 2.0
"""weight of the perceptual distance beside the pixels' likelihood"""


class Encoder(nn.Module):
    """Images [N, C, H, W] to mean and log-variance [N, latent] of the posterior."""

    def __init__(self, spec: Spec, width: int, latent: int) -> None:
        super().__init__()
        self.tower = Tower(spec.shape, width, 2 * latent)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.tower(images).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 8)


class Eyes(nn.Module):
    """A recogniser whose layers say how far two images differ in what tells classes apart.

    Takes float [N, C, H, W]; three convolutions at falling resolution, then the mean over the image and a linear layer.
    """

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        channels = [spec.shape[0], width, 2 * width, 4 * width]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3 if k else 5, 2 if min(spec.shape[1:]) >= 16 or k else 1, 1 if k else 2) for k, (a, b) in enumerate(itertools.pairwise(channels))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, b) for b in channels[1:])
        self.head = nn.Linear(2 * channels[-1], spec.classes)

    def layers(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of the convolutions."""
        found = []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x).float()), 0.2)
            found.append(x)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.layers(x)[-1]
        return self.head(torch.cat([last.mean((2, 3)), last.amax((2, 3))], dim=1))


EXPLAINED = {
    **OF_A_BOUND,
    "recognition": "cross-entropy of the recogniser whose layers compare images later, nats, labels smoothed by 0.1",
    "right": "share of the batch that this recogniser names right",
    "loss": f"−ELBO by numbers of an image + {PERCEPTION:g} · perceptual: what is minimised",
    "perceptual": "mean squared distance of x and its rebuilt image in the recogniser's layers, each place brought to length 1",
    "flow": "E‖v(x_t, t, y) − (x_1 − x_0)‖², mean over numbers: flow matching from noise x_0 to latent x_1, x_t = t x_1 + (1 − t) x_0",
}


class VAE:
    """Autoencoder with a small KL term and a perceptual loss from the training images themselves, and a prior over its latents.

    On a GPU the prior is learnt by flow matching; on a CPU, where minutes are too few for that, it is local Gaussians.
    """

    paper = (
        "Kingma & Welling 2013, eq. 3; variance: Rybkin et al. 2021, eq. 5; two stages: Rombach et al. 2022; "
        "priors: Lipman et al. 2023, eq. 23; Vincent & Bengio 2003, section 3; "
        "perceptual distance: Zhang et al. 2018, eq. 1, features of a recogniser of the training images"
    )
    kept = ("decoder", "prior")
    explained = EXPLAINED

    def plan(self, spec: Spec) -> Mapping[str, Any]:
        """Return batch, learning rate, width, latent size and beta for this shape."""
        pixels = spec.shape[0] * spec.shape[1] * spec.shape[2]
        latent = 16 if pixels <= 300 else 48 if pixels <= 1600 else 96 if pixels <= 6400 else 160
        wide = 96 if spec.recipe.device == "cuda" else 32
        batch = 128 if pixels <= 300 or spec.recipe.device == "cuda" else 64
        return {
            "batch": batch,
            "learning_rate": 2e-3,
            "width": wide,
            "latent": latent,
            "beta": 0.3,
            "half_life": 20_000,
            "prior": "flow" if self._flows(spec) else "local",
            "texture": 0 if self._flows(spec) else min(TEXTURE, pixels // 3),
        }

    def noise(self, spec: Spec) -> int:
        """Return the size of the latent, and what local Gaussians take besides."""
        return int(spec.recipe.latent or 0) + (0 if spec.recipe.prior == "flow" else EXTRA)

    @staticmethod
    def _flows(spec: Spec) -> bool:
        return spec.recipe.prior == "flow" or (spec.recipe.prior == "auto" and spec.recipe.device != "cpu" and min(spec.counts) >= FEW)

    def stages(self, spec: Spec) -> Sequence[Stage]:
        """Return the stages: recogniser, autoencoder and, where that is the prior, the flow."""
        flows = self._flows(spec)
        eyes = Stage("eyes", self._build_eyes, self._see, share=0.1, averaged=("eyes",))
        autoencoder = Stage("autoencoder", self._build, self._step, share=0.65 if flows else 0.9, averaged=("encoder", "decoder"))
        flow = Stage("flow", self._build_flow, self._flow, share=0.25, averaged=("prior",), inputs=self._latents, times=8)
        return [eyes, autoencoder, flow] if flows else [eyes, autoencoder]

    def _build_eyes(self, state: State) -> None:
        eyes = Eyes(state.spec, GROUPS * -(-max(SEEING, int(state.spec.recipe.width or 0) // 2) // GROUPS))
        state.modules["eyes"] = eyes
        if state.trains:
            state.optimizers["eyes"] = adam(eyes.parameters(), state, betas=(0.9, 0.999), decay=1e-2)

    def _see(self, state: State, images: torch.Tensor, labels: torch.Tensor, done: float) -> Mapping[str, torch.Tensor]:
        logits = state.modules["eyes"](images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        return {"recognition": descend(state.optimizers["eyes"], loss), "right": (logits.argmax(1) == labels).float().mean()}

    def _build(self, state: State) -> None:
        spec, recipe = state.spec, state.spec.recipe
        width, latent = int(recipe.width or 0), int(recipe.latent or 0)
        encoder, decoder = Encoder(spec, width, latent), Decoder(spec, width, latent)
        texture = Texture(int(recipe.texture), spec.shape) if recipe.texture else None
        prior = ClassGaussians(spec.classes, latent) if self._flows(spec) else LocalGaussians(spec.counts, latent, texture)
        state.modules |= {"encoder": encoder, "decoder": decoder, "prior": prior}
        state.modules["eyes"].requires_grad_(False)
        weights = [*encoder.parameters(), *decoder.parameters()]
        if state.trains:
            state.optimizers["autoencoder"] = adam(weights, state, betas=(0.9, 0.99), decay=1e-4)

    def _step(self, state: State, images: torch.Tensor, labels: torch.Tensor, done: float) -> Mapping[str, torch.Tensor]:
        eyes = state.modules["eyes"]
        mean, log_variance = state.modules["encoder"](images)
        latents = mean + normal_like(mean) * (0.5 * log_variance).exp()
        painted = state.modules["decoder"](latents, labels).float()
        nats = losses.gaussian_nats(images, painted, losses.best_variance(images, painted))
        kl = losses.gaussian_kl(mean, log_variance)
        bound = losses.elbo(nats, kl, 1.0 if state.spec.recipe.beta is None else state.spec.recipe.beta)
        with torch.no_grad():
            wanted = eyes.layers(images)
        distance = losses.perceptual(wanted, eyes.layers(painted))
        loss = descend(state.optimizers["autoencoder"], bound / images[0].numel() + PERCEPTION * distance)
        return {"loss": loss, "elbo": bound.detach(), "nats": nats.mean().detach(), "kl": kl.mean().detach(), "perceptual": distance.detach()}

    def _build_flow(self, state: State) -> None:
        spec, recipe = state.spec, state.spec.recipe
        flow = Flow(spec.classes, int(recipe.latent or 0))
        state.modules["prior"] = flow
        if state.trains:
            state.optimizers["flow"] = adam(flow.parameters(), state, step=FLOW * (recipe.learning_rate or 0.0), betas=(0.9, 0.99), decay=1e-4)

    @torch.no_grad()
    def _latents(self, state: State, images: Walk) -> torch.Tensor:
        """Return mean and variance of the posterior [N, 2 latent] of every training image, standardised by the flow's own scale."""
        mean, variance, _ = _posteriors(state, images)
        flow = state.modules["prior"]
        flow.fit_scale(mean.to(flow.mean), variance.to(flow.mean))
        return torch.cat([flow.standard(mean.to(flow.mean)), variance.to(flow.mean) / flow.deviation.square()], dim=1).cpu()

    def _flow(self, state: State, posteriors: torch.Tensor, labels: torch.Tensor, done: float) -> Mapping[str, torch.Tensor]:
        mean, variance = posteriors.chunk(2, dim=1)
        loss = state.modules["prior"].loss(mean + variance.sqrt() * normal_like(mean), labels)
        return {"flow": descend(state.optimizers["flow"], loss)}

    def finish(self, state: State, images: Walk) -> None:
        """Fit Gaussians to the posteriors of the training images, where no flow is learnt yet, and to what the decoder leaves out of them."""
        prior = state.modules["prior"]
        if isinstance(prior, LocalGaussians) and prior.texture is not None:
            posteriors = _posteriors(state, images)
            every = prior.texture.every(len(posteriors[0]))
            prior.texture.fit(torch.cat(list(_left_out(state, images, posteriors[0], every))))
            prior.fit(*posteriors, torch.cat([prior.texture.numbers(left).cpu() for left in _left_out(state, images, posteriors[0])]))
        elif not isinstance(prior, Flow):
            prior.fit(*_posteriors(state, images))

    def sample(self, state: State, labels: torch.Tensor, noise: torch.Tensor, spread: float, guidance: float) -> torch.Tensor:
        """Return images float [N, C, H, W] in [-1, 1] for labels [N] and noise [N, latent]."""
        prior = state.modules["prior"]
        drawn = prior(labels, noise, spread, guidance)
        latents = drawn[:, : int(state.spec.recipe.latent or 0)]
        images = state.modules["decoder"](latents, labels).float()
        if isinstance(prior, LocalGaussians) and prior.texture is not None:
            images = images + prior.texture(drawn[:, latents.shape[1] :]).view_as(images)
        return images.clamp(-1, 1)


@torch.no_grad()
def _posteriors(state: State, images: Walk) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return means and variances [N, latent] of the posteriors and labels [N] of all training images, on the CPU."""
    found = []
    for pictures, labels in images(walked(state)):
        mean, log_variance = state.modules["encoder"](pictures)
        found.append((mean.cpu(), log_variance.exp().cpu(), labels.cpu()))
    means, variances, labels_of = (torch.cat(parts) for parts in zip(*found, strict=True))
    return means, variances, labels_of


@torch.no_grad()
def _left_out(state: State, images: Walk, means: torch.Tensor, every: int = 1) -> Iterator[torch.Tensor]:
    """Yield what the decoder leaves out of the training images [N, C, H, W], of one in so many, by their posterior means [N, latent]."""
    for (pictures, labels), own in zip(images(walked(state)), means.split(walked(state)), strict=True):
        yield pictures[::every] - state.modules["decoder"](own[::every].to(pictures), labels[::every]).float()
