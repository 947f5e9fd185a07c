"""Checkpoints of a fit: safetensors and a card that is written last, newest good one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from datagen import storage, tensors, untrusted
from datagen.contracts import State
from datagen.errors import ArtefactError, OutputError
from datagen.records import SCHEMA
from datagen.training.averaging import Average

KEEP = 2
CARD, WEIGHTS, STATE = "card.json", "weights.safetensors", "state.safetensors"
NUMBERS = ("schema", "stage", "images", "total_images", "rollbacks")
CARD_LIMIT = 1 << 20


def pack(named: Mapping[str, torch.Tensor]) -> bytes:
    """Return named tensors as safetensors bytes; equal tensors give equal bytes."""
    from safetensors.torch import save

    return save({name: named[name].detach().cpu().contiguous().clone() for name in sorted(named)})


def unpack(folder: Path, name: str, sha256: str) -> dict[str, torch.Tensor]:
    """Read tensors after their hash has been checked; ArtefactError where the file is missing or differs, or is no safetensors."""
    path = folder / name
    return tensors.loaded(untrusted.checked(path, sha256), path)


def named(prefix: str, nets: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Return the tensors of nets as "PREFIX/NET.PARAMETER"."""
    return {f"{prefix}{net}.{key}": tensor for net, module in nets.items() for key, tensor in module.state_dict().items()}


def _optimizer_tensors(state: State) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, optimizer in state.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            found |= {f"{name}/{index}/{key}": value for key, value in values.items() if isinstance(value, torch.Tensor)}
    return found


def save(folder: Path, state: State, averages: Mapping[str, Average], *, stage: int, images: int, total_images: int, rollbacks: int = 0) -> Path:
    """Write one checkpoint below `folder` and drop all but the newest `KEEP`; returns its path.

    Where the disk is full older checkpoints give way, all but the newest whole one; OutputError where that does not help.

    Args:
        folder: RUN/checkpoints.
        state: nets and optimisers.
        averages: moving averages by net.
        stage: index of the stage under way.
        images: images seen in this stage.
        total_images: images seen in all; names the checkpoint.
        rollbacks: how often the fit went back to a checkpoint.
    """
    path = folder / f"{total_images:012d}"
    weights = pack(named("net/", state.modules) | named("average/", {k: a.net for k, a in averages.items()}))
    content, card = {WEIGHTS: weights, STATE: pack(_optimizer_tensors(state))}, {"schema": SCHEMA, "stage": stage, "images": images}
    card |= {"total_images": total_images, "rollbacks": rollbacks}
    try:
        _write(path, content, card)
    except OutputError:
        _drop_all_but(1, folder, of=candidates(folder))
        _write(path, content, card)
    _drop_all_but(KEEP, folder, of=candidates(folder))
    return path


def _write(path: Path, content: Mapping[str, bytes], card: Mapping[str, Any]) -> None:
    if path.exists():
        storage.remove(path)
    storage.make_folder(path)
    hashes = {name: storage.create(path / name, raw)[1] for name, raw in content.items()}
    storage.create(path / CARD, storage.seal({**card, "hashes": hashes}))


def _drop_all_but(count: int, folder: Path, *, of: Sequence[Path]) -> None:
    """Remove checkpoints below `folder` but the newest `count` of some, and what lies there half written."""
    kept = set(sorted(of)[-count:])
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit()) if folder.is_dir() else ():
        if path not in kept:
            storage.remove(path)


def candidates(folder: Path) -> list[Path]:
    """Return the checkpoints that have a card, newest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.name.isdigit() and (p / CARD).is_file()), reverse=True)


def newest(folder: Path, warn: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, torch.Tensor]] | None:
    """Return (card, weights, optimiser tensors) of the newest whole checkpoint, or None; damaged ones are said and passed over."""
    for path in candidates(folder):
        try:
            card = read_card(path / CARD)
            return card, unpack(path, WEIGHTS, card["hashes"][WEIGHTS]), unpack(path, STATE, card["hashes"][STATE])
        except ArtefactError as error:
            warn(f"checkpoint {path} is damaged and passed over ({error})")
    return None


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of a checkpoint; ArtefactError where it is damaged or of a newer datagen.

    Cards of datagen 0.1.0 have no seal; what has neither a seal nor exactly their keys is damaged.
    """
    value = storage.read_json(path, limit=CARD_LIMIT)
    if not isinstance(value, dict):
        raise ArtefactError("is no card", where=path)
    if type(value.get("schema")) is int and value["schema"] > SCHEMA:
        raise ArtefactError("was written by a newer datagen", where=path, hint="update datagen")
    card = value if set(value) == {"hashes", *NUMBERS} else storage.read_sealed(path, limit=CARD_LIMIT)
    hashes = card.get("hashes")
    if set(card) != {"hashes", *NUMBERS} or any(type(card[name]) is not int or card[name] < 0 for name in NUMBERS):
        raise ArtefactError("is no card of a checkpoint", where=path)
    if not isinstance(hashes, dict) or set(hashes) != {WEIGHTS, STATE} or not all(isinstance(sha256, str) for sha256 in hashes.values()):
        raise ArtefactError("does not name the files beside it", where=path)
    return card


def load_nets(weights: Mapping[str, torch.Tensor], prefix: str, nets: Mapping[str, torch.nn.Module]) -> None:
    """Load "PREFIX/NET.PARAMETER" tensors into nets, all names and shapes equal; ArtefactError otherwise."""
    for name, net in nets.items():
        start = f"{prefix}{name}."
        own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        try:
            net.load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise ArtefactError(f"does not fit the net {name!r}: {str(error).splitlines()[-1].strip()}", where="checkpoint") from error


def _arrange(optimizer: torch.optim.Optimizer) -> None:
    """Bring what an optimiser keeps for each weight into that weight's memory layout, which fused steps take for granted."""
    for weight, kept in optimizer.state.items():
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                kept[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def load_optimizers(found: Mapping[str, torch.Tensor], state: State) -> None:
    """Load what `save` wrote of the optimisers of the stage under way; ArtefactError where it is of other ones."""
    for name, optimizer in state.optimizers.items():
        current = optimizer.state_dict()
        current["state"] = {}
        try:
            for key, value in found.items():
                owner, index, field = key.rsplit("/", 2)
                if owner == name:
                    current["state"].setdefault(int(index), {})[field] = value
            optimizer.load_state_dict(current)
            _arrange(optimizer)
        except (ValueError, KeyError, RuntimeError) as error:
            raise ArtefactError(f"does not fit the optimiser {name!r}", where="checkpoint") from error
