"""croissant.json: the public validator accepts it and reads every image by it; nothing in it is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import mlcroissant
import pytest

import datagen
from datagen.storage import hash_file


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the validator's own dependencies
@pytest.mark.parametrize("format", ["parquet", "webdataset", "folder"])
def test_it_is_valid_and_leads_to_every_image(tmp_path: Path, format: str) -> None:
    more = {"license": "cc-by-4.0", "origin": "made \x1b shapes"} if format == "parquet" else {}
    datagen.synthesize("rule:shapes", tmp_path / "shards", per_class=40, shard_images=64, workers=1, format=format, **more)
    file = tmp_path / "shards" / "croissant.json"
    found = mlcroissant.Dataset(file)
    assert not found.metadata.ctx.issues.errors
    shards = datagen.ShardDataset(tmp_path / "shards")
    names = [record["labels/name"] for record in found.records("labels")]
    assert names == list(shards.classes)
    value = json.loads(file.read_bytes())
    assert ("license" in value, "isBasedOn" in value) == (bool(more), bool(more)) and "datePublished" not in value
    if format != "folder":
        sums = {each["contentUrl"]: each["sha256"] for each in value["distribution"] if "sha256" in each}
        assert len(sums) > 1 and all(hash_file(tmp_path / "shards" / name) == sha256 for name, sha256 in sums.items())
    if format == "parquet":
        card = (tmp_path / "shards" / "README.md").read_text(encoding="utf-8")
        assert 'license: "cc-by-4.0"' in card and "The real images: made \\\\x1b shapes." in card
        read = [
            (record["images/image"].tobytes(), record["images/label"], record["images/class"].decode())
            for record in mlcroissant.Dataset(file).records("images")
        ]
        known = {(image.permute(1, 2, 0).numpy().tobytes(), label, shards.classes[label]) for image, label in (shards[i] for i in range(len(shards)))}
        assert len(read) == len(shards) == 240 and set(read) == known
