"""Small made data for every test: labelled folders of shapes, drawn with fixed seeds."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import audit
import hypothesis
import numpy as np
import pytest
from PIL import Image

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


def pytest_configure() -> None:
    """Heed Ctrl-C also where the tests run in the background, as shells let what they start there ignore it, and all that is started there."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test process has a cache of its own and no settings from the environment."""
    for name in list(os.environ):
        if name.startswith("DATAGEN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _nothing_read_is_executed() -> Iterator[None]:
    """What our readers read runs, imports, starts and calls nothing (P7), in whatever test."""
    audit.taken()
    audit.wrap()
    yield
    assert audit.taken() == []


def draw(rng: np.random.Generator, label: int, height: int, width: int, channels: int) -> np.ndarray:
    """Draw one easy image uint8 [H, W, C]: a bright bar or block whose place follows the label."""
    image = rng.integers(0, 60, (height, width, channels), dtype=np.uint8)
    row, column = divmod(label, 3)
    top, left = (row * height) // 3, (column * width) // 3
    image[top : top + height // 3 + 1, left : left + width // 3 + 1] = rng.integers(180, 256)
    return image


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes `classes` folders of `each` PNG files and returns the root."""

    def make(name: str = "real", classes: int | list[str] = 3, each: int = 12, size: tuple[int, int] = (16, 16), grey: bool = False, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        names = [f"class{i}" for i in range(classes)] if isinstance(classes, int) else classes
        for label, title in enumerate(names):
            folder = tmp_path / name / title
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(each):
                image = draw(rng, label, *size, 1 if grey else 3)
                Image.fromarray(image[..., 0] if grey else image).save(folder / f"{i:03d}.png")
        return tmp_path / name

    return make
