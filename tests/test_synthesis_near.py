"""Near-copies of training images are thrown away while images are made, or it is said that they were not looked for."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datagen.errors import ArtefactError, SafetyError, UsageError
from datagen.progress import Progress
from datagen.recipe import gather
from datagen.synthesis import painter
from datagen.synthesis.generator import Generator
from datagen.synthesis.run import synthesize
from datagen.training import run as training

EACH = 60


def scene(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.integers(30, 200, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((16, 16), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A run fitted for a moment, and its training images of class "a"."""
    root, rng = tmp_path_factory.mktemp("near"), np.random.default_rng(0)
    for name in "ab":
        (root / "real" / name).mkdir(parents=True)
        for i in range(EACH):
            Image.fromarray(scene(rng)).save(root / "real" / name / f"{i}.png")
    out = root / "run"
    training.fit(root / "real", out, progress=Progress(out, quiet=True), images=64, width=4, latent=4, threads=1, device="cpu", holdout=0.0, seed=3)
    return out, [np.asarray(Image.open(root / "real" / "a" / f"{i}.png")) for i in range(EACH)]


@pytest.fixture
def copying(fitted: tuple[Path, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Let the generator draw fresh scenes, and an image of "a" in place of one in four, mirrored in half of the cases."""

    def images(self: Generator, labels: np.ndarray, noise: np.ndarray, spread: float = 1.0, guidance: float = 0.0) -> np.ndarray:
        drawn = []
        for label, row in zip(labels, noise, strict=True):
            rng = np.random.default_rng(row.view(np.uint32))
            kind = int(rng.integers(8)) if label == 0 else 9
            repeated = fitted[1][int(rng.integers(EACH))]
            drawn.append(repeated if kind == 0 else repeated[:, ::-1] if kind == 1 else scene(rng))
        return np.stack(drawn)

    monkeypatch.setattr(Generator, "images", images)
    return [*fitted[1], *(image[:, ::-1] for image in fitted[1])]


def made(run: Path, out: Path, **settings: object) -> tuple[list[np.ndarray], dict]:
    """Synthesize 70 images a class; returns those of "a" and the manifest."""
    settings = {"per_class": 70, "workers": 1, "device": "cpu", "min_confidence": 0.0} | settings
    synthesize(run, out, gather(None, [], **settings), progress=Progress(quiet=True))
    table = pq.read_table(sorted((out / "data").glob("*.parquet"))).to_pandas().sort_values(["label", "index"])
    rows = table[table["class"] == "a"]
    return [np.asarray(Image.open(io.BytesIO(each["bytes"]))) for each in rows["image"]], json.loads((out / "manifest.json").read_text())


def repeats(images: list[np.ndarray], known: list[np.ndarray]) -> int:
    return sum(any(np.array_equal(image, each) for each in known) for image in images)


def test_near_copies_are_drawn_again_and_counted(fitted: tuple[Path, list[np.ndarray]], copying: list[np.ndarray], tmp_path: Path) -> None:
    found, manifest = made(fitted[0], tmp_path / "out")
    kept, told = made(fitted[0], tmp_path / "kept", keep_near_copies=True)
    assert len(found) == len(kept) == 70
    planted, trained = repeats(kept, copying), json.loads((fitted[0] / "data.json").read_text())["split"]["train"]
    assert planted >= 8 and trained >= 90
    assert repeats(found, copying) <= 0.5 * planted, "only images of the select part may be left"
    note = manifest["shards"][0]
    assert note["near_copies"] >= 0.8 * planted * trained / (2 * EACH) and note["tried"] == note["accepted"] + note["near_copies"]
    assert manifest["near_copies"] == "thrown away" and "--keep-near-copies" in told["near_copies"]
    assert "thrown away" in (tmp_path / "out" / "README.md").read_text() and "not looked for" in (tmp_path / "kept" / "README.md").read_text()
    nearest = pq.read_table(sorted((tmp_path / "out" / "data").glob("*.parquet")))["nearest_real"].to_numpy()
    assert np.isfinite(nearest).all() and (nearest > 0.01).all(), "no training image, mirrored or not"


def test_a_generator_that_only_repeats_is_refused(fitted: tuple[Path, list[np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datagen.recogniser.near.Reference.copies", lambda self, images, label: (np.zeros(len(images)), np.full(len(images), label == 1)))
    with pytest.raises(SafetyError, match=r"class .b. nearly repeats a training image whatever its noise \(50 attempts\)") as error:
        made(fitted[0], tmp_path / "out")
    assert error.value.code == 7 and "--keep-near-copies" in error.value.hint and not list((tmp_path / "out").glob("data/*"))


def test_a_generator_copied_alone_needs_the_reference(fitted: tuple[Path, list[np.ndarray]], copying: list[np.ndarray], tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(fitted[0] / "generator", alone)
    assert not list(alone.rglob("reference*"))
    with pytest.raises(SafetyError, match="near-copies") as error:
        made(alone, tmp_path / "none")
    assert "--reference" in error.value.hint and "--keep-near-copies" in error.value.hint and not (tmp_path / "none").exists()
    assert made(alone, tmp_path / "given", reference=str(fitted[0]))[1]["production"] == made(fitted[0], tmp_path / "own")[1]["production"]
    with pytest.raises(UsageError, match="contradicts"):
        made(alone, tmp_path / "both", reference=str(fitted[0]), keep_near_copies=True)
    other = tmp_path / "other"
    shutil.copytree(fitted[0], other)
    path = other / "reference" / "reference.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match="not the reference"):
        made(other, tmp_path / "damaged")
    origin = painter.look(str(fitted[0]), gather(None, [], device="cpu"))
    with pytest.raises(ArtefactError, match="damaged"):
        painter.generator.open_reference(path, painter.generator.read_card(fitted[0] / "generator")[0])
    assert origin.reference
