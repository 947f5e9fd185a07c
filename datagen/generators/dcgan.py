"""The classic conditional DCGAN, with the minimax or the non-saturating loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from datagen.contracts import Spec, Stage, State, Walk
from datagen.generators import losses
from datagen.generators.augment import augment
from datagen.generators.descent import adam, descend
from datagen.generators.layers import Up, class_mix, normal_like, resolutions, widths


def _start(module: nn.Module) -> None:
    """Draw weights as Radford et al. 2015, section 4: normal with deviation 0.02."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)


class Generator(nn.Module):
    """Noise [N, latent] joined with an embedded class to images [N, C, H, W] by transposed convolutions."""

    def __init__(self, spec: Spec, width: int, latent: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.classes, latent)
        sizes = resolutions(*spec.shape[1:])[::-1]
        channels = widths(len(sizes), width)[::-1]
        self.start = (channels[0], *sizes[0])
        self.stem = nn.Linear(2 * latent, math.prod(self.start))
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for (inward, outward), size in zip(pairwise(channels), sizes[1:], strict=True):
            layers += [Up(inward, outward, size), nn.BatchNorm2d(outward), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(channels[-1], spec.shape[0], 3, padding=1), nn.Tanh())
        self.apply(_start)

    def forward(self, noise: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(torch.cat([noise, condition], dim=1)).unflatten(1, self.start))


class Critic(nn.Module):
    """Images [N, C, H, W] joined with a plane that follows the class to logits [N], by strided convolutions."""

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        self.plane = nn.Embedding(spec.classes, math.prod(spec.shape[1:]))
        sizes = resolutions(*spec.shape[1:])
        channels = widths(len(sizes), width)
        layers: list[nn.Module] = [nn.Conv2d(spec.shape[0] + 1, channels[0], 5, padding=2), nn.LeakyReLU(0.2)]
        for inward, outward in pairwise(channels):
            layers += [nn.Conv2d(inward, outward, 5, stride=2, padding=2), nn.BatchNorm2d(outward), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * math.prod(sizes[-1]), 1))
        self.apply(_start)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        plane = self.plane(labels).view(-1, 1, *images.shape[2:])
        return self.body(torch.cat([images, plane.to(images.dtype)], dim=1)).float().flatten()


EXPLAINED = {
    "critic": "E[−log D(x)] + E[−log(1 − D(G(z)))]: 1.39 where the critic cannot tell real from synthetic",
    "generator": "E[−log D(G(z))], or E[log(1 − D(G(z)))] with loss = minimax",
    "d_real": "D(x): how real the critic takes real images to be, 0 to 1",
    "d_fake": "D(G(z)): how real it takes synthetic ones to be; both near 0.5 is a draw",
}


class DCGAN:
    """Two nets against each other (Goodfellow et al. 2014) in the shape of Radford et al. 2015, conditional on the class."""

    paper = "Goodfellow et al. 2014, eq. 1 and section 3; nets: Radford et al. 2015; class condition: Mirza & Osindero 2014, eq. 2"
    kept = ("generator",)
    explained = EXPLAINED

    def plan(self, spec: Spec) -> Mapping[str, Any]:
        """Return the paper's settings: batch 128, step size 2e-4, noise of 64 numbers here."""
        wide = 64 if spec.recipe.device == "cuda" else 32
        return {"batch": 128, "learning_rate": 2e-4, "width": wide, "latent": 64, "augment": "translate", "half_life": 10_000}

    def noise(self, spec: Spec) -> int:
        """Return the size of the noise."""
        return int(spec.recipe.latent or 0)

    def stages(self, spec: Spec) -> Sequence[Stage]:
        """Return the one stage in which generator and critic play."""
        return [Stage("adversarial", self._build, self._step, averaged=("generator",), schedule="constant")]

    def _build(self, state: State) -> None:
        recipe = state.spec.recipe
        width, latent = int(recipe.width or 0), int(recipe.latent or 0)
        nets = {"generator": Generator(state.spec, width, latent), "critic": Critic(state.spec, width)}
        state.modules |= nets
        for name, net in nets.items():
            if state.trains:
                state.optimizers[name] = adam(net.parameters(), state, betas=(0.5, 0.999))

    def _step(self, state: State, images: torch.Tensor, labels: torch.Tensor, done: float) -> Mapping[str, torch.Tensor]:
        generator, critic, recipe = state.modules["generator"], state.modules["critic"], state.spec.recipe
        noise = normal_like(images.new_empty(len(images), self.noise(state.spec)))
        fake = generator(noise, generator.embed(labels))
        on_real = critic(augment(images, recipe.augment), labels)
        on_fake = critic(augment(fake.detach(), recipe.augment), labels)
        critic_loss = losses.critic(on_real, on_fake)
        on_critic = descend(state.optimizers["critic"], critic_loss)

        objective = losses.minimax if recipe.loss == "minimax" else losses.non_saturating
        generator_loss = objective(critic(augment(fake, recipe.augment), labels))
        on_generator = descend(state.optimizers["generator"], generator_loss)
        share = torch.stack([torch.sigmoid(on_real).mean(), torch.sigmoid(on_fake).mean()]).detach()
        return {"critic": on_critic, "generator": on_generator, "d_real": share[0], "d_fake": share[1]}

    def finish(self, state: State, images: Walk) -> None:
        """Nothing is fitted after the last step."""

    def sample(self, state: State, labels: torch.Tensor, noise: torch.Tensor, spread: float, guidance: float) -> torch.Tensor:
        """Return images float [N, C, H, W] in [-1, 1] for labels [N] and noise [N, latent]."""
        generator = state.modules["generator"]
        return generator(noise * spread, class_mix(generator.embed, labels, guidance)).float()
