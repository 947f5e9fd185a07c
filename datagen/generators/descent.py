"""The optimiser, and one step down a loss that a number that is none cannot spoil."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from datagen import ranks
from datagen.contracts import State


def adam(
    weights: Iterable[torch.nn.Parameter], state: State, *, step: float | None = None, betas: tuple[float, float], decay: float = 0.0
) -> torch.optim.AdamW:
    """Return Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), the recipe's learning rate unless `step` is given.

    But on Apple's GPUs it passes over each weight once, in place of once for each of its operations.
    """
    rate = state.spec.recipe.learning_rate or 0.0 if step is None else step
    return torch.optim.AdamW(weights, lr=rate, betas=betas, weight_decay=decay, fused=True if state.spec.recipe.device in {"cpu", "cuda"} else None)


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> torch.Tensor:
    """Take one optimisation step, and return the loss [] without gradient; where it or a gradient is no finite number the weights stay.

    Gradients are those of the optimiser's weights alone, not of other nets that the loss went through; what follows in the same
    step sees the new weights, in bf16, too. Where several processes train together the gradients are averaged over them. On a GPU
    nothing waits for the device: the optimiser itself passes over such a step there, or takes it with gradients of zero.
    """
    optimizer.zero_grad(set_to_none=True)
    own = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    loss.backward(inputs=own)
    weights = [p for p in own if p.grad is not None]
    gradients = [p.grad for p in weights if p.grad is not None]
    loss = loss.detach().clone()
    ranks.average([*gradients, loss])
    finite = torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all() & torch.isfinite(loss)
    if loss.device.type == "cpu":
        if finite:
            optimizer.step()
    elif optimizer.defaults.get("fused"):
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
    else:
        for weight in weights:
            assert weight.grad is not None
            weight.grad = torch.where(finite, weight.grad, torch.zeros((), device=weight.device, dtype=weight.dtype))
        optimizer.step()
    torch.clear_autocast_cache()
    return torch.where(finite, loss, torch.nan)
