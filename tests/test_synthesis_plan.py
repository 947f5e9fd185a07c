"""Which images there are, and which shard takes which."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.formats.parquet import Parquet
from datagen.records import Recipe
from datagen.synthesis.plan import TILE, Plan, shard_size

COUNTS = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 400)).map(lambda pair: (pair[1],) * pair[0]),
    st.lists(st.integers(0, 400), min_size=1, max_size=12).filter(any).map(tuple),
)
PLANS = st.builds(
    lambda counts, seed, shard_images: Plan(tuple(f"c{i:02d}" for i in range(len(counts))), counts, seed, shard_images),
    counts=COUNTS,
    seed=st.integers(0, 2**62),
    shard_images=st.integers(1, 2000),
)


def images(plan: Plan) -> list[tuple[int, int]]:
    tasks = [plan.task(id, Parquet()) for id in range(plan.shards)]
    assert [task.id for task in tasks] == list(range(plan.shards))
    assert len({task.file for task in tasks}) == plan.shards
    assert all(task.tiles for task in tasks)
    return [(label, first + i) for task in tasks for label, first, wanted in task.tiles for i in range(wanted)]


@settings(max_examples=80)
@given(PLANS)
def test_each_image_is_made_once(plan: Plan) -> None:
    found = images(plan)
    assert len(found) == plan.images == sum(plan.counts)
    assert set(found) == {(label, index) for label, count in enumerate(plan.counts) for index in range(count)}


@settings(max_examples=80)
@given(PLANS)
def test_tiles_start_at_multiples_and_belong_to_one_class(plan: Plan) -> None:
    for label, first, wanted in plan.tiles.tolist():
        assert first % TILE == 0
        assert 1 <= wanted <= TILE
        assert wanted == min(TILE, plan.counts[label] - first)
        assert 0 <= label < len(plan.classes)


@settings(max_examples=40)
@given(PLANS, st.integers(1, 2000))
def test_the_shard_size_changes_neither_tiles_nor_their_order(plan: Plan, other: int) -> None:
    again = Plan(plan.classes, plan.counts, plan.seed, other)
    assert images(plan) == images(again)


@settings(max_examples=40)
@given(PLANS)
def test_shards_are_about_as_large_as_asked(plan: Plan) -> None:
    tiles = [len(plan.task(id, Parquet()).tiles) for id in range(plan.shards)]
    assert max(tiles) - min(tiles) <= 1
    assert plan.shards == min(len(plan.tiles), -(-plan.images // plan.shard_images))
    assert all(np.array_equal(np.sort(plan.order(id, 99)), np.arange(99)) for id in range(plan.shards)[:3])


def test_the_order_follows_from_the_seed_and_mixes_classes() -> None:
    plans = [Plan(("a", "b"), (640, 640), seed, 320) for seed in (0, 0, 1)]
    first, again, other = (plan.tiles.tolist() for plan in plans)
    assert first == again != other
    assert {label for label, _, _ in plans[0].task(0, Parquet()).tiles} == {0, 1}


def test_large_images_make_smaller_shards_unless_asked_for() -> None:
    assert shard_size(10_000, (3, 32, 32), explicit=False, images=10**6) == 10_000
    assert shard_size(Recipe().shard_images, (3, 32, 32), explicit=False, images=10**6) == 5_000
    assert shard_size(10_000, (3, 256, 256), explicit=False, images=10**6) == 1365
    assert shard_size(10_000, (3, 1024, 1024), explicit=False, images=10**6) == 85
    assert shard_size(10_000, (3, 256, 256), explicit=True, images=10**6) == 10_000


def test_small_orders_have_work_for_several_workers_too() -> None:
    assert [shard_size(10_000, (3, 32, 32), explicit=False, images=n) for n in (500, 5_000, 50_000, 160_000)] == [1024, 1024, 3125, 10_000]
