"""Images that the generator's filter is not sure of are drawn again: thresholds, attempts, columns, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import datagen
from datagen.errors import SafetyError, UsageError
from datagen.progress import Progress
from datagen.recipe import gather
from datagen.synthesis import painter
from datagen.synthesis.run import synthesize
from datagen.training import run as training

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of three grey classes that overlap, with its filter, trained for a moment."""
    root = tmp_path_factory.mktemp("filter")
    rng = np.random.default_rng(0)
    from PIL import Image

    for label in range(3):
        (root / "real" / f"c{label}").mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 60, (16, 16), dtype=np.uint8) + np.uint8(20 * label + rng.integers(60))
            Image.fromarray(pixels).save(root / "real" / f"c{label}" / f"{i}.png")
    out = root / "run"
    training.fit(root / "real", out, progress=Progress(out, quiet=True), images=6000, width=8, latent=4, threads=1, device="cpu")
    return out


def made(run: Path, out: Path, **settings: object) -> dict[str, np.ndarray]:
    """Synthesize and return the columns by name, rows sorted by class and index."""
    settings = {"per_class": 20, "workers": 1, "device": "cpu"} | settings
    synthesize(run, out, gather(None, [], **settings), progress=Progress(quiet=True))
    table = pq.read_table(sorted((out / "data").glob("*.parquet"))).to_pandas().sort_values(["label", "index"])
    return {name: table[name].to_numpy() for name in table.columns}


ALONE = """
import sys, datagen
datagen.synthesize(*sys.argv[1:], per_class=64, shard_images=64, workers=2, device="cpu", min_confidence=0.0, keep_near_copies=True)
assert "torch" not in sys.modules, "seconds before the first image, and memory that nothing uses"
"""


def test_workers_alone_open_the_generator(fitted: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ALONE, fitted, tmp_path / "out"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def usual(free: dict[str, np.ndarray]) -> float:
    """Return a confidence that half of the images of every class reach."""
    return min(float(np.median(free["confidence"][free["label"] == label])) for label in range(3))


def test_a_fit_stores_its_filter_and_what_it_chose(fitted: Path) -> None:
    card = json.loads((fitted / "generator" / "card.json").read_text())
    assert set(card["hashes"]) == {"weights.safetensors", "filter.safetensors"}
    assert {"spread", "confidence", "guidance"} <= set(card["chosen"])
    assert json.loads((fitted / "recipe.json").read_text())["selection"]["steps"] >= 5


def test_every_image_is_as_sure_as_asked(fitted: Path, tmp_path: Path) -> None:
    free = made(fitted, tmp_path / "free", min_confidence=0.0)
    assert (free["attempt"] == 0).all()
    least = usual(free)
    found = made(fitted, tmp_path / "sure", min_confidence=least)
    assert (found["confidence"] >= least - 1e-6).all() and (found["attempt"] > 0).any()
    kept = free["confidence"] >= least
    assert (found["attempt"][kept] == 0).all(), "what was sure enough at once stays"
    assert all(a["bytes"] == b["bytes"] for a, b, k in zip(free["image"], found["image"], kept, strict=True) if k)
    stacked = np.stack(found["probabilities"]).astype(np.float32)
    assert np.allclose(stacked.sum(1), 1, atol=0.01)
    assert np.allclose(stacked[np.arange(len(stacked)), found["label"]], found["confidence"], atol=1e-3)
    manifest = json.loads((tmp_path / "sure" / "manifest.json").read_text())
    note = manifest["shards"][0]
    assert note["tried"] > note["accepted"] == 60 and note["forced"] == 0


def test_more_images_begin_with_the_same_ones(fitted: Path, tmp_path: Path) -> None:
    least = usual(made(fitted, tmp_path / "free", min_confidence=0.0))
    few, more = made(fitted, tmp_path / "few", min_confidence=least), made(fitted, tmp_path / "more", min_confidence=least, per_class=70)
    first = more["index"] < 20
    assert [image["bytes"] for image in few["image"]] == [image["bytes"] for image, yes in zip(more["image"], first, strict=True) if yes]
    assert np.array_equal(few["attempt"], more["attempt"][first])


def test_after_the_last_attempt_the_surest_is_taken(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter, "ATTEMPTS", 3)
    origin = painter.look(str(fitted), gather(None, [], min_confidence=0.999, device="cpu"))
    tile = painter.open_painter(origin, 0).tile("c0", 0, 64)
    assert tile.confidence is not None
    unsure = tile.confidence < 0.999
    assert tile.forced == unsure.sum() and tile.tried <= 64 * 3
    alone = [painter.open_painter(origin, 0)._computed("c0", np.arange(64), attempt).scores[:, 0] for attempt in range(3)]  # type: ignore[attr-defined]
    assert np.allclose(tile.confidence[unsure], np.max(alone, axis=0)[unsure], atol=1e-4)


def test_too_few_accepted_end_with_the_way_out(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter, "ATTEMPTS", 2)
    monkeypatch.setattr("datagen.recogniser.fit.Fitted.predict", lambda self, images, batch=512: np.full((len(images), 3), 1 / 3, np.float32))
    with pytest.raises(SafetyError, match=r"class .c0. only 0 % of the images reach a confidence of 0\.5") as error:
        made(fitted, tmp_path / "none", min_confidence=0.5)
    assert error.value.code == 7 and "--min-confidence" in error.value.hint
    assert not list((tmp_path / "none").glob("data/*"))


def test_a_rule_and_an_old_generator_have_no_filter(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no min-confidence"):
        datagen.synthesize("rule:shapes", tmp_path / "out", per_class=2, min_confidence=0.5)


def test_each_mode_takes_what_was_chosen_for_it(fitted: Path, tmp_path: Path) -> None:
    from datagen import storage

    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    card = storage.read_json(run / "generator" / "card.json")
    both = {"spread": {"value": 1.7, "why": "made up"}, "confidence": {"value": 0.0, "why": "made up"}}
    alone = {"spread": {"value": 0.7, "why": "made up"}, "confidence": {"value": 0.1, "why": "made up"}}
    card = {key: value for key, value in card.items() if key != storage.SEAL} | {"chosen": alone | {"augment": both}}
    storage.replace(run / "generator" / "card.json", storage.seal(card))
    origins = {mode: painter.look(str(run), gather(None, [], mode=mode, device="cpu")) for mode in ("replace", "augment")}
    assert (origins["replace"].spread, origins["replace"].confidence) == (0.7, 0.1)
    assert (origins["augment"].spread, origins["augment"].confidence) == (1.7, 0.0)
    assert painter.look(str(run), gather(None, [], mode="augment", spread=1.1, device="cpu")).spread == 1.1
