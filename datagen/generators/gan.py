"""Relativistic GAN with R1 + R2 penalties, no normalisation, class by projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from datagen.contracts import Spec, Stage, State, Walk
from datagen.generators import losses
from datagen.generators.augment import augment
from datagen.generators.descent import adam, descend
from datagen.generators.layers import Painter, Tower, class_mix, normal_like

EMBED = 64
FEATURES = 128
PENALTY_EVERY = 4


class Generator(nn.Module):
    """Noise [N, latent] joined with an embedded class [N, 64] to images [N, C, H, W]."""

    def __init__(self, spec: Spec, width: int, latent: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.classes, EMBED)
        self.painter = Painter(latent + EMBED, spec.shape, width)

    def forward(self, noise: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.painter(torch.cat([noise, condition], dim=1))


class Critic(nn.Module):
    """Images [N, C, H, W] to logits [N]: the inner product of features and embedded class (Miyato & Koyama 2018, eq. 3, second term)."""

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        self.tower = Tower(spec.shape, width, FEATURES)
        self.embed = nn.Embedding(spec.classes, FEATURES)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (self.tower(images).float() * self.embed(labels)).sum(dim=1) / FEATURES**0.5


EXPLAINED = {
    "critic": "E[softplus(D(G(z)) − D(x))] over pairs of one class: 0.69 is a draw",
    "generator": "E[softplus(D(x) − D(G(z)))] over the same pairs",
    "margin": "E[D(x) − D(G(z))]: by how much real images lead; near 0 is a draw",
    "penalty": "E‖∇D‖² on real and synthetic images (R1 + R2), 0 in steps without it",
    "whole": f"critic + gamma / 2 · {PENALTY_EVERY} · penalty in a step of {PENALTY_EVERY}, drawn at random: what the critic minimises",
}


class GAN:
    """Pairs of one real and one generated image of a class; the critic's gradient is held small on both (R3GAN, Huang et al. 2024)."""

    paper = "Huang et al. 2024 (arXiv 2501.05441), eq. 2 with R1 and R2; penalties: Mescheder et al. 2018, eq. 9 and 10, in one step of 4 (Karras et al. 2020)"
    kept = ("generator",)
    explained = EXPLAINED

    def plan(self, spec: Spec) -> Mapping[str, Any]:
        """Return settings for this shape; gamma grows with the number of pixels."""
        pixels = spec.shape[1] * spec.shape[2]
        wide, batch = (96, 64) if spec.recipe.device == "cuda" else (32, 32)
        return {
            "batch": batch,
            "learning_rate": 5e-4,
            "width": wide,
            "latent": 64,
            "gamma": 2.0 * pixels / 1024,
            "augment": "translate",
            "half_life": 10_000,
        }

    def noise(self, spec: Spec) -> int:
        """Return the size of the noise."""
        return int(spec.recipe.latent or 0)

    def stages(self, spec: Spec) -> Sequence[Stage]:
        """Return the one stage in which generator and critic play."""
        return [Stage("adversarial", self._build, self._step, averaged=("generator",))]

    def _build(self, state: State) -> None:
        recipe = state.spec.recipe
        width, latent = int(recipe.width or 0), int(recipe.latent or 0)
        nets = {"generator": Generator(state.spec, width, latent), "critic": Critic(state.spec, width)}
        state.modules |= nets
        for name, net in nets.items():
            if state.trains:
                state.optimizers[name] = adam(net.parameters(), state, betas=(0.0, 0.99))

    def _step(self, state: State, images: torch.Tensor, labels: torch.Tensor, done: float) -> Mapping[str, torch.Tensor]:
        recipe = state.spec.recipe
        generator, critic = state.modules["generator"], state.modules["critic"]
        penalised = torch.rand(()).item() < 1 / PENALTY_EVERY
        noise = normal_like(images.new_empty(len(images), self.noise(state.spec)))
        fake = generator(noise, generator.embed(labels))
        found = self._train_critic(state, images, fake.detach(), labels, penalised)

        with torch.no_grad():
            on_real = critic(augment(images, recipe.augment), labels)
        generator_loss = losses.relativistic_generator(on_real, critic(augment(fake, recipe.augment), labels))
        return {"generator": descend(state.optimizers["generator"], generator_loss), **found}

    def _train_critic(self, state: State, images: torch.Tensor, fake: torch.Tensor, labels: torch.Tensor, penalised: bool) -> dict[str, torch.Tensor]:
        recipe, critic = state.spec.recipe, state.modules["critic"]
        pair = [x.detach().requires_grad_(penalised) for x in (images, fake.float())]
        on_real, on_fake = critic(torch.cat([augment(x, recipe.augment) for x in pair]), labels.repeat(2)).chunk(2)
        loss = losses.relativistic_critic(on_real, on_fake)
        penalty = torch.zeros((), device=images.device)
        if penalised:
            penalty = losses.gradient_penalty(on_real + on_fake, *pair)
        whole = descend(state.optimizers["critic"], loss + 0.5 * (recipe.gamma or 0.0) * PENALTY_EVERY * penalty)
        return {"critic": loss.detach(), "margin": (on_real - on_fake).mean().detach(), "penalty": penalty.detach(), "whole": whole}

    def finish(self, state: State, images: Walk) -> None:
        """Nothing is fitted after the last step."""

    def sample(self, state: State, labels: torch.Tensor, noise: torch.Tensor, spread: float, guidance: float) -> torch.Tensor:
        """Return images float [N, C, H, W] in [-1, 1] for labels [N] and noise [N, latent]."""
        generator = state.modules["generator"]
        return generator(noise * spread, class_mix(generator.embed, labels, guidance)).float().clamp(-1, 1)
