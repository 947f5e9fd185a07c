"""The card of a set says what an evaluation of the same generator's images found, and of no other one's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import datagen
from datagen.errors import ArtefactError, DatagenError, UsageError
from datagen.evaluation.report import schema

SENTENCE = "Adding these synthetic images to the real ones helps \x1b: accuracy rises by 1.0 points."


def report(folder: Path, production: str) -> Path:
    """Write the part of a report that matters here."""
    folder.mkdir()
    value = {"verdict": {"sentence": SENTENCE, "set": "small"}, "data": {"synthetic": {"small": {"production": production}}}}
    (folder / "report.json").write_text(json.dumps(value))
    assert {"verdict.sentence", "verdict.set", "data.synthetic.*.production"} <= set(schema.KEYS)
    return folder


def test_the_verdict_on_a_small_set_stands_in_the_card_of_a_large_one(tmp_path: Path) -> None:
    small = datagen.synthesize("rule:shapes", tmp_path / "small", per_class=2)
    found = report(tmp_path / "report", small["production"])
    datagen.synthesize("rule:shapes", tmp_path / "large", per_class=70, report=str(found))
    card = (tmp_path / "large" / "README.md").read_text(encoding="utf-8")
    assert "Evaluated with images of the same generator and settings: Adding these" in card
    assert "\x1b" not in card and str(tmp_path) not in card
    assert json.loads((tmp_path / "large" / "manifest.json").read_bytes())["verdict"].startswith("Adding these")


@pytest.mark.parametrize(("production", "kind", "said"), [("0" * 64, UsageError, "judged images of another production"), (None, ArtefactError, "is missing")])
def test_a_verdict_on_other_images_is_refused_before_anything_is_written(tmp_path: Path, production: str | None, kind: type[DatagenError], said: str) -> None:
    found = tmp_path / "report" if production is None else report(tmp_path / "report", production)
    with pytest.raises(kind, match=said):
        datagen.synthesize("rule:shapes", tmp_path / "out", per_class=2, report=str(found))
    assert not list((tmp_path / "out").glob("*.json"))
