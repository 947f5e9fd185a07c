"""Probabilities in place of labels: of shards in every format, of fresh images, and beside real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_synthesis_filter import fitted
from torch.utils.data import DataLoader

import datagen
from datagen import registry
from datagen.errors import ArtefactError, InputError, UsageError
from datagen.reading.located import locate
from datagen.reading.shards import load

__all__ = ["fitted"]
Make = Callable[..., Path]


def shards(run: Path, out: Path, format: str = "parquet", **settings: object) -> Path:
    """Make thirty images of each class in two shards."""
    settings = {"per_class": 30, "shard_images": 60, "workers": 1, "device": "cpu", "min_confidence": 0.0, "keep_near_copies": True} | settings
    datagen.synthesize(run, out, format=format, **settings)
    return out


@pytest.mark.parametrize("format", list(registry.names("formats")))
def test_each_image_comes_with_its_probabilities(fitted: Path, tmp_path: Path, format: str) -> None:
    out = shards(fitted, tmp_path / "set", format)
    hard, soft, whole = datagen.ShardDataset(out), datagen.ShardDataset(out).soft(), load(out)
    assert whole.probabilities is not None and len(soft) == len(hard) == 90
    known = {image.tobytes(): row for image, row in zip(whole.images, whole.probabilities, strict=True)}
    for (image, label), (same, given), (_, alone) in zip(hard, soft, soft.soft(1), strict=True):
        assert torch.equal(image, same) and isinstance(label, int)
        assert given.dtype == torch.float32 and given.sum().item() == pytest.approx(1, abs=1e-6)
        expected = known[image.permute(1, 2, 0).numpy().tobytes()]
        assert np.allclose(alone, expected, atol=2e-3) and np.allclose(given, (expected + np.eye(3)[label]) / 2, atol=2e-3)
    assert (soft.labels == hard.labels).all()


def test_they_are_what_cross_entropy_takes(fitted: Path, tmp_path: Path) -> None:
    data = datagen.ShardDataset(shards(fitted, tmp_path / "set"), rotate=True, per_epoch=45).soft()
    images, given = next(iter(DataLoader(data, batch_size=16)))
    assert images.shape == (16, 1, 16, 16) and given.shape == (16, 3)
    assert torch.nn.functional.cross_entropy(torch.zeros(16, 3), given).item() == pytest.approx(np.log(3), abs=1e-5)
    part = data.share(1, 2)
    assert torch.equal(part[0][1], data[1][1])


def test_a_set_without_them_is_refused(tmp_path: Path, make_folder: Make) -> None:
    datagen.synthesize("rule:shapes", tmp_path / "rule", per_class=4, workers=1)
    for path in (tmp_path / "rule", make_folder(each=4)):
        with pytest.raises(InputError, match="no probabilities"):
            datagen.ShardDataset(path).soft()
    with pytest.raises(UsageError, match="labels alone"):
        locate("s3://bucket/set", soft=True)
    with pytest.raises(InputError, match="no filter"):
        next(iter(datagen.StreamDataset("rule:shapes", per_epoch=64).soft()))


def test_a_set_that_changed_meanwhile_is_not_mixed_up(fitted: Path, tmp_path: Path) -> None:
    out = shards(fitted, tmp_path / "set", per_class=10)
    data = datagen.ShardDataset(out)
    shutil.rmtree(out)
    shards(fitted, tmp_path / "set", per_class=12)
    with pytest.raises(ArtefactError, match="changed since"):
        data.soft()


def test_a_set_of_some_classes_has_probabilities_of_all(fitted: Path, tmp_path: Path) -> None:
    out = shards(fitted, tmp_path / "set", classes="c0,c2")
    found = datagen.ShardDataset(out).soft()
    assert found.classes == ("c0", "c1", "c2") and found[0][1].shape == (3,) and set(found.labels.tolist()) == {0, 2}


def test_a_real_image_is_sure_of_its_class(fitted: Path, tmp_path: Path, make_folder: Make) -> None:
    real = make_folder(classes=["aaa", "c0", "c1", "c2"], each=5, size=(16, 16), grey=True)
    made = datagen.ShardDataset(shards(fitted, tmp_path / "set")).soft()
    mixed = datagen.mix(real, made, ratio=2)
    assert mixed.probabilities and [mixed[row][1].argmax().item() for row in range(20)] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    assert all(mixed[row][1].max() == 1 for row in range(20))
    known = {image.numpy().tobytes(): given for image, given in made}
    for row in range(20, len(mixed)):
        image, given = mixed[row]
        assert given[0] == 0 and torch.allclose(given[1:], known[image.numpy().tobytes()])
    alike = datagen.mix(real, made, transform=lambda image: (image.mode, image.size))
    assert {alike[row][0] for row in range(len(alike))} == {("L", (16, 16))} and made.transform is None
    with pytest.raises(UsageError, match="in place of labels"):
        datagen.mix(made, made)
    with pytest.raises(UsageError, match="from 0 to 1"):
        made.soft(1.5)
    (_, both) = next(iter(DataLoader(mixed, batch_size=30, shuffle=True)))
    assert both.shape == (30, 4) and both.dtype == torch.float32


def test_fresh_images_have_those_of_their_shards(fitted: Path, tmp_path: Path) -> None:
    settings = {"device": "cpu", "min_confidence": 0.0, "keep_near_copies": True}
    stream = datagen.StreamDataset(fitted, per_epoch=192, **settings).soft()
    fresh = list(stream)
    assert len(fresh) == 192 and all(given.shape == (3,) and given.sum().item() == pytest.approx(1, abs=1e-6) for _, given in fresh)
    made = datagen.ShardDataset(shards(fitted, tmp_path / "set", per_class=64)).soft()
    known = {image.numpy().tobytes(): given for image, given in made}
    same = [torch.allclose(given, known[key]) for image, given in fresh if (key := image.numpy().tobytes()) in known]
    assert len(same) > 30 and all(same)
