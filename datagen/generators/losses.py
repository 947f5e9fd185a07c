"""Every objective as a function of its own, with the paper and the equation it comes from.

D is the critic's probability of "real", a logit is its log-odds: D = sigmoid(logit). All losses are means over the
batch, to be minimised. Logits are float [N]; images float [N, C, H, W].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from datagen import ranks

LEAST = 1e-24
"""of the product of two squared lengths, so that nothing is divided by zero"""


def critic(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return -E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al. 2014, eq. 1); 2 log 2 at D = 1/2."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def minimax(fake: torch.Tensor) -> torch.Tensor:
    """Return the generator's E[log(1 - D(G(z)))] (Goodfellow et al. 2014, eq. 1); its gradient vanishes where D(G(z)) is near 0."""
    return -F.softplus(fake).mean()


def non_saturating(fake: torch.Tensor) -> torch.Tensor:
    """Return the generator's -E[log D(G(z))] (Goodfellow et al. 2014, section 3); its gradient stays where D(G(z)) is near 0."""
    return F.softplus(-fake).mean()


def hinge_critic(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))], D unbounded (Lim & Ye 2017, eq. 7; Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: torch.Tensor) -> torch.Tensor:
    """Return -E[D(G(z))], D unbounded (Lim & Ye 2017, eq. 8; Miyato et al. 2018, eq. 17)."""
    return -fake.mean()


def relativistic_critic(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return E[softplus(D(G(z)) - D(x))] over pairs (Jolicoeur-Martineau 2018, section 4; R3GAN, Huang et al. 2024, eq. 2)."""
    return F.softplus(fake - real).mean()


def relativistic_generator(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return E[softplus(D(x) - D(G(z)))] over pairs, the critic's loss mirrored (R3GAN, Huang et al. 2024, eq. 2)."""
    return F.softplus(real - fake).mean()


def gradient_penalty(logits: torch.Tensor, *images: torch.Tensor) -> torch.Tensor:
    """Return E[||d logit / d image||^2] [], summed over several sets of images, with a graph for a second backward pass.

    On real images this is R1, on generated ones R2 (Mescheder et al. 2018, eq. 9 and 10, without the factor gamma / 2).
    `images` must have required gradients before `logits` were computed from them; each may count in one logit alone, or in one sum of such.
    """
    gradients = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return torch.stack([gradient.square().sum(dim=(1, 2, 3)).mean() for gradient in gradients]).sum()


def perceptual(real: Sequence[torch.Tensor], painted: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the distance [] of two images in the layers of a net, [N, C, H, W] each (Zhang et al. 2018, eq. 1, all weights 1).

    Each place's features are brought to length 1 first; squared distances, 2 - 2 cos of the angle, are averaged over places and layers.
    """
    far = []
    for a, b in zip((x.float() for x in real), (x.float() for x in painted), strict=True):
        lengths = (a.square().sum(dim=1) * b.square().sum(dim=1)).clamp(min=LEAST).sqrt()
        far.append((2 - 2 * (a * b).sum(dim=1) / lengths).mean())
    return torch.stack(far).mean()


def gaussian_kl(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) in nats for each image [N] (Kingma & Welling 2013, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def gaussian_nats(images: torch.Tensor, painted: torch.Tensor, variance: torch.Tensor | float) -> torch.Tensor:
    """Return -log N(image; painted, variance) in nats for each image [N] (Kingma & Welling 2013, appendix C.2)."""
    variance = torch.as_tensor(variance, dtype=painted.dtype, device=painted.device)
    squares = (images - painted).square().flatten(1)
    return 0.5 * (squares / variance + torch.log(2 * math.pi * variance)).sum(dim=1)


def best_variance(images: torch.Tensor, painted: torch.Tensor, least: float = 1e-5) -> torch.Tensor:
    """Return the variance [] under which the images are most likely, their mean squared error (sigma-VAE, Rybkin et al. 2021, eq. 5).

    Where several processes share a batch it is that of the whole batch, a constant: the gradient of `gaussian_nats` is the same.
    """
    error = (images - painted).square().mean()
    if ranks.shares() > 1:
        error = error.detach().clone()
        ranks.average([error])
    return error.clamp(min=least)


def elbo(nats: torch.Tensor, kl: torch.Tensor, beta: float = 1.0) -> torch.Tensor:
    """Return the negative evidence lower bound in nats an image [] (Kingma & Welling 2013, eq. 3; beta: Higgins et al. 2017, eq. 4)."""
    return (nats + beta * kl).mean()
