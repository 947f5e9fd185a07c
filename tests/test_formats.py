"""Image files, names and shards as other programs open them."""

from __future__ import annotations

import io
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from datagen.errors import ArtefactError
from datagen.formats import encode, names
from datagen.formats.webdataset import WebDataset, header, members
from datagen.synthesis.run import synthesize

FORMATS = ("parquet", "webdataset", "folder")


@settings(max_examples=80)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))))
def test_png_is_lossless(images: np.ndarray) -> None:
    for image, content in zip(images, encode.encode(images, "png"), strict=True):
        opened = Image.open(io.BytesIO(content))
        opened.load()
        assert opened.mode == ("L" if image.shape[2] == 1 else "RGB")
        assert np.array_equal(np.asarray(opened).reshape(image.shape), image)
        assert np.array_equal(encode.decode(content), image)


def test_png_takes_every_filter_and_any_place_in_a_batch() -> None:
    ramp = np.tile(np.arange(0, 160, 5, dtype=np.uint8), (32, 1))
    images = np.stack([ramp, ramp.T])[..., None]
    assert set(encode.filtered(images)[:, 1:, 0].ravel()) == {1, 2}
    noise = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    whole = encode.encode(noise, "png")
    assert whole == [encode.encode(image[None], "png")[0] for image in noise]


def test_a_png_is_hardly_larger_than_pillows() -> None:
    rows, columns = np.mgrid[:48, :48]
    image = np.stack([(rows * 3 + columns) % 256, rows * 2, columns * 4], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    assert len(encode.encode(image[None], "png")[0]) < 1.3 * len(file.getvalue())


def test_jpeg_keeps_colour_at_full_resolution() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, ::2] = (255, 0, 0)
    decoded = encode.decode(encode.encode(image[None], "jpeg")[0])
    assert np.abs(decoded.astype(int) - image).mean() < 8
    assert encode.decode(encode.encode(image[None, ..., :1], "jpeg")[0]).shape == (16, 16, 1)


def test_an_image_that_is_none_is_refused() -> None:
    content = encode.encode(np.zeros((1, 4, 4, 3), np.uint8), "png")[0]
    for bad in (b"", content[:40], b"GIF89a" + content, content[:45] + b"\xff" + content[46:]):
        with pytest.raises(ArtefactError, match="cannot be decoded"):
            encode.decode(bad)


def test_safe_names_stay_and_one_unsafe_name_renames_all() -> None:
    assert names.class_folders(synthetic.PLAIN) == synthetic.PLAIN
    assert names.class_folders(("Cat", "cat")) == ("0000_Cat", "0001_cat")
    assert names.class_folders(("a/b", "dog")) == ("0000_a-b", "0001_dog")
    assert names.class_folders(("..", "...")) == ("0000_class", "0001_class")
    for name in ("..", ".x", " a", "a.", "CON", "con.txt", "a\nb", "x" * 255, "", "__a", "a:b", "byte\udcff"):
        assert not names.safe(name), name


@given(st.sets(st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=20), min_size=1, max_size=30))
def test_folder_names_are_distinct_sorted_and_safe(classes: set[str]) -> None:
    ordered = sorted(classes)
    folders = names.class_folders(ordered)
    assert sorted(folders) == list(folders)
    assert len({folder.casefold() for folder in folders}) == len(ordered)
    assert all(names.safe(folder) for folder in folders)
    loader = names.loader_names(ordered)
    assert len(set(loader)) == len(ordered)
    assert all(name.encode("utf-8") for name in loader)


def test_tar_headers_are_those_of_tarfile() -> None:
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("0001-00000002.json")
        info.size, info.uname, info.gname = 700, "datagen", "datagen"
        tar.addfile(info, io.BytesIO(bytes(700)))
    assert file.getvalue()[:512] == header("0001-00000002.json", 700)


@pytest.mark.parametrize("place", ["name", "kind", "size", "checksum", "padding", "tail"])
def test_a_tar_with_anything_else_is_refused(tmp_path: Path, place: str) -> None:
    out = tmp_path / "shards"
    synthesize(synthetic.rule(tmp_path), out, per_class=2, format="webdataset")
    path = next(out.glob("data/*.tar"))
    raw = bytearray(path.read_bytes())
    padding = 511 + -(-int(raw[124:135], 8) // 512) * 512
    offset = {"name": 0, "kind": 156, "size": 124, "checksum": 150, "padding": padding, "tail": len(raw) - 1}[place]
    assert len(list(members(path))) == 30
    raw[offset] = raw[offset] ^ 2
    path.write_bytes(raw)
    with pytest.raises(ArtefactError):
        list(members(path))


def test_a_label_that_is_no_number_is_refused(tmp_path: Path) -> None:
    from datagen.formats.webdataset import member

    path = tmp_path / "x.tar"
    path.write_bytes(member("a.png", b"x") + member("a.cls", b"one") + member("a.json", b"{}") + bytes(1024))
    with pytest.raises(ArtefactError, match="cannot be read"):
        list(WebDataset().read(path))


@pytest.fixture(scope="module", params=["plain, one shard", "plain, many shards", "nasty"])
def sets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...], int]:
    """One set in each format below a folder, with its classes and the images of a class."""
    root = tmp_path_factory.mktemp("sets")
    classes = synthetic.NASTY if request.param == "nasty" else synthetic.PLAIN
    each, size = (3, 64) if request.param == "nasty" else (70, 10_000 if "one" in request.param else 64)
    for format in FORMATS:
        value = synthesize(synthetic.rule(root, classes), root / format, per_class=each, format=format, shard_images=size, workers=1)
        assert (value["shards"] == 1) == ("one" in request.param)
    return root, tuple(sorted(classes)), each


def expected(classes: tuple[str, ...], each: int, source: tuple[str, ...]) -> dict[tuple[int, int], bytes]:
    return {(label, i): synthetic.drawn(0, name, i, source).tobytes() for label, name in enumerate(classes) for i in range(each)}


def source_of(classes: tuple[str, ...]) -> tuple[str, ...]:
    return synthetic.PLAIN if set(classes) == set(synthetic.PLAIN) else synthetic.NASTY


def test_pyarrow_and_pandas_open_parquet(sets: tuple[Path, tuple[str, ...], int]) -> None:
    """Row M6."""
    import pandas
    import pyarrow.parquet as pq

    root, classes, each = sets
    wanted = expected(classes, each, source_of(classes))
    table = pq.ParquetDataset(root / "parquet" / "data").read()
    frame = pandas.concat([pandas.read_parquet(p) for p in sorted((root / "parquet/data").iterdir())])
    for rows in (table.to_pylist(), frame.to_dict("records")):
        found = {(int(r["label"]), int(r["index"])): np.asarray(Image.open(io.BytesIO(r["image"]["bytes"]))).tobytes() for r in rows}
        assert len(rows) == len(found)
        assert found == wanted
    loader = names.loader_names(classes)
    assert {(row["label"], row["class"]) for row in table.to_pylist()} == set(enumerate(loader))
    assert table.column("confidence").null_count == table.column("probabilities").null_count == table.num_rows
    assert str(table.schema.field("probabilities").type) == "list<element: halffloat>"
    assert all(pq.ParquetFile(p).metadata.row_group(0).column(0).compression == "ZSTD" for p in (root / "parquet/data").iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_hugging_face_opens_every_format(sets: tuple[Path, tuple[str, ...], int], format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row M6."""
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(os.environ, "HF_HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        datasets.disable_progress_bars()
        data = datasets.load_dataset(str(sets[0] / format), cache_dir=str(tmp_path), split="train")
        image, label = ("png", "cls") if format == "webdataset" else ("image", "label")
        rows = [(row[label], np.asarray(row[image]).tobytes()) for row in data]
    root, classes, each = sets
    assert sorted(rows) == sorted((label, raw) for (label, _), raw in expected(classes, each, source_of(classes)).items())
    shown = names.class_folders(classes) if format == "folder" else classes
    assert tuple(data.features[label].names) == names.loader_names(shown)
    assert root


def test_webdataset_opens_tars(sets: tuple[Path, tuple[str, ...], int]) -> None:
    """Row M6."""
    root, classes, each = sets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        data = webdataset.WebDataset([str(p) for p in sorted((root / "webdataset/data").iterdir())], shardshuffle=False).decode("rgb8")
        rows: list[Any] = list(data)
    assert {(r["cls"], r["json"]["index"]): r["png"].tobytes() for r in rows} == expected(classes, each, source_of(classes))
    assert len(rows) == each * len(classes)
    loader = names.loader_names(classes)
    assert all(r["json"]["class"] == loader[r["cls"]] for r in rows)


def test_image_folder_opens_folders(sets: tuple[Path, tuple[str, ...], int]) -> None:
    """Row M6."""
    from torchvision.datasets import ImageFolder

    root, classes, each = sets
    data = ImageFolder(str(root / "folder/data/train"))
    assert tuple(data.classes) == names.class_folders(classes)
    found = {(label, int(Path(path).stem)): np.asarray(Image.open(path)).tobytes() for path, label in data.samples}
    assert found == expected(classes, each, source_of(classes))
    assert len(data) == each * len(classes)


def test_sidecars_name_every_class(sets: tuple[Path, tuple[str, ...], int]) -> None:
    root, classes, each = sets
    for format in FORMATS:
        assert json.loads((root / format / "classes.json").read_bytes()) == list(classes)
        manifest = json.loads((root / format / "manifest.json").read_bytes())
        assert manifest["classes"] == list(classes)
        assert manifest["counts"] == dict.fromkeys(classes, each)
        assert manifest["images"] == each * len(classes)
        assert bool(manifest["folders"]) == (format == "folder" and len(classes) > 5)
        below = {p.relative_to(root / format).parts[0] for p in (root / format).rglob("*")}
        assert below <= {"data", "manifest.json", "README.md", "classes.json", "croissant.json", ".datagen", "status.json", ".lock"}
