"""Generators and shards of every release are read for ever: each gives today the images that it gave then (G5, M6)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datagen import seeds
from datagen.reading.shards import ShardDataset, load
from datagen.reading.verify import verify
from datagen.synthesis.export import export
from datagen.synthesis.generator import open_generator

RELEASES = sorted(p.parent for p in (Path(__file__).parent / "golden").glob("*/*/card.json"))
SETS = sorted(p.parent for p in (Path(__file__).parent / "golden").glob("*/shards/*/manifest.json"))
EACH = 4


def drawn(folder: Path) -> np.ndarray:
    """Return uint8 [classes * H, EACH * W]: the first images of each class, one class a row."""
    generator = open_generator(folder)
    names, size = generator.card.classes, generator.card.noise
    noise = np.stack([seeds.image_noise(0, name, index, 0, size) for name in names for index in range(EACH)])
    images = generator.images(np.repeat(np.arange(len(names)), EACH), noise, 1.0, 0.0)[..., 0]
    return np.block([[images[row * EACH + column] for column in range(EACH)] for row in range(len(names))])


def test_there_is_one() -> None:
    assert RELEASES and {folder.name for folder in SETS} == {"parquet", "webdataset", "folder"}


@pytest.mark.parametrize("folder", SETS, ids=lambda p: f"{p.parent.parent.name}-{p.name}")
def test_a_set_of_an_old_release_holds_the_same_images(folder: Path, tmp_path: Path) -> None:
    """What lay in the folder format then is read by Pillow alone; every format has its pixels and labels."""
    pictures = folder.parent / "folder" / "data" / "train"
    classes = json.loads((folder / "classes.json").read_bytes())
    known = {(classes.index(p.parent.name), np.asarray(Image.open(p)).tobytes()) for p in pictures.glob("*/*.png")}
    data, whole = ShardDataset(folder), load(folder)
    assert {(label, image.permute(1, 2, 0).contiguous().numpy().tobytes()) for image, label in (data[row] for row in range(len(data)))} == known
    assert {(label, image.tobytes()) for image, label in zip(whole.images, whole.labels.tolist(), strict=True)} == known
    assert len(data) == len(whole.labels) == len(known) == 4
    assert list(data.classes) == classes and not verify(folder)
    assert export(folder, tmp_path / "out", format="parquet")["images"] == 4


@pytest.mark.parametrize("folder", RELEASES, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_a_generator_of_an_old_release_draws_the_same_images(folder: Path) -> None:
    kept = np.asarray(Image.open(folder.parent / f"{folder.name}.png"), np.int16)
    found = drawn(folder).astype(np.int16)
    assert kept.std() > 20
    assert np.abs(found - kept).max() <= 2
