"""RUN/generator: all that `synthesize` needs, with the card written last."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datagen
from datagen import registry, storage
from datagen.contracts import Family, State
from datagen.recogniser import near
from datagen.records import FIT, NETS, SCHEMA, GeneratorCard
from datagen.training import checkpoint

WEIGHTS, FILTER = "weights.safetensors", "filter.safetensors"
NOT_NETS = {"budget", "images", "checkpoint_every", "grid_every"}


def write(
    folder: Path,
    family: Family,
    state: State,
    *,
    classes: Sequence[str],
    data: Mapping[str, Any],
    images_seen: int,
    chosen: Mapping[str, Any],
    filter: bytes = b"",
) -> Path:
    """Write weights and card of a fitted generator; returns the card's path.

    Args:
        folder: RUN/generator.
        family: the family that trained.
        state: its nets, moving averages in their places.
        classes: names in the order of the labels.
        data: fingerprint and counts of the training data; no path and no file name.
        images_seen: images shown, counting repeats.
        chosen: what was chosen, with reasons.
        filter: a recogniser as `recogniser.stored.pack` writes it, or nothing.
    """
    recipe, spec = state.spec.recipe, state.spec
    storage.make_folder(folder)
    weights = checkpoint.pack(checkpoint.named("", {name: state.modules[name] for name in family.kept}))
    _, sha256 = storage.replace(folder / WEIGHTS, weights)
    hashes = {WEIGHTS: sha256} | ({FILTER: storage.replace(folder / FILTER, filter)[1]} if filter else {})
    settings = {k: v for k, v in recipe.settings(FIT, NETS).items() if k not in NOT_NETS} | {"seed": recipe.seed}
    settings["family"] = _family_name(recipe.family)
    card = GeneratorCard(
        family=settings["family"],
        family_hash=registry.file_hash(recipe.family),
        classes=tuple(classes),
        shape=spec.shape,
        counts=spec.counts,
        images_seen=images_seen,
        settings=settings,
        chosen=chosen,
        data=data,
        hashes=hashes,
        noise=family.noise(spec),
        version=datagen.__version__,
    )
    storage.replace(folder / "card.json", storage.seal(dataclasses.asdict(card)))
    return folder / "card.json"


def write_reference(folder: Path, reference: near.Reference) -> str:
    """Write the training images as numbers, by which `synthesize` tells near-copies, and their card; returns the SHA-256.

    They are personal data where the images are: nothing of RUN/reference goes into a generator's folder or into shards.
    """
    storage.make_folder(folder)
    _, sha256 = storage.replace(folder / near.FILE, near.pack(reference))
    card = {"schema": SCHEMA, "version": datagen.__version__, "images": len(reference.labels), "hashes": {near.FILE: sha256}}
    storage.replace(folder / "card.json", storage.seal(card))
    return sha256


def _family_name(name: str) -> str:
    return name.rpartition("/")[2]
