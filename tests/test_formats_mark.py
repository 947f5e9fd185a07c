"""Every image says in its file that it is synthetic, unless that is turned off, and loses no pixel by it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
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
    from xml.etree import ElementTree

    said = ElementTree.fromstring(encode.packet(encode.MARKS[kind]))
    found = [value for element in said.iter() for key, value in element.attrib.items() if key.endswith("DigitalSourceType")]
    assert found == [f"http://cv.iptc.org/newscodes/digitalsourcetype/{encode.MARKS[kind]}"]
    content = encode.encode(np.zeros((1, 8, 8, 3), np.uint8), "jpeg", encode.MARKS[kind])[0]
    assert Image.open(io.BytesIO(content)).info["xmp"] == encode.packet(encode.MARKS[kind])
