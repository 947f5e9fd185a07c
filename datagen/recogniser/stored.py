"""A trained recogniser as safetensors: the filter that travels with a generator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from datagen.errors import ArtefactError
from datagen.recogniser import nets
from datagen.recogniser.fit import Fitted, Settings

MEAN, DEVIATION, NET = "mean", "deviation", "net."
WIDTH = 16
"""of the small recogniser that filters"""


def pack(fitted: Fitted) -> bytes:
    """Return a small recogniser's weights with the mean and deviation of its images; equal weights give equal bytes."""
    from safetensors.torch import save

    tensors = {f"{NET}{name}": tensor for name, tensor in fitted.module.state_dict().items()} | {MEAN: fitted.mean, DEVIATION: fitted.deviation}
    return save({name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)})


def unpack(tensors: Mapping[str, torch.Tensor], classes: int, shape: tuple[int, int, int], device: str, where: object) -> Fitted:
    """Return the recogniser that `pack` wrote.

    Args:
        tensors: as they were read.
        classes: number of classes.
        shape: channels, height, width in pixels.
        device: where it computes.
        where: named by errors.

    Raises:
        ArtefactError: tensors are missing, of other shapes, or no finite numbers.
    """
    with torch.random.fork_rng(devices=[]):
        net = nets.Small(WIDTH).build(classes, shape)
    try:
        net.load_state_dict({name.removeprefix(NET): tensor for name, tensor in tensors.items() if name.startswith(NET)}, strict=True)
        mean, deviation = tensors[MEAN], tensors[DEVIATION]
    except (RuntimeError, KeyError) as error:
        raise ArtefactError(f"does not fit the filter's net: {str(error).splitlines()[-1].strip()}", where=where) from error
    if mean.shape != (shape[0],) or deviation.shape != (shape[0],) or not all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point()):
        raise ArtefactError("holds numbers that are not finite, or another number of channels", where=where)
    module = net.to(device).eval().requires_grad_(False)
    return Fitted(module, mean.to(device), deviation.to(device), Settings(width=WIDTH), device)


def confidence(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probability float32 [N] of each image's own label int64 [N] among probabilities [N, classes]."""
    found: np.ndarray = probabilities[np.arange(len(labels)), labels].astype(np.float32)
    return found
