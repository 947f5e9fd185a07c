"""What every format must do: give back the rows it was given, equal bytes for equal rows, refuse damage."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datagen.contracts import Rows
from datagen.errors import ArtefactError

CLASSES = ("0123", "a b", "no", "v1.0", "猫")


def rows(count: int, *, scored: bool) -> Rows:
    """Return rows of small PNG files; with scores where asked for, null elsewhere."""
    rng = np.random.default_rng(3)
    encoded = []
    for pixels in rng.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        encoded.append(file.getvalue())
    labels = np.arange(count) % len(CLASSES)
    numbers = np.arange(count, dtype=np.int64)
    scores = {"confidence": rng.random(count, dtype=np.float32), "nearest_real": rng.random(count, dtype=np.float32)}
    scores["probabilities"] = rng.random((count, len(CLASSES))).astype(np.float16)
    return Rows(encoded, labels.astype(np.int64), CLASSES, np.full(count, 7), numbers, numbers % 3, **(scores if scored else {}))


def check(format_class: Any, folder: Path) -> None:
    """Write, read and count; compare bytes; damage every part of the file."""
    made = format_class()
    for scored in (False, True):
        given = rows(23, scored=scored)
        first, second = (written(made, given, folder / f"{scored}-{i}") for i in range(2))
        assert first.read_bytes() == second.read_bytes(), "equal rows, equal bytes"
        assert made.count(first) == 23
        compare(given, list(made.read(first)), scored)
        assert len(list(made.listed(first))) == len(list(made.files(given)))
    single = written(made, rows(1, scored=True), folder / "one")
    assert made.count(single) == 1
    damaged(made, first)


def written(made: Any, given: Rows, root: Path) -> Path:
    for name, content in made.files(given):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    path = root / made.name(0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        made.write(file, given)
    return path


def compare(given: Rows, found: list[Rows], scored: bool) -> None:
    assert [image for part in found for image in part.images] == list(given.images)
    assert {part.classes for part in found} == {CLASSES}
    for column in ("labels", "seeds", "indices", "attempts"):
        assert np.array_equal(joined(found, column), getattr(given, column)), column
    for column in ("confidence", "nearest_real", "probabilities"):
        if scored:
            assert np.allclose(joined(found, column), getattr(given, column), atol=1e-3), column
        else:
            assert all(getattr(part, column) is None for part in found), column


def joined(parts: list[Rows], column: str) -> np.ndarray:
    return np.concatenate([getattr(part, column) for part in parts])


def damaged(made: Any, path: Path) -> None:
    """A file that was cut is refused; it never reads as fewer rows."""
    raw, bad = path.read_bytes(), path.with_name(f"bad{path.suffix}")
    for length in cuts(len(raw)):
        bad.write_bytes(raw[:length])
        with pytest.raises(ArtefactError):
            list(made.read(bad))
            raise AssertionError(f"{length} of {len(raw)} bytes were read without complaint")


def cuts(size: int) -> Iterator[int]:
    yield from (0, 1, size // 3, size // 2, size - 1)
