"""Several processes that train one generator together, as torchrun starts them: each computes its share of every batch."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from datagen.errors import ResourceError, Stopped

if TYPE_CHECKING:
    import torch

WAIT = datetime.timedelta(days=7)
"""how long the others wait while the first one scans, plans or finishes"""
_state = {"together": False}


def count() -> int:
    """Return how many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if {"RANK", "MASTER_ADDR"} <= set(os.environ) else 1


def abreast(device: str) -> int:
    """Return how many times as fast as one process, alone on its machine, those that train together may be: processes of one machine share its processors."""
    return count() if device != "cpu" else max(1, count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def rank() -> int:
    """Return this one's place among them; the first, 0, is the only one that writes and prints."""
    return int(os.environ["RANK"]) if count() > 1 else 0


@contextlib.contextmanager
def group(device: str) -> Iterator[None]:
    """Let the processes find each other; alone there is nothing to find.

    Args:
        device: "cuda" gives each process the GPU of its local rank.
    """
    if count() == 1:
        yield
        return
    import torch
    from torch import distributed

    if device == "cuda":
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise ResourceError(f"process {local + 1} of this machine has no GPU, there are {there}", where="torchrun", hint=f"--nproc-per-node {there}")
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=WAIT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Turn what a process that waits for others hears when one of them has ended into Stopped: that one has said why."""
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "CUDA error" in str(error):
            raise
        said = (str(error).strip().splitlines() or [""])[0][:200]
        hint = "its own message says why and what to do"
        raise Stopped(f"another of the processes that train together seems to have ended ({said})", hint=hint) from error


def barrier() -> None:
    """Wait until every process has come here."""
    if count() > 1:
        from torch import distributed

        with _alone():
            distributed.barrier()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within, batches are shared and gradients averaged; every process must take the same steps."""
    _state["together"] = count() > 1
    try:
        yield
    finally:
        _state["together"] = False


def shares() -> int:
    """Return among how many processes a batch is shared just now."""
    return count() if _state["together"] else 1


def own(size: int) -> slice:
    """Return which of `size` things of a whole batch are this process's; `size` is a multiple of `shares()`."""
    each = size // shares()
    return slice(each * rank(), each * (rank() + 1)) if shares() > 1 else slice(size)


def drawn(draw: Callable[[int], torch.Tensor], size: int) -> torch.Tensor:
    """Return random numbers for the `size` images that this process has of a batch, from those that one process would draw for all of it.

    Args:
        draw: returns numbers for so many images [N, ...] from torch's global generator, which is seeded alike everywhere.
        size: images here.
    """
    return draw(size * shares())[own(size * shares())]


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Put the mean over the processes in the place of each tensor."""
    if shares() > 1:
        import torch
        from torch import distributed

        whole = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with _alone():
            distributed.all_reduce(whole)
        for tensor, mean in zip(tensors, (whole / shares()).split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def anywhere(facts: Sequence[bool], device: str) -> list[bool]:
    """Return of each fact whether it holds in any process."""
    if shares() == 1:
        return list(facts)
    import torch

    found = torch.tensor([float(fact) for fact in facts], device=device)
    average([found])
    return [bool(value > 0) for value in found.tolist()]
