"""Epochs that take a part of a set: all before any again, shuffled, resumable, with loader workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import datagen
from datagen.errors import UsageError
from datagen.reading.turns import Turns


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 128 images."""
    out = tmp_path_factory.mktemp("turns") / "shards"
    datagen.synthesize("rule:shapes", out, per_class=64, shard_images=128, workers=1)
    return out


@given(total=st.integers(1, 40), count=st.integers(1, 90), epochs=st.integers(1, 6))
def test_every_row_comes_before_any_comes_again(total: int, count: int, epochs: int) -> None:
    turns, seen = Turns(total, count, "test"), []
    for epoch in range(epochs):
        turns.set_epoch(epoch)
        seen += [turns.row(place) for place in range(len(turns))]
    times = [seen.count(row) for row in range(total)]
    assert len(seen) == count * epochs and max(times) - min(times) <= 1
    assert all(sorted(seen[i : i + total]) == list(range(total)) for i in range(0, len(seen) - total + 1, total))


def test_an_epoch_is_one_shards_number_and_others_follow(shards: Path) -> None:
    rotating = datagen.ShardDataset(shards, rotate=True, seed=1)
    assert len(rotating) == 128 and len(datagen.ShardDataset(shards)) == 384
    epochs = []
    for epoch in range(3):
        rotating.set_epoch(epoch)
        loader = DataLoader(rotating, batch_size=32, num_workers=2)
        epochs.append(torch.cat([images for images, _ in loader]))
    assert len({image.numpy().tobytes() for epoch in epochs for image in epoch}) == 384
    rotating.set_epoch(1)
    state = rotating.state_dict(seen=100)
    again = datagen.ShardDataset(shards, rotate=True, seed=1)
    again.load_state_dict(state)
    assert len(again) == 28 and torch.equal(torch.stack([again[i][0] for i in range(28)]), epochs[1][100:])
    again.set_epoch(0)
    assert len(again) == 128 and torch.equal(again[0][0], epochs[0][0])
    labels = {image.numpy().tobytes(): label for image, label in (datagen.ShardDataset(shards)[i] for i in range(384))}
    assert all(labels[image.numpy().tobytes()] == label for image, label in (again[i] for i in range(20)))


def test_numbers_that_make_no_sense_are_refused(shards: Path) -> None:
    assert len(datagen.ShardDataset(shards, rotate=True, per_epoch=1000)) == 1000, "more than there are begins again"
    for wrong in ({"per_epoch": 5}, {"rotate": True, "per_epoch": 0}):
        with pytest.raises(UsageError, match="rotate=True"):
            datagen.ShardDataset(shards, **wrong)
