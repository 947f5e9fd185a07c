"""Generators as files: any changed byte is found, newer ones are refused, the user's own family is the one it was fitted with."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synthetic

from datagen.errors import ArtefactError
from datagen.synthesis.generator import chosen, open_generator, read_card


def test_a_generator_computes_images(tmp_path: Path) -> None:
    generator = open_generator(synthetic.generator(tmp_path))
    labels, noise = np.array([0, 1, 2, 2]), np.random.default_rng(0).standard_normal((4, 5), dtype=np.float32)
    images = generator.images(labels, noise, 1.0, 0.0)
    assert images.dtype == np.uint8
    assert images.shape == (4, 8, 8, 3)
    assert np.array_equal(images, generator.images(labels, noise, 1.0, 0.0))
    assert not np.array_equal(images, generator.images(labels, noise, 0.1, 0.0))
    assert not np.array_equal(images[:1], generator.images(labels[1:2], noise[:1]))
    assert generator.card.classes == ("a", "b", "c")
    assert set(generator.state.modules) == {"net"}
    assert len(generator.hash) == 64


def test_opening_leaves_the_random_state_alone(tmp_path: Path) -> None:
    import torch

    run = synthetic.generator(tmp_path)
    torch.manual_seed(1)
    first = torch.rand(3)
    torch.manual_seed(1)
    open_generator(run)
    assert torch.equal(first, torch.rand(3))


def test_every_flip_and_cut_is_found(tmp_path: Path) -> None:
    folder = synthetic.generator(tmp_path) / "generator"
    rng = random.Random(1)
    for name in ("card.json", "weights.safetensors"):
        raw = (folder / name).read_bytes()
        step = 3 if name == "card.json" else 97
        for place in range(0, len(raw), step):
            bad = bytearray(raw)
            bad[place] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(bad)
            with pytest.raises(ArtefactError):
                open_generator(folder)
        for length in {0, 1, len(raw) // 2, len(raw) - 1}:
            (folder / name).write_bytes(raw[:length])
            with pytest.raises(ArtefactError):
                open_generator(folder)
        (folder / name).write_bytes(raw)
    open_generator(folder)


def test_a_newer_generator_names_the_version_it_needs(tmp_path: Path) -> None:
    run = synthetic.generator(tmp_path, card={"schema": 2, "version": "3.4.5", "something_new": 1})
    with pytest.raises(ArtefactError, match=r"needs datagen >= 3\.4\.5"):
        open_generator(run)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["a", "a", "c"]},
        {"shape": [3, 8]},
        {"shape": [3, 8, 16]},
        {"noise": 4},
        {"hashes": {}},
        {"hashes": {"../card.json": "0"}},
        {"family": "unknown", "family_hash": ""},
        {"settings": {"nonsense": 1}},
        {"settings": {"batch": "many"}},
        {"counts": [1]},
    ],
)
def test_a_card_that_contradicts_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ArtefactError):
        open_generator(synthetic.generator(tmp_path, card=change))


def test_a_card_without_a_seal_is_read_and_unknown_keys_refused(tmp_path: Path) -> None:
    folder = synthetic.generator(tmp_path) / "generator"
    value = json.loads((folder / "card.json").read_bytes())
    del value["seal"]
    (folder / "card.json").write_text(json.dumps(value))
    assert read_card(folder)[0].noise == 5
    (folder / "card.json").write_text(json.dumps(value | {"odd": 1}))
    with pytest.raises(ArtefactError):
        read_card(folder)


def missing_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def changed_family(folder: Path) -> None:
    for path in (folder / "mine.py", folder.parent.parent / "mine.py"):
        path.write_text(synthetic.FAMILY + "\n# another day\n")


def missing_family(folder: Path) -> None:
    for path in (folder / "mine.py", folder.parent.parent / "mine.py"):
        path.unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [(missing_weights, "copy the whole"), (changed_family, "not the file"), (missing_family, r"needs the file mine\.py"), (shutil.rmtree, "no fitted run")],
)
def test_what_is_missing_or_changed_is_said(tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    run = synthetic.generator(tmp_path)
    harm(run / "generator")
    with pytest.raises(ArtefactError, match=said):
        open_generator(run)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    import hashlib

    import torch
    from safetensors.torch import load, save

    folder = synthetic.generator(tmp_path) / "generator"
    weights = load((folder / "weights.safetensors").read_bytes())
    value = json.loads((folder / "card.json").read_bytes())
    del value["seal"]
    for change, said in (({"net.bias": weights["net.bias"] * float("nan")}, "no finite"), ({"net.more": torch.ones(1)}, "other tensors")):
        raw = save(weights | change)
        (folder / "weights.safetensors").write_bytes(raw)
        synthetic.write_card(folder, value | {"hashes": {"weights.safetensors": hashlib.sha256(raw).hexdigest()}})
        with pytest.raises(ArtefactError, match=said):
            open_generator(folder)


def test_what_fit_chose_is_a_number_or_has_a_reason(tmp_path: Path) -> None:
    card = read_card(synthetic.generator(tmp_path, card={"chosen": {"spread": {"value": 0.7, "reason": "best"}, "guidance": 1}}) / "generator")[0]
    assert (chosen(card, "spread", 1.0), chosen(card, "guidance", 0.0), chosen(card, "other", 9.0)) == (0.7, 1.0, 9.0)
