"""Generators of every release are read for ever: each draws today the images that it drew then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datagen import seeds
from datagen.synthesis.generator import open_generator

RELEASES = sorted(p.parent for p in (Path(__file__).parent / "golden").glob("*/*/card.json"))
EACH = 4


def drawn(folder: Path) -> np.ndarray:
    """Return uint8 [classes * H, EACH * W]: the first images of each class, one class a row."""
    generator = open_generator(folder)
    names, size = generator.card.classes, generator.card.noise
    noise = np.stack([seeds.image_noise(0, name, index, 0, size) for name in names for index in range(EACH)])
    images = generator.images(np.repeat(np.arange(len(names)), EACH), noise, 1.0, 0.0)[..., 0]
    return np.block([[images[row * EACH + column] for column in range(EACH)] for row in range(len(names))])


def test_there_is_one() -> None:
    assert RELEASES


@pytest.mark.parametrize("folder", RELEASES, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_a_generator_of_an_old_release_draws_the_same_images(folder: Path) -> None:
    kept = np.asarray(Image.open(folder.parent / f"{folder.name}.png"), np.int16)
    found = drawn(folder).astype(np.int16)
    assert kept.std() > 20
    assert np.abs(found - kept).max() <= 2
