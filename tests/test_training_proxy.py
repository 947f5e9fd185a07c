"""How useful a generator's images are so far: near what real images give where they are as good, at chance where their labels are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import datagen
from datagen.training import watch
from datagen.training.proxy import FEWEST, IMAGES, Proxy, proxy

Maker = Callable[..., Path]


def bars(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images of a bright bar whose place is the class, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 90, (count, 16, 16, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 100
    return images, labels


def asked(classes: int = 4, select: int = 200) -> Proxy | None:
    images, labels = bars(400 + select, classes, 0)
    rows = np.arange(len(labels))
    return proxy(images, labels, rows[:400], rows[400:], classes=classes, seed=0)


def test_images_as_good_as_real_ones_are_as_useful() -> None:
    found = asked()
    assert found is not None and found.real > 0.95 and len(found.labels) == IMAGES
    assert found.ask(lambda labels, places: bars(4 * len(labels), 4, 1)[0][np.arange(len(labels)) * 4 + labels]) > 0.95


def test_wrong_labels_are_useless_and_one_image_a_class_is_enough_to_answer() -> None:
    found = asked()
    assert found is not None
    wrong = found.ask(lambda labels, places: bars(4 * len(labels), 4, 1)[0][np.arange(len(labels)) * 4 + (labels + 1) % 4])
    assert wrong < 0.05
    assert found.ask(lambda labels, places: np.zeros((len(labels), 16, 16, 1), np.uint8)) <= 0.5


def test_too_small_a_select_part_says_nothing() -> None:
    assert asked(select=FEWEST - 1) is None and asked(select=FEWEST) is not None


def test_of_many_classes_some_are_asked_about() -> None:
    labels = np.repeat(np.arange(600), 4)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1), dtype=np.uint8)
    rows = np.arange(len(labels))
    found = proxy(images, labels, rows[rows % 4 > 0], rows[rows % 4 == 0], classes=600, seed=0)
    assert found is not None and len(found.labels) <= IMAGES and len(set(found.labels)) == 200
    assert set(found.answers) <= set(found.labels)


def test_a_fit_says_how_useful_its_images_are_so_far(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, tiny = tmp_path / "run", {"images": 640, "width": 4, "latent": 4, "batch": 16, "threads": 1, "deterministic": True}
    datagen.fit(make_folder(each=250), run, family="cvae", **tiny)
    lines = [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]
    told = [line for line in lines if line["stage"] == "proxy"]
    assert told and all(0 <= line["synthetic"] <= 1 and 0 < line["real"] <= 1 for line in told)
    assert "How useful its images became" in (run / "run.html").read_text(encoding="utf-8")
    monkeypatch.setattr(watch, "LONG", 0.0)
    datagen.fit(tmp_path / "real", tmp_path / "slow", family="cvae", **tiny)
    assert '"proxy"' not in (tmp_path / "slow" / "progress.jsonl").read_text()
