"""What worker processes are given to do that die, crash or hang at a task."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from datagen.records import ShardTask
from datagen.synthesis.heartbeat import beat

HOW = ("oom", "segfault", "hang")


@dataclass
class Dying:
    """Notes each attempt as a file, and ends badly at the first `times` attempts at each of some tasks, after half of its images.

    Attributes:
        folder: of the notes.
        how: one of HOW.
        tasks: numbers of the tasks.
        times: attempts that end badly.
    """

    folder: str
    how: str
    tasks: tuple[int, ...]
    times: int = 1

    def __call__(self, task: ShardTask) -> int:
        """Return the task's number."""
        attempt = len(self.attempts(task.id))
        (Path(self.folder) / f"{task.id}-{attempt}").touch()
        images = sum(wanted for _, _, wanted in task.tiles)
        beat(images // 2)
        if task.id in self.tasks and attempt < self.times:
            if self.how == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL if self.how == "oom" else signal.SIGSEGV)
        beat(images - images // 2)
        return task.id

    def attempts(self, task: int) -> list[Path]:
        """Return the notes of a task's attempts."""
        return list(Path(self.folder).glob(f"{task}-*"))
