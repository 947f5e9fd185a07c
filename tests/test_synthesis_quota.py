"""How many images of each class are made: evenly, in proportion, by a file, or up to the largest class of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datagen
from datagen.errors import InputError, UsageError
from datagen.progress import Progress
from datagen.recipe import gather
from datagen.synthesis import quota

Maker = Callable[..., Path]
CLASSES = ("a", "b, c", "d")
REAL = {"a": 10, "b, c": 70, "d": 20}


def counts(names: tuple[str, ...] = CLASSES, real: dict[str, int] | None = REAL, **settings: object) -> tuple[int, ...]:
    return quota.counts(gather(None, [], **settings), names, real, Progress(quiet=True))


def test_every_way_counts_in_the_order_of_the_classes(tmp_path: Path) -> None:
    assert counts(per_class=7) == (7, 7, 7)
    assert counts(count=10) == (4, 3, 3)
    assert counts(count=10, proportions="real") == (1, 7, 2)
    assert counts(count=90, proportions="real", classes='a, "b, c"') == (11, 79, 0)
    assert counts(per_class=5, classes='"b, c"') == (0, 5, 0)
    (tmp_path / "q.json").write_text('{"d": 3, "a": 0}')
    (tmp_path / "q.csv").write_text('\ufeffclass,images\n"b, c", 12\n\nd,1\n')
    assert counts(quota=str(tmp_path / "q.json")) == (0, 0, 3)
    assert counts(quota=str(tmp_path / "q.csv")) == (0, 12, 1)


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1e6), min_size=1, max_size=40))
def test_shares_are_whole_and_sum_to_the_total(total: int, weights: list[float]) -> None:
    found = quota.shared(total, np.array(weights))
    if sum(weights) == 0:
        assert found == [0] * len(weights)
        return
    assert sum(found) == total and min(found) >= 0
    assert np.abs(np.array(found) - total * np.array(weights) / np.sum(weights)).max() < 1 + 1e-6
    assert all(number == 0 for number, weight in zip(found, weights, strict=True) if weight == 0)


def test_a_folder_is_filled_up_to_its_largest_class(make_folder: Maker) -> None:
    root = make_folder(classes=["a", "d"], each=9)
    for file in sorted((root / "a").iterdir())[:6]:
        file.unlink()
    assert counts(balance_with=str(root)) == (6, 9, 0)
    with pytest.raises(InputError, match="'d' is not one"):
        counts(("a", "b"), None, balance_with=str(root))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "how many images is not said"),
        ({"per_class": 3, "count": 5}, "contradict each other"),
        ({"per_class": 3, "classes": "a,x"}, "'x' is not one"),
        ({"per_class": 3, "proportions": "real"}, "only --count"),
        ({"count": 3, "classes": ""}, "no image is wanted"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        counts(**settings)
    with pytest.raises(UsageError, match="no real images"):
        counts(real=None, count=5, proportions="real")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("q.json", '{"x": 3}', "class 'x' is not one"),
        ("q.json", '{"a": -3}', "wants '-3' images of class 'a'"),
        ("q.json", '{"a": 1.5}', "whole number"),
        ("q.json", '{"a": true}', "whole number"),
        ("q.json", "[1]", "no JSON object"),
        ("q.csv", "a,1\na,2\n", "line 2 names class 'a' again"),
        ("q.csv", "a,1,2\n", "line 1 has 3 fields"),
        ("q.csv", "a,1\nd,many\n", "wants 'many' images"),
        ("q.csv", "a,1.5\nd,3\n", "wants '1.5' images of class 'a'"),
        ("q.csv", "\xff\xfe", "not UTF-8"),
        ("none.csv", None, "No such file"),
    ],
)
def test_files_that_are_no_quotas_are_refused_with_their_place(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=words) as error:
        counts(quota=str(tmp_path / name))
    assert str(tmp_path / name) in error.value.line()


def test_a_class_with_no_image_keeps_its_label(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps({"circle": 3, "square": 70}))
    made = datagen.synthesize("rule:shapes", tmp_path / "out", quota=str(tmp_path / "q.json"), workers=1)
    assert made["images"] == 73
    shards = datagen.ShardDataset(tmp_path / "out")
    everything = datagen.synthesize("rule:shapes", tmp_path / "all", per_class=1, workers=1, dry_run=True)
    assert list(shards.classes) == sorted(everything["counts"]) and len(shards.classes) > 2
    names = [shards.classes[label] for label in shards.labels]
    assert (names.count("circle"), names.count("square"), len(names)) == (3, 70, 73)
    again = datagen.synthesize("rule:shapes", tmp_path / "out", quota=str(tmp_path / "q.json"), workers=1)
    assert again["finished"]
    with pytest.raises(UsageError, match=r"counts: 73 images, now 4 of each class"):
        datagen.synthesize("rule:shapes", tmp_path / "out", per_class=4, workers=1)


def test_a_class_without_a_folder_is_said_to_shift_labels(tmp_path: Path) -> None:
    asked = {"quota": str(tmp_path / "q.json"), "workers": 1}
    (tmp_path / "q.json").write_text(json.dumps({"circle": 3, "square": 7}))
    for format, warned in {"folder": True, "parquet": False}.items():
        progress = Progress(tmp_path / format, quiet=True)
        warnings: list[str] = []
        progress.warn = warnings.append  # type: ignore[method-assign]
        datagen.synthesize("rule:shapes", tmp_path / format, format=format, progress=progress, **asked)
        assert any("ImageFolder numbers the other classes without them" in text for text in warnings) == warned
