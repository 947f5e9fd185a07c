"""What others leave in folders of images and of shards: manifests, litter, hidden folders, columns that swell; and shares that add up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_training import quick_fit
from torch.utils.data import DataLoader

import datagen
from datagen import holding
from datagen.cli.describe import kind_of
from datagen.errors import ArtefactError, OutputError
from datagen.formats import parquet
from datagen.reading.located import locate
from datagen.reading.manifest import is_set
from datagen.reading.verify import verify
from datagen.synthesis import acceptance, heartbeat, painter

Make = Callable[..., Path]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    datagen.synthesize("rule:shapes", tmp_path / "s", per_class=4, workers=1)
    return tmp_path / "s"


def test_a_manifest_of_another_tool_makes_no_set(make_folder: Make, shards: Path, tmp_path: Path) -> None:
    folder = make_folder(classes=["a", "b"], each=3)
    (folder / "manifest.json").write_text(json.dumps({"name": "my app", "icons": []}))
    assert not is_set(folder) and kind_of(folder) == "folder" and len(datagen.ShardDataset(folder)) == 6
    assert is_set(shards)
    for path in sorted((shards / ".datagen").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (shards / ".datagen").rmdir()
    assert is_set(shards), "copied without hidden folders"


def test_litter_is_no_damage(shards: Path) -> None:
    for name in (".DS_Store", "._x", ".nfs0001"):
        (shards / "data" / name).write_bytes(b"x")
    assert verify(shards) == []
    (shards / "data" / "more.parquet").write_bytes(b"x")
    assert verify(shards) == ["data/more.parquet: is not of this set"]


def test_a_hidden_folder_makes_no_part_of_a_class(make_folder: Make) -> None:
    folder = make_folder(classes=["car", "plane", "train"], each=2)
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "__MACOSX").mkdir()
    assert locate(folder).classes == ("car", "plane", "train")


def test_a_column_that_a_few_bytes_make_large_is_refused(tmp_path: Path, shards: Path) -> None:
    (own,) = (shards / "data").glob("*.parquet")
    assert sum(batch.num_rows for batch in parquet.batches(own)) == datagen.describe(shards)["images"]
    table = pq.read_table(own)
    pq.write_table(table, tmp_path / "swelling.parquet", use_dictionary=True)
    with pytest.raises(ArtefactError, match="references to a few values"):
        next(parquet.batches(tmp_path / "swelling.parquet"))
    assert isinstance(table, pa.Table)


@pytest.mark.parametrize("per_epoch, ranks, workers", [(6, 2, 2), (644, 3, 2), (50, 4, 3)])
def test_ranks_with_workers_take_as_many_images_as_they_say(per_epoch: int, ranks: int, workers: int) -> None:
    from datagen.synthesis.stream import StreamDataset

    streams = [StreamDataset("rule:shapes", per_epoch=per_epoch, rank=rank, shares=ranks) for rank in range(ranks)]
    shares = ranks * workers
    counts = [sum(len(stream._owned(worker * ranks + rank, shares)) for worker in range(workers)) for rank, stream in enumerate(streams)]
    assert counts == [len(stream) for stream in streams] and sum(counts) == per_epoch


def test_a_loader_with_workers_yields_the_length_of_a_share() -> None:
    from datagen.synthesis.stream import StreamDataset

    stream = StreamDataset("rule:shapes", per_epoch=6, rank=0, shares=2)
    assert sum(len(labels) for _, labels in DataLoader(stream, batch_size=1, num_workers=2)) == len(stream) == 3


def test_probing_is_heard(make_folder: Make, tmp_path: Path) -> None:
    from datagen.records import Recipe

    quick_fit(make_folder(each=12), tmp_path / "run", images=64)
    origin = painter.look(str(tmp_path / "run"), Recipe())
    heard: list[int] = []
    with heartbeat.listening(lambda images, spent: heard.append(images)):
        opened = painter.open_painter(origin, 0)
        origin = painter.dataclasses.replace(origin, confidence=1e-9) if not origin.reference else origin
        acceptance.require(opened, origin, origin.classes)
    assert len(heard) >= len(origin.classes) and sum(heard) == 0


def test_where_there_are_no_locks_a_holder_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []
    monkeypatch.setattr(holding.time, "sleep", tries.append)
    with holding.held(tmp_path):
        with pytest.raises(OutputError), holding._waiting(tmp_path, holding.NAME, 0.0):
            pass
        assert not tries
    monkeypatch.setattr(holding, "held", _busy_twice(holding.held))
    with holding._waiting(tmp_path, holding.NAME, 60.0):
        assert len(tries) == 2 and (tmp_path / holding.NAME).exists()


def _busy_twice(held: Callable[..., object]) -> Callable[..., object]:
    left = [2]

    def trying(folder: Path, name: str) -> object:
        if left[0]:
            left[0] -= 1
            raise OutputError("another datagen process works in this folder", where=folder)
        return held(folder, name)

    return trying


def test_products_are_as_exact_as_in_workers_whatever_the_caller_set() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with painter.one_thread():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
