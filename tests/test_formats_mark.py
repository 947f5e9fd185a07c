"""Every image says in its file that it is synthetic, unless that is turned off, and loses no pixel by it."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import checker
import numpy as np
import pytest
import synthetic
from PIL import Image

import datagen
from datagen.formats import encode
from datagen.reading import shards
from datagen.sources import trust


@pytest.mark.parametrize("encoder", ["png", "jpeg"])
@pytest.mark.parametrize("format", ["parquet", "webdataset", "folder"])
def test_every_image_says_that_it_is_synthetic(tmp_path: Path, format: str, encoder: str) -> None:
    """Row P5."""
    datagen.synthesize("rule:shapes", tmp_path / "out", per_class=20, workers=1, format=format, encoder=encoder)
    found = shards.load(tmp_path / "out")
    located = shards.ShardDataset(tmp_path / "out")._located
    contents = [located.content(row) for row in range(len(found.labels))]
    assert all(trust.mark(Image.open(io.BytesIO(content)).info) == "algorithmicMedia" for content in contents)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["mark"] == "algorithmicMedia" and manifest["synthetic"] is True
    assert "algorithmicMedia" in (tmp_path / "out" / "README.md").read_text()
    datagen.synthesize("rule:shapes", tmp_path / "bare", per_class=20, workers=1, format=format, encoder=encoder, mark=False)
    bare = shards.load(tmp_path / "bare")
    assert np.array_equal(bare.images, found.images), "the mark changes no pixel"
    bare_located = shards.ShardDataset(tmp_path / "bare")._located
    grown = [len(one) - len(bare_located.content(row)) for row, one in enumerate(contents)]
    assert max(grown) < 450
    assert json.loads((tmp_path / "bare" / "manifest.json").read_text())["mark"] == ""
    assert "carry no mark" in (tmp_path / "bare" / "README.md").read_text()
    assert all(trust.mark(Image.open(io.BytesIO(bare_located.content(row))).info) == "" for row in range(5))


@pytest.mark.parametrize("kind", sorted(encode.MARKS))
def test_the_packet_is_xmp_that_others_read(kind: str) -> None:
    tree = ElementTree.fromstring(encode.packet(encode.MARKS[kind]))
    found = [value for element in tree.iter() for key, value in element.attrib.items() if key.endswith("DigitalSourceType")]
    assert found == [f"http://cv.iptc.org/newscodes/digitalsourcetype/{encode.MARKS[kind]}"]
    content = encode.encode(np.zeros((1, 8, 8, 3), np.uint8), "jpeg", encode.MARKS[kind])[0]
    assert Image.open(io.BytesIO(content)).info["xmp"] == encode.packet(encode.MARKS[kind])


def blocks(content: bytes) -> Iterator[bytes]:
    """Yield what a PNG or JPEG file holds beside the pixels, by code that knows the formats and nothing of ours."""
    place = 8 if content.startswith(b"\x89PNG") else 2
    while place == 8 or content.startswith(b"\x89PNG"):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        body = content[place + 8 : place + 8 + length]
        assert struct.unpack(">I", content[place + 8 + length : place + 12 + length])[0] == zlib.crc32(name + body)
        if name == b"iTXt":
            keyword, flags = body.split(b"\0", 1)
            assert keyword == b"XML:com.adobe.xmp" and flags[:2] == b"\0\0"
            yield flags[2:].split(b"\0", 2)[2]
        place += 12 + length
        if name == b"IEND":
            assert place == len(content)
            return
    while content[place] == 0xFF and content[place + 1] != 0xDA:
        (length,) = struct.unpack(">H", content[place + 2 : place + 4])
        body = content[place + 4 : place + 2 + length]
        if content[place + 1] == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            yield body.split(b"\0", 1)[1]
        place += 2 + length


def said(content: bytes) -> list[str]:
    """Return every digital source type that an image file states."""
    name = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    return [element.attrib[name] for packet in blocks(content) for element in ElementTree.fromstring(packet).iter() if name in element.attrib]


@pytest.mark.parametrize("encoder", ["png", "jpeg"])
@pytest.mark.parametrize("format", ["parquet", "webdataset", "folder"])
@pytest.mark.parametrize("source", ["rule", pytest.param("generator", marks=pytest.mark.slow)])
def test_every_mark_is_read_back_by_a_parser_of_its_own(tmp_path: Path, source: str, format: str, encoder: str) -> None:
    """Row P5: 100 % of the images, by code that shares nothing with the product; shard and manifest say it too."""
    more: dict[str, Any] = {"per_class": 30, "workers": 1, "format": format, "encoder": encoder}
    if source == "rule":
        datagen.synthesize(synthetic.rule(tmp_path), tmp_path / "out", **more)
    else:
        datagen.synthesize(synthetic.generator(tmp_path), tmp_path / "out", family=synthetic.own(tmp_path), **more)
    kind = "algorithmicMedia" if source == "rule" else "trainedAlgorithmicMedia"
    found = [said(content) for _, _, content in checker.records(tmp_path / "out")]
    assert found == [[f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}"]] * (150 if source == "rule" else 90)
    manifest = json.loads((tmp_path / "out/manifest.json").read_bytes())
    assert (manifest["synthetic"], manifest["mark"]) == (True, kind)
    assert set(sources(tmp_path / "out", format)) == {"rule" if source == "rule" else "synthetic"}


def sources(out: Path, format: str) -> list[str]:
    """Return the source of every record of a set, as its shards state it."""
    import tarfile

    import pyarrow.parquet as pq

    if format != "webdataset":
        files = sorted(out.glob("data/*.parquet" if format == "parquet" else ".datagen/notes/*.parquet"))
        return [source for path in files for source in pq.read_table(path)["source"].to_pylist()]
    with tarfile.open(next(out.glob("data/*.tar"))) as tar:
        return [json.load(tar.extractfile(member))["source"] for member in tar if member.name.endswith(".json")]  # type: ignore[arg-type]
