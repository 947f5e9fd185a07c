"""What every engine must do: run each task once, hand back what came of it, pass on what went wrong."""

from __future__ import annotations

from typing import Any

import pytest

from datagen.errors import InputError
from datagen.records import Recipe, ShardTask


def make(task: ShardTask) -> tuple[int, int]:
    """Stand in for the making of a shard."""
    return task.id, sum(count for _, _, count in task.tiles)


def refuse(task: ShardTask) -> tuple[int, int]:
    """Fail at one task."""
    if task.id == 3:
        raise InputError("cannot be made", where=task.file)
    return make(task)


def check(engine_class: Any) -> None:
    """Run no task, one and many, with one worker and two; alone, the rank is the first of one."""
    assert engine_class().rank() == (0, 1)
    tasks = [ShardTask(i, f"data/{i}.bin", tuple((c, 0, i + 1) for c in range(3))) for i in range(6)]
    for workers in (1, 2):
        recipe = Recipe(workers=workers)
        assert sorted(engine_class().run(tasks, make, recipe)) == [(i, 3 * (i + 1)) for i in range(6)]
        assert list(engine_class().run([], make, recipe)) == []
        with pytest.raises(InputError, match=r"data/3\.bin: cannot be made"):
            list(engine_class().run(tasks, refuse, recipe))
