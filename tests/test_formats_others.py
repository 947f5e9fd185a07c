"""Sets of every release and of today through other people's readers: the same images with the same labels."""

from __future__ import annotations

import io
import json
import os
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import synthetic
from PIL import Image

from datagen.reading.shards import load
from datagen.synthesis.run import synthesize

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*/shards/*"))
FORMATS = ("parquet", "webdataset", "folder")
Pair = tuple[bytes, str]
"""pixels and name of the class: a class without images has no folder, so that ImageFolder numbers the others otherwise"""


@pytest.fixture(scope="module", params=["today", *sorted({path.parent.parent.name for path in GOLDEN})])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one set a format, as a release or the tree of today wrote it."""
    if request.param != "today":
        return Path(__file__).parent / "golden" / request.param / "shards"
    root = tmp_path_factory.mktemp("today")
    for format in FORMATS:
        synthesize(synthetic.rule(root), root / format, per_class=7, format=format, shard_images=14, workers=1)
    return root


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(os.environ, "HF_HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pixels(image: Image.Image) -> bytes:
    return np.asarray(image.convert("RGB")).tobytes()


def classes(path: Path) -> list[str]:
    """Return the classes in the order of the labels."""
    return list(json.loads((path / "classes.json").read_bytes()))


def by_pyarrow(path: Path) -> Iterator[Pair]:
    import pyarrow.parquet as pq

    for row in pq.ParquetDataset(path / "data").read().to_pylist():
        yield pixels(Image.open(io.BytesIO(row["image"]["bytes"]))), classes(path)[row["label"]]


def by_webdataset(path: Path) -> Iterator[Pair]:
    import webdataset

    tars = [str(tar) for tar in sorted((path / "data").iterdir())]
    for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("pil"):
        yield pixels(next(sample[suffix] for suffix in ("png", "jpg") if suffix in sample)), classes(path)[sample["cls"]]


def by_image_folder(path: Path) -> Iterator[Pair]:
    from torchvision.datasets import ImageFolder

    data = ImageFolder(str(path / "data" / "train"))
    yield from ((pixels(image), data.classes[label]) for image, label in data)


def by_hugging_face(path: Path) -> Iterator[Pair]:
    import datasets

    datasets.disable_progress_bars()
    data = datasets.load_dataset(str(path), cache_dir=os.environ["HF_HOME"], split="train")
    image, label = next(pair for pair in (("image", "label"), ("png", "cls"), ("jpg", "cls")) if pair[0] in data.features)
    names = data.features[label].names if image == "image" else classes(path)
    yield from ((pixels(row[image]), names[row[label]]) for row in data)


READERS = [
    ("parquet", by_pyarrow),
    ("parquet", by_hugging_face),
    ("webdataset", by_webdataset),
    ("webdataset", by_hugging_face),
    ("folder", by_image_folder),
    ("folder", by_hugging_face),
]


def ours(path: Path) -> Counter[Pair]:
    """Return what our own reader gives, images as RGB."""
    found = load(path)
    return Counter((pixels(Image.fromarray(image.squeeze())), found.classes[label]) for image, label in zip(found.images, found.labels, strict=True))


@pytest.mark.parametrize(("format", "reader"), READERS, ids=lambda each: getattr(each, "__name__", each))
def test_others_read_the_same_images_and_labels(release: Path, format: str, reader: Callable[[Path], Iterator[Pair]]) -> None:
    """Row M6."""
    found = Counter(reader(release / format))
    assert found == ours(release / format)
    assert sum(found.values()) > 0


def test_every_format_of_a_release_holds_the_same(release: Path) -> None:
    """Row M6."""
    assert ours(release / "parquet") == ours(release / "webdataset") == ours(release / "folder")


def test_keys_have_no_dots(release: Path) -> None:
    """Row M6: a webdataset key ends at the first dot."""
    for path in (release / "webdataset" / "data").iterdir():
        with tarfile.open(path) as tar:
            assert all(name.count(".") == 1 and "/" not in name for name in tar.getnames())
