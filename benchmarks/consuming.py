"""Images a second of a pass over the same images by ShardDataset and by the readers that people use otherwise, two loader workers each."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
import torchvision
import webdataset
from torch.utils.data import DataLoader

import datagen
from datagen.rules.shapes import Shapes

Row = tuple[str, float, float]
BATCH, WORKERS = 64, 2
ROW_TRANSFORM = torchvision.transforms.PILToTensor()


def passed(make: Callable[[], Any], images: int) -> float:
    """Return images a second of the second pass over a loader whose workers stay; each batch is uint8 [N, 3, H, W] with int64 [N]."""
    batches, seconds = make(), []
    for _ in range(2):
        begun, seen = time.perf_counter(), 0
        for batch in batches:
            pixels = batch["image"] if isinstance(batch, dict) else batch[0]
            assert pixels.dtype == torch.uint8 and pixels.shape[1] == 3
            seen += len(pixels)
        seconds.append(time.perf_counter() - begun)
        assert seen == images, f"{seen} of {images} images"
    return images / seconds[-1]


def loader(data: Any, **more: Any) -> DataLoader:
    """Return a DataLoader whose two workers stay from pass to pass."""
    return DataLoader(data, num_workers=WORKERS, persistent_workers=True, multiprocessing_context="fork", **more)


def tars(folder: Path) -> DataLoader:
    """Return webdataset's reader over tar shards, batches made by it as its documentation says."""
    files = sorted(map(str, folder.glob("data/*.tar")))
    found = webdataset.WebDataset(files, shardshuffle=len(files), workersplitter=webdataset.split_by_worker)
    return loader(found.shuffle(1000).decode("torchrgb8").to_tuple("png", "cls").batched(BATCH), batch_size=None)


def measured(asked: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Give the rows of the table, the middle one of three turns."""
    each = asked.images // len(Shapes.classes)
    total = each * len(Shapes.classes)
    datagen.synthesize("rule:shapes", folder / "parquet", per_class=each, shard_images=max(64, total // 8))
    for name in ("webdataset", "folder"):
        datagen.export(folder / "parquet", folder / name, format=name)
    rows = datasets.load_dataset(str(folder / "parquet"), split="train", cache_dir=str(folder / "cache")).select_columns(["image", "label"])
    ours = {name: partial(loader, datagen.ShardDataset(folder / name), batch_size=BATCH, shuffle=True) for name in ("parquet", "webdataset", "folder")}
    theirs: dict[str, tuple[str, Callable[[], Any]]] = {
        "ImageFolder": (
            "parquet",
            partial(loader, torchvision.datasets.ImageFolder(folder / "folder/data/train", ROW_TRANSFORM), batch_size=BATCH, shuffle=True),
        ),
        "datasets": ("parquet", partial(loader, rows.with_format("torch"), batch_size=BATCH, shuffle=True)),
        "webdataset": ("webdataset", partial(tars, folder / "webdataset")),
    }
    turns = []
    for _ in range(3):
        turns.append({("ours", name): passed(make, total) for name, make in ours.items()})
        turns[-1] |= {("theirs", name): passed(make, total) for name, (_, make) in theirs.items()}
    rates = {name: statistics.median(each[name] for each in turns) for name in turns[0]}
    for name, (format, _) in theirs.items():
        yield f"ShardDataset on {format} beside {name}", rates["ours", format], rates["theirs", name]
    yield "ShardDataset on folder beside ImageFolder", rates["ours", "folder"], rates["theirs", "ImageFolder"]
