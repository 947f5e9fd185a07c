"""Weights that a recogniser begins with, from a file of safetensors: every tensor by name and shape, the last linear layer aside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from datagen import storage
from datagen.errors import ArtefactError, UsageError, printable
from datagen.recogniser import nets

if TYPE_CHECKING:
    from datagen.recogniser.fit import Settings

WHERE = "--weights"
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""how files of torch.save and pickle begin"""
COUNTERS = "num_batches_tracked"
"""steps that a batch norm has seen; older files lack them"""
SIDE_HEADS = ("aux1.", "aux2.", "AuxLogits.")
"""second heads in torchvision's files of googlenet and inception_v3, which training here does without"""


def digest(path: str | None) -> str:
    """Return the SHA-256 of a file of weights as hex, "" for None; UsageError where there is no such file."""
    if path is None:
        return ""
    _check_file(path)
    return storage.hash_file(path)


def decided_by(settings: Settings) -> tuple[str, str]:
    """Return the SHA-256 of the user's own code of the net and of the file of weights, "" where there is none: they decide a result as settings do."""
    return nets.code_hash(settings.recogniser), digest(settings.weights)


def begin(net: nn.Module, path: str) -> int:
    """Give a net the weights of a file; nothing is downloaded or unpickled.

    The file must hold every tensor of the net by name and shape and nothing else. Only the last linear layer (the head) may
    be missing or of another shape, as it is with other classes: it stays as it was drawn then. For torchvision's models the
    names are torchvision's own.

    Args:
        net: as a recogniser built it, on the CPU.
        path: a .safetensors file.

    Returns:
        the number of tensors taken.

    Raises:
        UsageError: there is no such file, or it is of another net.
        ArtefactError: it is damaged, no safetensors (pickles are refused), or holds numbers that are not finite.
    """
    _check_file(path)
    inner = net.net if isinstance(net, nets.Adapted) else net
    wanted, head = inner.state_dict(), _head(inner)
    with _opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if isinstance(net, nets.Adapted):
            shapes = {name: shape for name, shape in shapes.items() if not name.startswith(SIDE_HEADS)}
        taken = _matched(path, shapes, {name: tuple(tensor.shape) for name, tensor in wanted.items()}, head)
        found = {name: file.get_tensor(name) for name in taken}
    for name, tensor in found.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtefactError(f"{printable(name)} holds numbers that are not finite", where=path)
    with torch.no_grad():
        for name, tensor in found.items():
            wanted[name].copy_(tensor)
    return len(found)


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise UsageError(f"{path!r} is no file", where=WHERE, hint="give a .safetensors file; nothing is downloaded")


def _opened(path: str) -> Any:
    """Return a file of safetensors for reading; ArtefactError where it is none."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        pickled = file.read(4).startswith(PICKLES)
    hint = "write it with safetensors.torch.save_file(net.state_dict(), FILE)"
    if pickled:
        raise ArtefactError("is a pickle, which can run code when it is read: refused", where=path, hint=hint)
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"is no whole safetensors file ({str(error)[:80]})", where=path, hint=hint) from error


def _head(net: nn.Module) -> str:
    """Return how names of the last linear layer's tensors begin, such as "fc."; " ", as no name does, where there is none."""
    names = [name for name, part in net.named_modules() if isinstance(part, nn.Linear)]
    return (f"{names[-1]}." if names[-1] else "") if names else " "


def _matched(path: str, there: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], head: str) -> list[str]:
    """Return the names to take; UsageError where the file is of another net."""
    body = {name for name in wanted if not name.startswith(head)}
    other = [name for name in sorted(body & there.keys()) if there[name] != wanted[name]]
    missing = sorted(name for name in body - there.keys() if not name.endswith(COUNTERS))
    more = sorted(name for name in there.keys() - wanted.keys() if not name.startswith(head))
    fitting = [name for name in wanted if there.get(name) == wanted[name]]
    wrong = len(other) + len(missing) + len(more)
    if not fitting or wrong:
        first = "it holds no tensor of the net"
        if other:
            first = f"{other[0]} is {list(there[other[0]])}, the net's is {list(wanted[other[0]])}"
        elif missing or more:
            first = f"{missing[0]} is missing" if missing else f"{more[0]} is no part of the net"
        what = "matches nothing of" if not fitting else f"differs in {wrong:,} of {len(body | there.keys()):,} tensors from"
        hint = "only the last linear layer may differ; is it of this --recogniser?"
        raise UsageError(f"{what} the recogniser: {first}", where=path, hint=hint)
    return fitting
