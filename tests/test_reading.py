"""Shards and folders read back: as a Dataset in worker processes, as arrays, and verified byte for byte."""

from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datagen import holding, storage
from datagen.errors import ArtefactError, InputError
from datagen.reading.shards import ShardDataset, load, verify
from datagen.synthesis.run import synthesize

FORMATS = ("parquet", "webdataset", "folder")
EACH = 9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in each format, five shards each, below one folder."""
    root = tmp_path_factory.mktemp("made")
    for format in FORMATS:
        synthesize(synthetic.rule(root), root / format, per_class=EACH, format=format, shard_images=9, workers=1)
    return root


def right(pixels: np.ndarray, label: int) -> bool:
    return any(np.array_equal(pixels, synthetic.drawn(0, synthetic.PLAIN[label], i)) for i in range(EACH))


@pytest.mark.parametrize("format", FORMATS)
def test_dataset_gives_images_and_labels(made: Path, format: str) -> None:
    data = ShardDataset(made / format)
    assert len(data) == 5 * EACH
    assert data.classes == synthetic.PLAIN
    assert data.labels.dtype == np.int64
    assert np.bincount(data.labels).tolist() == [EACH] * 5
    seen = set()
    for row in range(len(data)):
        image, label = data[row]
        assert isinstance(label, int)
        assert label == data.labels[row]
        assert image.dtype == torch.uint8
        assert image.shape == (3, 8, 8)
        assert right(image.permute(1, 2, 0).numpy(), label)
        seen.add(image.numpy().tobytes())
    assert len(seen) == 5 * EACH
    assert torch.equal(data[-1][0], data[len(data) - 1][0])
    for row in (len(data), -len(data) - 1):
        with pytest.raises(IndexError):
            data[row]


def test_a_transform_gets_a_pillow_image(made: Path) -> None:
    data = ShardDataset(made / "parquet", transform=lambda image: (image.mode, image.size))
    assert data[3] == (("RGB", (8, 8)), int(data.labels[3]))


@pytest.mark.parametrize("format", FORMATS)
def test_dataset_travels(made: Path, format: str) -> None:
    data = ShardDataset(made / format)
    raw = pickle.dumps(data)
    assert len(raw) < 20_000
    assert torch.equal(pickle.loads(raw)[7][0], data[7][0])


@pytest.mark.parametrize(("format", "workers"), [("parquet", 0), ("parquet", 2), ("folder", 2)])
def test_dataset_feeds_a_loader(made: Path, format: str, workers: int) -> None:
    data = ShardDataset(made / format)
    context = "fork" if workers else None
    labels = [
        label for _, batch in DataLoader(data, batch_size=8, shuffle=True, num_workers=workers, multiprocessing_context=context) for label in batch.tolist()
    ]
    assert sorted(labels) == sorted(data.labels.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_dataset_feeds_spawned_workers(made: Path, format: str) -> None:
    loader = DataLoader(ShardDataset(made / format), batch_size=8, num_workers=2, multiprocessing_context="spawn")
    assert sum(len(batch) for _, batch in loader) == 5 * EACH


def test_the_cached_pack_is_made_once_and_anew_when_damaged(made: Path) -> None:
    data = ShardDataset(made / "parquet")
    pack = Path(data._located.root)
    times = [p.stat().st_mtime_ns for p in sorted(pack.iterdir())]
    ShardDataset(made / "parquet")
    assert [p.stat().st_mtime_ns for p in sorted(pack.iterdir())] == times
    half = pack / f"{storage.TEMPORARY}dead"
    half.write_bytes(b"half")
    with holding.lock(pack):
        ShardDataset(made / "parquet")
    assert half.exists(), "another process may be writing it"
    ShardDataset(made / "parquet")
    assert not half.exists(), "of a process that was killed once the pack was whole"
    (pack / "images.bin").write_bytes(b"cut")
    assert len(ShardDataset(made / "parquet")[5][0]) == 3
    (pack / "index.bin").unlink()
    assert len(ShardDataset(made / "parquet")) == 5 * EACH


@pytest.mark.parametrize("format", FORMATS)
def test_an_unfinished_set_is_refused_unless_asked_for(made: Path, tmp_path: Path, format: str) -> None:
    """Row M1."""
    out = tmp_path / "part"
    shutil.copytree(made / format, out)
    (out / "manifest.json").unlink()
    (out / ".datagen/notes/00002.json").unlink()
    with pytest.raises(ArtefactError, match="4 of 5 shards"):
        ShardDataset(out)
    with pytest.raises(ArtefactError, match="not finished"):
        load(out)
    assert len(ShardDataset(out, allow_partial=True)) == 4 * EACH
    assert verify(out)[0].startswith("manifest.json: is missing")


@pytest.mark.parametrize("format", FORMATS)
def test_load_reads_all_into_arrays(made: Path, format: str) -> None:
    found = load(made / format)
    assert found.images.shape == (5 * EACH, 8, 8, 3)
    assert found.images.dtype == np.uint8
    assert found.labels.dtype == np.int64
    assert all(right(image, label) for image, label in zip(found.images, found.labels.tolist(), strict=True))
    assert found.classes == synthetic.PLAIN
    assert len(set(found.names)) == len(found.names) == 5 * EACH
    assert all((made / format / name.split("#")[0]).is_file() for name in found.names)
    assert found.manifest is not None
    assert found.manifest["images"] == 5 * EACH
    again = load(made / format)
    assert again.names == found.names


@pytest.mark.parametrize("format", FORMATS)
def test_a_limit_takes_equally_many_of_each_class(made: Path, format: str) -> None:
    found = load(made / format, limit=20)
    assert np.bincount(found.labels).tolist() == [4] * 5
    wanted = {synthetic.drawn(0, name, i).tobytes() for name in synthetic.PLAIN for i in range(4)}
    assert {image.tobytes() for image in found.images} == wanted
    assert len(load(made / format, limit=3).labels) == 3
    assert len(load(made / format, limit=10_000).labels) == 5 * EACH


def test_nasty_class_names_come_back(tmp_path: Path) -> None:
    rule = synthetic.rule(tmp_path, synthetic.NASTY)
    for format in FORMATS:
        synthesize(rule, tmp_path / format, per_class=1, format=format, workers=1)
        assert load(tmp_path / format).classes == ShardDataset(tmp_path / format).classes == tuple(sorted(synthetic.NASTY))
        assert verify(tmp_path / format) == []
        for image, label in zip(*(getattr(load(tmp_path / format), k) for k in ("images", "labels")), strict=True):
            name = sorted(synthetic.NASTY)[label]
            assert np.array_equal(image, synthetic.drawn(0, name, 0, synthetic.NASTY))


def test_any_labelled_folder_is_read(make_folder: Callable[..., Path]) -> None:
    root = make_folder(classes=["b", "a", "猫"], each=4)
    (root / ".hidden").mkdir()
    (root / "a/notes.txt").write_text("no image")
    data = ShardDataset(root)
    assert data.classes == ("a", "b", "猫")
    assert np.bincount(data.labels).tolist() == [4, 4, 4]
    found = load(root, limit=6)
    assert found.names == ["a/000.png", "a/001.png", "b/000.png", "b/001.png", "猫/000.png", "猫/001.png"]
    assert found.manifest is None
    assert np.array_equal(found.images[2], np.asarray(Image.open(root / "b/000.png")))
    shutil.move(root, root.with_name("train"))
    assert len(ShardDataset(root.parent)) == 12


def test_a_class_may_be_called_train(make_folder: Callable[..., Path]) -> None:
    data = ShardDataset(make_folder(classes=["car", "test", "train"], each=4))
    assert data.classes == ("car", "test", "train") and len(data) == 12


def test_odd_image_files_come_upright_on_white(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "a/clear.png")
    turned = Image.new("RGB", (4, 2), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a/turned.jpg", exif=exif, quality=95)
    Image.new("L", (4, 4), 9).save(tmp_path / "a/zgrey.png")
    data = ShardDataset(tmp_path)
    assert data[0][0].unique().tolist() == [255]
    assert data[1][0].shape == (3, 4, 2)
    assert data[2][0].shape == (1, 4, 4)
    with pytest.raises(InputError, match="sizes"):
        load(tmp_path)
    (tmp_path / "a/turned.jpg").unlink()
    assert load(tmp_path).images.shape == (2, 4, 4, 3)


def test_places_without_images_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError):
            ShardDataset(path)
    with pytest.raises(ArtefactError, match="no set of shards"):
        verify(tmp_path)


def flip(path: Path, place: int, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1 << bit
    path.write_bytes(raw)


@pytest.mark.parametrize("format", FORMATS)
def test_every_flip_is_named_and_never_read(made: Path, tmp_path: Path, format: str) -> None:
    """Rows W8 and M2."""
    out, rng = tmp_path / "copy", random.Random(2)
    shutil.copytree(made / format, out)
    golden = synthetic.tree(out)
    names = [name for name in golden if not name.startswith("data/train/") or rng.random() < 0.1]
    for name in names:
        for _ in range(2):
            flip(out / name, rng.randrange(len(golden[name])), rng.randrange(8))
            problems = verify(out)
            assert any(problem.startswith(f"{name}: ") for problem in problems), (name, problems)
            if name == "manifest.json" or name.startswith("data/") or name.endswith(".parquet"):
                with pytest.raises(ArtefactError):
                    load(out)
            (out / name).write_bytes(golden[name])
    assert verify(out) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_never_gives_damaged_images(made: Path, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "copy"
    shutil.copytree(made / format, out)
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))
    victim = sorted(p for p in out.rglob("data/**/*") if p.is_file())[0]
    flip(victim, victim.stat().st_size // 2, 3)
    with pytest.raises(ArtefactError, match="damaged"):
        data = ShardDataset(out)
        [data[row] for row in range(len(data))]


def cut(out: Path, files: list[Path]) -> str:
    files[0].write_bytes(files[0].read_bytes()[:-1])
    return files[0].name


def delete(out: Path, files: list[Path]) -> str:
    files[1].unlink()
    return files[1].name


def swap(out: Path, files: list[Path]) -> str:
    first, second = files[0].read_bytes(), files[-1].read_bytes()
    files[0].write_bytes(second)
    files[-1].write_bytes(first)
    return files[-1].name


def add(out: Path, files: list[Path]) -> str:
    shutil.copy(files[0], files[0].with_name("extra" + files[0].suffix))
    return "extra" + files[0].suffix


def link(out: Path, files: list[Path]) -> str:
    target = files[0].rename(out / "elsewhere")
    files[0].symlink_to(target)
    return files[0].name


def drop_note(out: Path, files: list[Path]) -> str:
    (out / ".datagen/notes/00001.json").unlink()
    return "00001.json"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("harm", [cut, delete, swap, add, link, drop_note])
def test_every_harm_is_named(made: Path, tmp_path: Path, format: str, harm: Callable[[Path, list[Path]], str]) -> None:
    """Row W8."""
    out = tmp_path / "copy"
    shutil.copytree(made / format, out)
    files = sorted(p for p in out.rglob("data/**/*") if p.is_file())
    name = harm(out, files)
    problems = verify(out)
    assert any(name in problem.split(": ")[0] for problem in problems), problems


def test_a_newer_set_names_the_version_it_needs(made: Path, tmp_path: Path) -> None:
    from datagen import storage

    out = tmp_path / "copy"
    shutil.copytree(made / "parquet", out)
    value: dict[str, Any] = storage.read_sealed(out / "manifest.json")
    (out / "manifest.json").write_bytes(storage.seal(value | {"schema": 9, "version": "7.0"}))
    with pytest.raises(ArtefactError, match=r"needs datagen >= 7\.0"):
        load(out)
    for change in ({"shards": [{"file": "x"}]}, {"shards": 3}, {"classes": ["b", "a"]}, {"format": "odd"}):
        (out / "manifest.json").write_bytes(storage.seal(value | change))
        with pytest.raises(ArtefactError):
            load(out)
    note = value["shards"][0]
    for name in ("../x", "/etc/passwd", "a\0b", "a/../b", "a\\b", ""):
        (out / "manifest.json").write_bytes(storage.seal(value | {"shards": [note | {"file": name}]}))
        with pytest.raises(ArtefactError, match="wrong name"):
            load(out)
