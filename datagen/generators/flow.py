"""A class-conditional prior over latents, learnt by flow matching: noise is carried to latents along straight lines."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from datagen.generators.layers import normal_like, uniform

TIMES = 64
"""numbers that a time is written in"""
STEPS = 8
"""of Heun's method from noise to latent"""
UNNAMED = 0.1
"""share of training latents whose class is hidden, for guidance"""


class Modulated(nn.Module):
    """x + last(silu(first(norm(x) scaled and shifted by the condition))), the last map at zero; [N, width] and [N, width] to [N, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.condition = nn.Linear(width, 2 * width)
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, width)
        for weights in (*self.condition.parameters(), *self.last.parameters()):
            nn.init.zeros_(weights)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.condition(condition).chunk(2, dim=1)
        return x + self.last(F.silu(self.first(self.norm(x) * (1 + scale) + shift)))


class Flow(nn.Module):
    """Velocities of latents between noise (time 0) and data (time 1), given the class (Lipman et al. 2023; Liu et al. 2023).

    Args:
        classes: number of classes.
        latent: numbers a latent has.
        width: of the residual blocks (layer norm scaled and shifted by time and class, Peebles & Xie 2023).
        blocks: how many.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, classes: int, latent: int, width: int = 512, blocks: int = 4) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("deviation", torch.ones(latent))
        self.way_in, self.way_out = nn.Linear(latent, width), nn.Linear(width, latent)
        self.embed, self.clock = nn.Embedding(classes + 1, width), nn.Linear(TIMES, width)
        self.blocks = nn.ModuleList(Modulated(width) for _ in range(blocks))
        for weights in self.way_out.parameters():
            nn.init.zeros_(weights)

    def velocity(self, x: torch.Tensor, time: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return velocities [N, latent] at places x [N, latent] (standardised) and times [N] between 0 and 1, for labels [N].

        The label after the last class is no class.
        """
        condition = F.silu(self.clock(_waves(time)) + self.embed(labels))
        h = self.way_in(x)
        for block in self.blocks:
            h = block(h, condition)
        velocity: torch.Tensor = self.way_out(F.silu(h))
        return velocity

    @torch.no_grad()
    def fit_scale(self, means: torch.Tensor, variances: torch.Tensor) -> None:
        """Take mean and deviation of the latents from posterior means and variances float [N, latent]."""
        self.mean.copy_(means.mean(dim=0))
        self.deviation.copy_((means.var(dim=0, unbiased=False) + variances.mean(dim=0)).sqrt().clamp(min=1e-6))

    def standard(self, latents: torch.Tensor) -> torch.Tensor:
        """Return latents [N, latent] with mean 0 and deviation 1."""
        return (latents - self.mean) / self.deviation

    def loss(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the flow-matching loss [] of standardised latents [N, latent]: times are logit-normal (Esser et al. 2024, section 3.1)."""
        time = normal_like(latents[:, 0]).sigmoid()
        labels = torch.where(uniform(len(labels), labels.device) < UNNAMED, self.embed.num_embeddings - 1, labels)
        noise = normal_like(latents)
        place = time[:, None] * latents + (1 - time[:, None]) * noise
        return (self.velocity(place, time, labels).float() - (latents - noise)).square().mean()

    def forward(self, labels: torch.Tensor, noise: torch.Tensor, spread: float = 1.0, guidance: float = 0.0) -> torch.Tensor:
        """Return latents [N, latent] for labels [N] and standard normal noise [N, latent], by Heun's method.

        Guidance moves velocities away from those of no class (Ho & Salimans 2022, eq. 6).
        """
        x = noise * spread
        times = torch.linspace(0, 1, STEPS + 1).tolist()
        for now, then in itertools.pairwise(times):
            first = self._guided(x, now, labels, guidance)
            second = self._guided(x + (then - now) * first, then, labels, guidance)
            x = x + (then - now) * 0.5 * (first + second)
        return x * self.deviation + self.mean

    def _guided(self, x: torch.Tensor, time: float, labels: torch.Tensor, guidance: float) -> torch.Tensor:
        at = torch.full((len(x),), time, device=x.device)
        wanted = self.velocity(x, at, labels).float()
        if guidance == 0:
            return wanted
        unnamed = self.velocity(x, at, torch.full_like(labels, self.embed.num_embeddings - 1)).float()
        return wanted + guidance * (wanted - unnamed)


def _waves(time: torch.Tensor) -> torch.Tensor:
    """Return times [N] as cosines and sines of 32 frequencies [N, 64] (Vaswani et al. 2017, section 3.5)."""
    frequencies = torch.exp(torch.arange(TIMES // 2, device=time.device) * (-math.log(1000.0) / (TIMES // 2)))
    angles = 2 * math.pi * 8 * time[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
