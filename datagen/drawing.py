"""How a family's images are drawn, in production and where `fit` chooses by them: memory layout, precision by a timing, and pixels."""

from __future__ import annotations

import copy
import functools
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datagen import machine, seeds, turns
from datagen.contracts import Family, State

if TYPE_CHECKING:
    import torch

LAYOUTS = {"cpu": "channels-last"}
"""memory layout by device, contiguous elsewhere: measured up to a quarter faster; it decides last bits, so it is part of the production id"""
TIMED, LONG = 64, 2.0
"""images that are drawn at once, as in production, and seconds after which there are no further turns"""
WORTH = 1.1
"""times as fast as fp32 bf16 must be: it moves pixels by one or two of 255"""


def laid(module: Any, device: str) -> Any:
    """Return a module in the memory layout of a device."""
    import torch

    return module.to(memory_format=torch.channels_last) if LAYOUTS.get(device) == "channels-last" else module


def drawn(family: Family, state: State, arguments: tuple[torch.Tensor, torch.Tensor], scales: tuple[float, float], precision: str = "fp32") -> torch.Tensor:
    """Return what a family samples, float32 as it comes.

    Args:
        family: of the state's nets.
        state: its nets, to be sampled.
        arguments: labels int64 [N] and noise float32 [N, noise], on the nets' device.
        scales: spread and guidance.
        precision: "fp32", or "bf16" (autocast).
    """
    import torch

    with torch.inference_mode(), torch.autocast(arguments[0].device.type, torch.bfloat16, enabled=precision == "bf16"):
        return family.sample(state, *arguments, *scales).float()


def pixels(images: torch.Tensor) -> np.ndarray:
    """Return uint8 [N, H, W, C] of images float [N, C, H, W] in [-1, 1]; what lies outside is brought to the edge."""
    import torch

    found: np.ndarray = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return found


def numbered(
    family: Family, state: State, device: str, names: Sequence[str], labels: np.ndarray, places: np.ndarray, spread: float = 1.0, precision: str = "fp32"
) -> np.ndarray:
    """Return images uint8 [N, H, W, C] whose noise follows from the fit's seed, a name and a number alone.

    Args:
        family: of the state's nets.
        state: its nets, to be sampled.
        device: where they are.
        names: of the noise of each class; a class's own name gives what `synthesize` with the same seed draws.
        labels: int64 [N].
        places: int64 [N], the number of each image of its class.
        spread: of the noise.
        precision: as for `drawn`.
    """
    import torch

    seed, size = state.spec.recipe.seed, family.noise(state.spec)
    noise = np.stack([seeds.image_noise(seed, names[k], int(i), 0, size) for k, i in zip(labels, places, strict=True)])
    arguments = (torch.from_numpy(labels).to(device), torch.from_numpy(noise).to(device))
    return pixels(drawn(family, state, arguments, (spread, 0.0), precision))


def timed(family: Family, state: State, device: str, asked: str = "auto") -> dict[str, Any]:
    """Return the precision that draws fastest here, by a short timing on one compute thread, as the generator's card has it.

    Args:
        family: of the state's nets.
        state: as built, trained or not; a copy is timed.
        device: cpu, cuda or mps (where only fp32 is known to draw well).
        asked: fp32 or bf16 are taken untimed.

    Returns:
        value ("fp32" or "bf16"), why, device, chip (half-precision instructions of the CPU): it holds where those two agree.
    """
    import torch

    here = {"device": device, "chip": machine.half()}
    if asked != "auto":
        return {"value": asked, "why": "as asked", **here}
    nets = {name: laid(copy.deepcopy(state.modules[name]).to(device), device).eval() for name in family.kept}
    sampled, many = State(state.spec, nets), state.spec.classes
    noise = torch.zeros(TIMED, family.noise(state.spec), device=device)
    arguments = (torch.arange(TIMED, device=device) % many, noise)
    names = ("fp32", "bf16") if device in {"cpu", "cuda"} else ("fp32",)

    def draw(precision: str) -> float:
        begun = time.perf_counter()
        pixels(drawn(family, sampled, arguments, (1.0, 0.0), precision))
        return time.perf_counter() - begun

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in names:
            draw(name)
        seconds = turns.taken([functools.partial(draw, name) for name in names], long=LONG)
    finally:
        torch.set_num_threads(threads)
    why = f"{TIMED} images on one thread: {', '.join(f'{name} {1000 * statistics.median(each):.3g} ms' for name, each in zip(names, seconds, strict=True))}"
    return {"value": names[turns.first(seconds, WORTH)], "why": why, **here}


def precision_of(chosen: Mapping[str, Any], device: str) -> str:
    """Return the precision that a card's `chosen` says for a device: fp32 unless a timing there, on a processor of this kind, said otherwise."""
    known = chosen.get("precision")
    if not isinstance(known, Mapping) or known.get("value") != "bf16" or known.get("device") != device:
        return "fp32"
    return "bf16" if device != "cpu" or known.get("chip") == machine.half() else "fp32"
