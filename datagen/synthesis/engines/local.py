"""Worker processes on this machine, each with one compute thread; one worker works in this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from datagen import machine
from datagen.errors import DatagenError, ResourceError
from datagen.records import Recipe, ShardTask
from datagen.synthesis.heartbeat import beat, listening

DEATHS = 3
PATIENCE = 0.2
"""seconds between two looks at whether to stop"""
LATE, FIRST, TIMES = 60.0, 600.0, 10
"""seconds of silence after which a worker hangs; the same while it opens its generator or commits a shard; times the slowest tile, if that is more"""
BOOT = "import sys; sys.path[:] = {path!r}; from datagen.synthesis.engines.local import serve; serve()"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Local:
    """Worker processes that take shards one after the other; a shard whose worker dies or hangs is given to another one."""

    def rank(self) -> tuple[int, int]:
        """Return (0, 1): the folder is this process's alone."""
        return 0, 1

    def run(self, tasks: Sequence[ShardTask], make: Callable[[ShardTask], Any], recipe: Recipe) -> Generator[Any, None, None]:
        """Run every task and yield what came of it.

        Args:
            tasks: the shards to make.
            make: makes one; with more than one worker it is pickled.
            recipe: its `workers` says how many, as many as processors where it is None.

        Raises:
            ResourceError: three workers died or hung at the same task.
            DatagenError: what `make` raised.
        """
        count = min(recipe.workers or machine.processors(), sum(not task.probe for task in tasks))
        if count <= 1:
            for task in tasks:
                yield make(task)
            return
        with Crew(make, count) as crew:
            yield from crew.run(tasks)


@dataclass
class Worker:
    """One process: its pipes, the task it is at, the images it has done of it, and when it was heard: how often, and how many seconds ago."""

    process: subprocess.Popen[bytes]
    inbox: Connection
    outbox: Connection
    task: ShardTask | None = None
    done: int = 0
    heard: int = 0
    silent: float = 0.0

    def close(self) -> None:
        """End the process, whatever it is doing, and wait for it."""
        self.process.kill()
        self.process.wait()
        for connection in (self.inbox, self.outbox):
            connection.close()


class Crew:
    """Several workers under one `make`; leaving the block ends them all."""

    def __init__(self, make: Callable[[ShardTask], Any], count: int) -> None:
        self.make, self.count = make, count
        self.workers: list[Worker] = []
        self.begun = 0
        self.deaths: Counter[int] = Counter()
        self.slowest = 0.0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self.workers:
            worker.close()

    def run(self, tasks: Sequence[ShardTask]) -> Generator[Any, None, None]:
        """Yield the result of each task as it comes; raises as `Local.run`."""
        waiting = deque(tasks)
        left, looked = len(waiting), time.monotonic()
        while left:
            self._assign(waiting)
            ready = wait([worker.inbox for worker in self.workers if worker.task], timeout=PATIENCE)
            beat(0)
            passed, looked = min(time.monotonic() - looked, 5 * PATIENCE), time.monotonic()
            waiting.extendleft(self._late(passed))
            for worker in [worker for worker in self.workers if worker.inbox in ready]:
                try:
                    kind, value = worker.inbox.recv()
                except (EOFError, OSError):
                    waiting.appendleft(self._buried(worker))
                    continue
                if kind == "done":
                    worker.task, worker.done, worker.silent = None, 0, 0.0
                    left -= 1
                    yield value
                else:
                    self._heard(worker, kind, value)

    def _assign(self, waiting: deque[ShardTask]) -> None:
        while waiting and len(self.workers) < self.count:
            self.workers.append(started(self.make, self.begun))
            self.begun += 1
        for worker in self.workers:
            if any(other.task and other.task.probe for other in self.workers):
                return
            if worker.task is None and waiting:
                worker.task = waiting.popleft()
                try:
                    worker.outbox.send(worker.task)
                except OSError:
                    continue

    def _late(self, passed: float) -> list[ShardTask]:
        """Count seconds in which this process ran itself, so that a pause of all is nobody's silence; returns the tasks of workers that hang."""
        hanging = []
        for worker in [worker for worker in self.workers if worker.task]:
            worker.silent += passed
            if worker.silent > self._limit(worker) and not worker.inbox.poll():
                hanging.append(self._buried(worker, f"hung for {worker.silent:,.0f} s"))
        return hanging

    def _limit(self, worker: Worker) -> float:
        assert worker.task is not None
        computing = worker.heard and worker.done < sum(wanted for _, _, wanted in worker.task.tiles)
        return max(LATE if computing else FIRST, TIMES * self.slowest)

    def _heard(self, worker: Worker, kind: str, value: Any) -> None:
        if kind == "beat":
            images, spent = value
            if worker.heard and "writing" not in spent:
                self.slowest = max(self.slowest, worker.silent)
            worker.done, worker.silent, worker.heard = worker.done + images, 0.0, worker.heard + 1
            beat(images, **spent)
        elif kind == "error":
            raise value
        else:
            raise RuntimeError(f"a worker failed:\n{value}")

    def _buried(self, worker: Worker, how: str = "") -> ShardTask:
        """Take a worker out that is dead, or is to be; returns its task, which goes to another one."""
        task = worker.task
        assert task is not None
        worker.close()
        self.workers.remove(worker)
        beat(-worker.done)
        self.deaths[task.id] += 1
        if self.deaths[task.id] >= DEATHS:
            raise ResourceError(
                f"{DEATHS} workers died at this shard (the last one {how or f'with status {worker.process.returncode}'})",
                where=task.file,
                hint="often the memory is full: give fewer --workers or a smaller --shard-images",
            )
        return task


def started(make: Callable[[ShardTask], Any], number: int) -> Worker:
    """Start one worker process, on the GPU of its number where there are several, and hand it `make`; signals reach this process alone meanwhile."""
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        command = [sys.executable, "-c", BOOT.format(path=sys.path)]
        environment = {"LOCAL_RANK": str(number), **os.environ, **ONE_THREAD}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert process.stdin is not None
    assert process.stdout is not None
    inbox = Connection(os.dup(process.stdout.fileno()), writable=False)
    outbox = Connection(os.dup(process.stdin.fileno()), readable=False)
    process.stdin.close()
    process.stdout.close()
    worker = Worker(process, inbox, outbox)
    with contextlib.suppress(OSError):
        outbox.send(make)
    return worker


def serve() -> None:
    """Work in a worker process until the other end closes: take `make`, open what it opens, then take tasks, and say what came of each."""
    inbox, outbox = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        make = inbox.recv()
        with contextlib.suppress(Exception):
            getattr(make, "painter", int)()
        while True:
            task = inbox.recv()
            with listening(lambda images, spent: outbox.send(("beat", (images, spent)))):
                outbox.send(_made(make, task))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _made(make: Callable[[ShardTask], Any], task: ShardTask) -> tuple[str, Any]:
    try:
        return "done", make(task)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except DatagenError as error:
        return "error", error
    except MemoryError:
        return "error", ResourceError("out of memory", where=task.file, hint="give fewer --workers or a smaller --shard-images")
    except BaseException:
        return "fault", traceback.format_exc()
