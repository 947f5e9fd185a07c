"""One step down a loss that a number that is none cannot spoil."""

from __future__ import annotations

import torch

from datagen import ranks


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> torch.Tensor:
    """Take one optimisation step, and return the loss [] without gradient; where it or a gradient is no finite number the weights stay.

    Where several processes train together the gradients are averaged over them. On a GPU nothing waits for the device: the step is
    taken with gradients of zero there.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    weights = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    gradients = [p.grad for p in weights if p.grad is not None]
    loss = loss.detach().clone()
    ranks.average([*gradients, loss])
    finite = torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all() & torch.isfinite(loss)
    if loss.device.type == "cpu":
        if finite:
            optimizer.step()
    else:
        for weight in weights:
            assert weight.grad is not None
            weight.grad = torch.where(finite, weight.grad, torch.zeros((), device=weight.device, dtype=weight.dtype))
        optimizer.step()
    return torch.where(finite, loss, torch.nan)
