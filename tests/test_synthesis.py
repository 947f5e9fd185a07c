"""Synthesize by a rule and by a generator: exact counts, the same bytes whatever the way, and what is refused."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from datagen import holding, storage
from datagen.errors import ArtefactError, DatagenError, OutputError, ResourceError, UsageError
from datagen.progress import Progress
from datagen.records import Recipe
from datagen.synthesis.export import export
from datagen.synthesis.run import synthesize

FORMATS = ("parquet", "webdataset", "folder")


def make(folder: Path, out: str = "out", **settings: Any) -> dict[str, Any]:
    return synthesize(synthetic.rule(folder), folder / out, **{"per_class": 70, "shard_images": 100, "workers": 1} | settings)


@pytest.mark.parametrize("format", FORMATS)
def test_every_image_is_there_once_and_right(tmp_path: Path, format: str) -> None:
    value = make(tmp_path, format=format)
    assert value["images"] == 350
    assert value["shards"] == 4
    found = synthetic.images(tmp_path / "out")
    assert set(found) == {(label, index) for label in range(5) for index in range(70)}
    for (label, index), pixels in found.items():
        assert np.array_equal(pixels, synthetic.drawn(0, synthetic.PLAIN[label], index))
    status = json.loads((tmp_path / "out/status.json").read_bytes())
    assert status["exit_code"] == 0
    assert status["done"] == 350


def test_images_depend_on_seed_class_and_index_alone(tmp_path: Path) -> None:
    """Row W10."""
    make(tmp_path, "one")
    first = synthetic.images(tmp_path / "one")
    make(tmp_path, "large", per_class=130, shard_images=64, format="webdataset")
    large = synthetic.images(tmp_path / "large")
    assert all(np.array_equal(first[key], large[key]) for key in first)
    synthesize(synthetic.rule(tmp_path, ("v1.0", "zebra")), tmp_path / "subset", per_class=3)
    make(tmp_path, "seed", seed=1)
    assert not any(np.array_equal(first[key], pixels) for key, pixels in synthetic.images(tmp_path / "seed").items())


@pytest.mark.parametrize("format", ["parquet", pytest.param("folder", marks=pytest.mark.slow)])
def test_workers_do_not_show(tmp_path: Path, format: str) -> None:
    """Row W10."""
    make(tmp_path, "one", format=format)
    make(tmp_path, "two", format=format, workers=2)
    assert synthetic.tree(tmp_path / "one") == synthetic.tree(tmp_path / "two")


def test_rows_are_shuffled_within_shards(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    make(tmp_path, shard_images=1000)
    labels = pq.read_table(tmp_path / "out/data").column("label").to_pylist()
    assert len(set(labels[:40])) > 2
    assert labels != sorted(labels)


def test_grey_images_stay_grey(tmp_path: Path) -> None:
    synthesize(synthetic.rule(tmp_path, shape=(1, 9, 7)), tmp_path / "out", per_class=2)
    assert all(pixels.shape == (9, 7) for pixels in synthetic.images(tmp_path / "out").values())


def test_the_same_again_says_so_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.name not in {"status.json", ".lock"}}
    again = synthesize(synthetic.rule(tmp_path), tmp_path / "out", per_class=70, shard_images=100, progress=Progress())
    assert (first["finished"], again["finished"], again["continued"]) == (False, True, False)
    assert "finished already" in capsys.readouterr().err
    files = {path: path.stat().st_mtime_ns for path in before if path.is_file()}
    assert files == {path: time for path, time in before.items() if path in files}


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_damaged_is_made_anew_and_nothing_else(tmp_path: Path, format: str) -> None:
    """Row W8."""
    make(tmp_path, format=format)
    golden = synthetic.tree(tmp_path / "out")
    data = sorted(name for name in golden if name.startswith("data/"))
    flipped, cut, missing = (tmp_path / "out" / data[i] for i in (0, len(data) // 2, -1))
    raw = bytearray(flipped.read_bytes())
    raw[len(raw) // 2] ^= 1
    flipped.write_bytes(raw)
    cut.write_bytes(cut.read_bytes()[:-3])
    missing.unlink()
    (tmp_path / "out/.datagen/notes/00001.json").write_bytes(b"{}")
    (tmp_path / "out/manifest.json").unlink()
    whole = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in data if (tmp_path / "out" / name).exists()}
    value = make(tmp_path, format=format)
    assert value["continued"]
    assert synthetic.tree(tmp_path / "out") == golden
    changed = {name for name in whole if (tmp_path / "out" / name).stat().st_mtime_ns != whole[name]}
    assert changed <= {data[0], data[len(data) // 2], data[-1]}


@pytest.mark.parametrize(("key", "value"), [("per_class", 71), ("seed", 1), ("format", "webdataset"), ("encoder", "jpeg"), ("shard_images", 64)])
def test_other_settings_in_a_begun_folder_are_refused(tmp_path: Path, key: str, value: object) -> None:
    make(tmp_path)
    golden = synthetic.tree(tmp_path / "out")
    with pytest.raises(UsageError, match=f"{'counts' if key == 'per_class' else key}: .* now ") as caught:
        make(tmp_path, **{key: value})
    assert "--out" in caught.value.hint
    assert synthetic.tree(tmp_path / "out") == golden


def test_another_rule_in_a_begun_folder_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "hashed.py").write_text((tmp_path / "hashed.py").read_text() + "\n# changed\n")
    with pytest.raises(OutputError, match="version"):
        synthesize(f"rule:{tmp_path}/hashed.py:Hashed", tmp_path / "out", per_class=70, shard_images=100)


def test_foreign_places_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(OutputError):
            make(tmp_path, name)
        with pytest.raises(OutputError):
            make(tmp_path, name, dry_run=True)
    progress = Progress(tmp_path / "full")
    with pytest.raises(OutputError, match=r"letter\.txt"):
        synthesize(synthetic.rule(tmp_path), tmp_path / "full", per_class=1, progress=progress)
    progress.status(exit_code=5)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["letter.txt"]
    assert (tmp_path / "file").read_text() == "mine"


def test_the_run_itself_is_no_place_for_shards(tmp_path: Path) -> None:
    run = synthetic.generator(tmp_path)
    before = synthetic.tree(run)
    for out in (run, run / "shards", run / "generator"):
        with pytest.raises(OutputError, match=r"lies inside .* which is read"):
            synthesize(run, out, per_class=1, family=synthetic.own(tmp_path))
    assert synthetic.tree(run) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert make(tmp_path)["images"] == 350


def test_a_locked_folder_is_refused(tmp_path: Path) -> None:
    """Row W7."""
    storage.make_folder(tmp_path / "out")
    with holding.lock(tmp_path / "out"), pytest.raises(OutputError, match="another datagen process"):
        make(tmp_path)


@pytest.fixture
def unprivileged() -> Iterator[Callable[[], None]]:
    """Return a function that gives up the rights of root until the test ends, so that permissions hold."""
    root = os.geteuid() == 0
    yield lambda: os.seteuid(65534) if root else None
    if root:
        os.seteuid(0)


def test_a_read_only_place_is_refused(unprivileged: Callable[[], None]) -> None:
    with tempfile.TemporaryDirectory() as name:
        synthesize("rule:shapes", Path(name) / "first", per_class=1)
        folder = Path(name) / "out"
        folder.mkdir()
        folder.chmod(0o555)
        Path(name).chmod(0o755)
        unprivileged()
        with pytest.raises(OutputError, match="Permission denied") as caught:
            synthesize("rule:shapes", folder, per_class=1)
        assert caught.value.code == 5
        assert not list(folder.iterdir())
        os.seteuid(os.getuid())


def test_the_number_of_images_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="how many"):
        synthesize(synthetic.rule(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [{"spread": 2.0}, {"guidance": 1.0}, {"device": "cuda"}])
def test_settings_that_a_rule_has_not_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make(tmp_path, **settings)


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'shapes'"):
        synthesize("rule:shape", tmp_path / "out", per_class=1)
    with pytest.raises(ArtefactError, match="no fitted run"):
        synthesize(tmp_path, tmp_path / "elsewhere", per_class=1)
    with pytest.raises(UsageError, match="parquet"):
        make(tmp_path, format="parket")


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    value = make(tmp_path, dry_run=True)
    assert value["images"] == 350
    assert value["shards"] == 4
    assert value["forecast"].keys() == {"bytes", "objects", "seconds", "binds"}
    made = make(tmp_path)
    assert made["bytes"] < value["forecast"]["bytes"] < 3 * made["bytes"]


def test_a_dry_run_says_what_binds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULE_SLEEP", "0.02")  # an image: far above what it takes to encode one on a slow machine
    found = make(tmp_path, dry_run=True)["forecast"]
    assert found["binds"].startswith("sampling (") and found["seconds"] > 350 * 0.02
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_too_little_room_is_found_before_the_work(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "free_bytes", lambda path: (10_000, 1 << 40))
    with pytest.raises(OutputError, match=r"needs .* [kM]B, 10\.0 kB are free"):
        make(tmp_path, format=format)
    assert not list((tmp_path / "out").rglob("*.png"))
    monkeypatch.setattr(storage, "free_bytes", lambda path: (1 << 40, 3))
    with pytest.raises(OutputError, match="room for 3"):
        make(tmp_path, format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_the_forecast_is_near(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from datagen.synthesis import forecast

    told: list[tuple[int, int]] = []
    real = forecast.needs
    monkeypatch.setattr(forecast, "needs", lambda *arguments: told.append(real(*arguments)) or told[-1])
    synthesize("rule:shapes", tmp_path / "out", per_class=200, format=format, workers=1, shard_images=400)
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    disk = sum(-(-p.stat().st_size // 4096) * 4096 for p in files)
    assert 0.8 < told[0][0] / disk < 1.25
    assert 0.9 < told[0][1] / len(files) < 1.5


def test_jpeg_shards(tmp_path: Path) -> None:
    from datagen.reading.shards import load

    synthesize("rule:shapes", tmp_path / "png", per_class=3)
    for format in FORMATS:
        synthesize("rule:shapes", tmp_path / format, per_class=3, format=format, encoder="jpeg")
        jpeg, png = load(tmp_path / format), load(tmp_path / "png")
        assert np.abs(jpeg.images.astype(float).mean() - png.images.mean()) < 5
    assert {p.suffix for p in (tmp_path / "folder/data").rglob("*") if p.is_file()} == {".jpg"}


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_export_is_what_synthesize_writes(tmp_path: Path, source: str, target: str) -> None:
    make(tmp_path, "direct", format=target, per_class=7)
    make(tmp_path, "source", format=source, per_class=7)
    value = export(tmp_path / "source", tmp_path / "exported", format=target)
    assert value["images"] == 35
    assert synthetic.tree(tmp_path / "exported") == synthetic.tree(tmp_path / "direct")
    assert export(tmp_path / "source", tmp_path / "exported", format=target)["finished"]


def test_export_refuses_what_is_damaged_or_unfinished(tmp_path: Path) -> None:
    make(tmp_path, per_class=7)
    shard = next((tmp_path / "out/data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match="differs"):
        export(tmp_path / "out", tmp_path / "exported", format="folder")
    (tmp_path / "out/manifest.json").unlink()
    with pytest.raises(ArtefactError, match="not finished"):
        export(tmp_path / "out", tmp_path / "again", format="folder")
    with pytest.raises(OutputError, match="inside"):
        make(tmp_path, "third", per_class=1)
        export(tmp_path / "third", tmp_path / "third/x", format="folder")


def test_a_generators_images_do_not_depend_on_the_way(tmp_path: Path) -> None:
    run = synthetic.generator(tmp_path)
    synthesize(run, tmp_path / "one", per_class=100, workers=1, family=synthetic.own(tmp_path))
    synthesize(run / "generator", tmp_path / "two", per_class=70, workers=2, shard_images=64, format="webdataset", family=synthetic.own(tmp_path))
    one, two = synthetic.images(tmp_path / "one"), synthetic.images(tmp_path / "two")
    assert len(one) == 300
    assert len(two) == 210
    assert all(np.array_equal(one[key], two[key]) for key in two)
    manifest = json.loads((tmp_path / "one/manifest.json").read_bytes())
    assert manifest["ingredients"]["spread"] == 0.5
    assert str(tmp_path) not in (tmp_path / "one/manifest.json").read_text()
    with pytest.raises(UsageError, match=r"spread: 0\.5, now 1\.0"):
        synthesize(run, tmp_path / "one", per_class=100, workers=1, spread=1.0, family=synthetic.own(tmp_path))


def test_labels_follow_the_names_where_the_card_has_another_order(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    synthesize(synthetic.generator(tmp_path / "x", classes=("a", "b")), tmp_path / "sorted", per_class=2, family=synthetic.own(tmp_path / "x"))
    synthesize(synthetic.generator(tmp_path / "y", classes=("b", "a")), tmp_path / "turned", per_class=2, family=synthetic.own(tmp_path / "y"))
    first, second = synthetic.images(tmp_path / "sorted"), synthetic.images(tmp_path / "turned")
    assert json.loads((tmp_path / "turned/classes.json").read_bytes()) == ["a", "b"]
    assert not np.array_equal(first[0, 0], second[0, 0])


def test_a_missing_gpu_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="cuda"):
        synthesize(synthetic.generator(tmp_path), tmp_path / "out", per_class=1, device="cuda", family=synthetic.own(tmp_path))


def test_a_recipe_and_settings_together(tmp_path: Path) -> None:
    value = synthesize(synthetic.rule(tmp_path), tmp_path / "out", Recipe(per_class=5, seed=4), per_class=2, workers=1)
    assert value["images"] == 10
    assert issubclass(UsageError, DatagenError)
    assert json.loads((tmp_path / "out/manifest.json").read_bytes())["seed"] == 4
