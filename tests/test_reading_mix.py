"""Real and synthetic images in one dataset: classes by name, ratio, other images each epoch, loader workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

import datagen
from datagen.errors import InputError, UsageError

Maker = Callable[..., Path]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Thirty squares and ten circles."""
    (tmp_path / "quota.json").write_text(json.dumps({"square": 30, "circle": 10}))
    datagen.synthesize("rule:shapes", tmp_path / "shards", quota=str(tmp_path / "quota.json"), workers=1)
    return tmp_path / "shards"


def test_labels_are_those_of_the_real_set_by_name(make_folder: Maker, shards: Path) -> None:
    real = make_folder(classes=["aaa", "circle", "square"], each=5, size=(32, 32))
    made = datagen.mix(real, shards, ratio=2)
    assert (len(made), made.real, made.synthetic, made.classes) == (45, 15, 30, ("aaa", "circle", "square"))
    found = [made[i] for i in range(len(made))]
    alone = datagen.ShardDataset(shards)
    known = {alone[i][0].numpy().tobytes(): alone.classes[alone[i][1]] for i in range(len(alone))}
    assert all(known[image.numpy().tobytes()] == made.classes[label] for image, label in found[15:])
    assert len({image.numpy().tobytes() for image, _ in found[15:]}) == 30
    assert Counter(label for _, label in found[:15]) == {0: 5, 1: 5, 2: 5}
    with pytest.raises(IndexError):
        made[45]


def test_every_epoch_draws_others_until_all_were_seen(make_folder: Maker, shards: Path) -> None:
    made = datagen.mix(make_folder(classes=["circle", "square"], each=5, size=(32, 32)), shards)
    seen = []
    for epoch in range(4):
        made.set_epoch(epoch)
        seen.append([made[i][0].numpy().tobytes() for i in range(10, 20)])
    assert len(set().union(*map(set, seen))) == 40
    made.set_epoch(0)
    assert [made[i][0].numpy().tobytes() for i in range(10, 20)] == seen[0]
    assert len(datagen.mix(made._real, shards, ratio=None)) == 50


def test_a_part_of_a_set_each_epoch_keeps_its_labels(make_folder: Maker, shards: Path) -> None:
    alone = datagen.ShardDataset(shards)
    known = {alone[i][0].numpy().tobytes(): alone.classes[alone[i][1]] for i in range(len(alone))}
    made = datagen.mix(
        make_folder(classes=["aaa", "circle", "square"], each=5, size=(32, 32)), datagen.ShardDataset(shards, rotate=True, per_epoch=10), ratio=None
    )
    seen = set()
    for epoch in range(4):
        made.set_epoch(epoch)
        found = [(image.numpy().tobytes(), made.classes[label]) for image, label in (made[i] for i in range(15, len(made)))]
        assert len(found) == 10 and all(known[image] == label for image, label in found)
        seen |= {image for image, _ in found}
    assert seen == set(known)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_beside_an_image_folder_and_with_workers(make_folder: Maker, shards: Path, context: str) -> None:
    real = ImageFolder(make_folder(classes=["circle", "square"], each=4, size=(32, 32), grey=True), transform=pil_to_tensor)
    made = datagen.mix(real, shards, ratio=1)
    loader = DataLoader(made, batch_size=4, num_workers=2, multiprocessing_context=context, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        made.set_epoch(epoch)
        images = torch.cat([batch for batch, _ in loader])
        assert images.shape == (16, 3, 32, 32)
        epochs.append({image.numpy().tobytes() for image in images[8:]})
    assert len(epochs[0] | epochs[1]) == 16, "workers that live on hear of the epoch"


def test_what_cannot_be_mixed_is_refused(make_folder: Maker, shards: Path) -> None:
    real = make_folder(classes=["circle", "sqare"], each=5, size=(32, 32))
    with pytest.raises(InputError, match=r"'square' is none of the real set's") as error:
        datagen.mix(real, shards)
    assert "did you mean 'sqare'" in error.value.hint
    with pytest.raises(UsageError, match="100 synthetic images are asked for, 40 are there"):
        datagen.mix(make_folder("other", classes=["circle", "square"], each=5, size=(32, 32)), shards, ratio=10)
    with pytest.raises(UsageError, match="has no classes"):
        datagen.mix(torch.utils.data.TensorDataset(torch.zeros(3)), shards)
    alone = datagen.mix(make_folder("more", classes=["circle", "square", "z"], each=5, size=(32, 32)), shards, ratio=0)
    assert (len(alone), alone.synthetic) == (15, 0)
