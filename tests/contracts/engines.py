"""What every engine must do: run each task once, hand back what came of it, pass on what went wrong."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from datagen.errors import InputError
from datagen.records import Recipe, ShardTask


def make(task: ShardTask) -> tuple[int, int]:
    """Stand in for the making of a shard."""
    return task.id, sum(count for _, _, count in task.tiles)


def slow_probe(task: ShardTask) -> int:
    """Take longest for the probe."""
    time.sleep(0.5 if task.probe else 0)
    return -1 if task.probe else task.id


def refuse(task: ShardTask) -> tuple[int, int]:
    """Fail at one task."""
    if task.id == 3:
        raise InputError("cannot be made", where=task.file)
    return make(task)


def check(engine_class: Any) -> None:
    """Run no task, one and many, with one worker and two, a probe before all others; alone, the rank is the first of one."""
    assert engine_class().rank() == (0, 1)
    tasks = [ShardTask(i, f"data/{i}.bin", tuple((c, 0, i + 1) for c in range(3))) for i in range(6)]
    for workers in (1, 2):
        recipe = Recipe(workers=workers)
        assert sorted(engine_class().run(tasks, make, recipe)) == [(i, 3 * (i + 1)) for i in range(6)]
        assert list(engine_class().run([], make, recipe)) == []
        assert next(engine_class().run([replace(tasks[0], probe=True), *tasks], slow_probe, recipe)) == -1
        with pytest.raises(InputError, match=r"data/3\.bin: cannot be made"):
            list(engine_class().run(tasks, refuse, recipe))
