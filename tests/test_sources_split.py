"""The split: disjoint, complete, groups and equal pixels on one side, the same in any order; and the planned shape (D9)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen import seeds
from datagen.errors import InputError
from datagen.records import Dataset, Recipe
from datagen.sources.shape import plan_shape
from datagen.sources.split import Split, split


def dataset(labels: Sequence[int], contents: Sequence[int] | None = None, groups: Sequence[str] | None = None, test: Sequence[bool] | None = None) -> Dataset:
    """Return a made set: equal contents are equal pixels."""
    count = len(labels)
    digests = [np.frombuffer(seeds.digest(i)[:16], np.uint8) for i in (range(count) if contents is None else contents)]
    return Dataset(
        root="/r",
        paths=tuple(f"{i}.png" for i in range(count)),
        labels=np.array(labels, np.int64),
        classes=tuple(f"c{i}" for i in range(max(labels, default=0) + 1)),
        groups=None if groups is None else tuple(groups),
        digests=np.array(digests, np.uint8).reshape(count, 16),
        sizes=np.full((count, 2), 32, np.int32),
        grey=False,
        test=np.zeros(count, bool) if test is None else np.array(test, bool),
        fingerprint="",
    )


def reordered(found: Dataset, order: np.ndarray) -> Dataset:
    groups = None if found.groups is None else tuple(found.groups[i] for i in order)
    paths = tuple(found.paths[i] for i in order)
    arrays = {name: getattr(found, name)[order] for name in ("labels", "digests", "sizes", "test")}
    return dataclasses.replace(found, paths=paths, groups=groups, **arrays)


def sides(found: Dataset, made: Split) -> np.ndarray:
    """Return 0 for train, 1 for select, 2 for test; checks that the split is disjoint, complete, ascending and int64."""
    side = np.full(len(found), -1)
    for number, part in enumerate((made.train, made.select, made.test)):
        assert part.dtype == np.int64 and (np.diff(part) > 0).all() and (side[part] == -1).all()
        side[part] = number
    assert (side >= 0).all()
    return side


@st.composite
def sets(draw: st.DrawFn) -> Dataset:
    count = draw(st.integers(1, 60))
    numbers = st.lists(st.integers(0, 50), min_size=count, max_size=count)
    labels = [n % 4 for n in draw(numbers)]
    contents = draw(st.none() | numbers)
    groups = draw(st.none() | st.lists(st.sampled_from("abcdefgh"), min_size=count, max_size=count))
    test = draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    return dataset(labels, contents, groups, test)


@given(sets(), st.sampled_from([0.0, 0.15, 0.5, 0.9]), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_what_holds_for_every_split(found: Dataset, holdout: float, key: int, random: object) -> None:
    made = split(found, holdout=holdout, key=key)
    side = sides(found, made)
    inside = ~found.test
    if found.test.any():
        assert np.array_equal(made.test, np.flatnonzero(found.test))
    for marks in filter(None, [found.groups, [row.tobytes() for row in found.digests]]):
        for mark in set(marks):
            assert len(set(side[np.array([m == mark for m in marks]) & inside])) <= 1
    order = np.array(random.sample(range(len(found)), len(found)))  # type: ignore[attr-defined]
    assert np.array_equal(sides(found, split(reordered(found, order), holdout=holdout, key=key))[np.argsort(order)], side)
    for label in set(found.labels[inside].tolist()):
        assert (side[inside & (found.labels == label)] == 0).any() or found.groups is not None or len(set(found.digests[:, 0])) < len(found)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.sampled_from([0.0, 0.15, 0.5]), st.integers(0, 3))
@settings(max_examples=60)
def test_every_class_trains_and_selects(counts: list[int], holdout: float, key: int) -> None:
    found = dataset([label for label, count in enumerate(counts) for _ in range(count)])
    side = sides(found, split(found, holdout=holdout, key=key))
    for label, count in enumerate(counts):
        mine = side[found.labels == label]
        assert (mine == 0).any()
        assert (mine == 1).any() == (count >= 2)
        rest = (mine < 2).sum()
        assert (mine == 1).sum() <= max(1, np.ceil(0.1 * rest))


def test_the_shares_are_about_right_and_follow_the_key() -> None:
    found = dataset([i % 10 for i in range(5000)])
    made = split(found, holdout=0.2, key="one")
    assert 900 < len(made.test) < 1100 and 390 < len(made.select) < 420 and made.notes == ()
    assert 0.53 < np.mean(sides(found, made) == sides(found, split(found, holdout=0.2, key="two"))) < 0.6


def test_test_is_what_lies_below_the_fraction_and_grows_with_it() -> None:
    found = dataset([i % 3 for i in range(600)])
    expected = [i for i in range(600) if seeds.fraction("test", "k", found.digests[i].tobytes()) < 0.3]
    assert split(found, holdout=0.3, key="k").test.tolist() == expected
    assert set(split(found, holdout=0.1, key="k").test) < set(expected)
    assert len(split(found, holdout=0.0, key="k").test) == 0


def test_an_image_stays_on_its_side_when_others_come() -> None:
    found = dataset([i % 3 for i in range(900)])
    fewer = reordered(found, np.arange(600))
    assert split(fewer, holdout=0.2, key="k").test.tolist() == [i for i in split(found, holdout=0.2, key="k").test if i < 600]


def test_given_test_images_are_the_test_part() -> None:
    found = dataset([0, 1] * 20, test=[i >= 30 for i in range(40)])
    made = split(found, holdout=0.5, key="k")
    assert made.test.tolist() == list(range(30, 40)) and len(made.train) + len(made.select) == 30


def test_groups_that_share_pixels_stay_together() -> None:
    contents = list(range(40))
    contents[10] = contents[30]
    found = dataset([0] * 40, contents, [f"g{i // 10}" for i in range(40)])
    for key in range(20):
        side = sides(found, split(found, holdout=0.4, key=key))
        assert len(set(side[10:20]) | set(side[30:40])) == 1


def test_a_class_of_one_group_trains_and_is_noted() -> None:
    found = dataset([0] * 20 + [1] * 20, groups=["only"] * 20 + [f"g{i}" for i in range(20)])
    for key in range(10):
        made = split(found, holdout=0.3, key=key)
        side = sides(found, made)
        assert set(side[:20]) == {0} and set(side[20:]) == {0, 1, 2}
        assert any("select" in note and "'c0'" in note for note in made.notes)
        assert any("held-out" in note and "'c0'" in note for note in made.notes)


def shaped(sizes: list[tuple[int, int]], grey: bool = False, **settings: object) -> tuple[tuple[int, int, int], str]:
    found = dataset([0] * len(sizes))
    return plan_shape(dataclasses.replace(found, sizes=np.array(sizes, np.int32), grey=grey), Recipe(**settings))


@pytest.mark.parametrize(
    "sizes,expected",
    [
        ([(28, 28)], (28, 28)),
        ([(32, 32)], (32, 32)),
        ([(8, 8)], (8, 8)),
        ([(1, 1)], (8, 8)),
        ([(33, 33)], (32, 32)),
        ([(35, 35), (20, 20), (90, 80)], (32, 32)),
        ([(50, 50)], (48, 48)),
        ([(64, 64)], (64, 64)),
        ([(1080, 1080)], (64, 64)),
        ([(1080, 1920)], (40, 64)),
        ([(1920, 1080)], (64, 40)),
        ([(32, 64)], (32, 64)),
        ([(100, 115)], (64, 64)),
        ([(20, 400)], (8, 64)),
    ],
)
def test_the_size_is_planned_from_the_median(sizes: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    shape, why = shaped(sizes)
    assert shape == (3, *expected)
    assert f"{expected[0]}x{expected[1]} RGB" in why and "planned" in why


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=9), st.sampled_from(["crop", "pad", "stretch"]))
@settings(max_examples=60)
def test_planned_sides_suit_nets(sizes: list[tuple[int, int]], resize: str) -> None:
    (_, height, width), why = shaped(sizes, resize=resize)
    for side in (height, width):
        assert 8 <= side <= 64 and side % (4 if side <= 32 else 8) == 0
    assert why.count("\n") == 0


def test_the_recipe_decides_and_the_sentence_counts() -> None:
    shape, why = shaped([(48, 64), (48, 64), (100, 64), (20, 20)], size="48x64")
    assert shape == (3, 48, 64) and "--size 48x64" in why
    assert "2 of 4 used as they are" in why and "1 of 4 enlarged" in why and "2 of 4 cropped" in why
    assert "2 of 4 padded" in shaped([(48, 64), (48, 64), (100, 64), (20, 20)], size="48x64", resize="pad")[1]
    assert "all stretched" in shaped([(10, 40)], size=16, resize="stretch")[1]


def test_grey_sets_stay_grey_unless_told() -> None:
    assert shaped([(28, 28)], grey=True)[0][0] == 1
    assert shaped([(28, 28)], grey=True, colour="rgb")[0][0] == 3
    assert shaped([(28, 28)], colour="grey")[0][0] == 1
    assert "every image is grey" in shaped([(28, 28)], grey=True)[1]
    with pytest.raises(InputError):
        shaped([])
