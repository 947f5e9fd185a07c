"""Shards as tasks on a Ray cluster: each takes one processor or one GPU, and Ray gives those of a lost node to another one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RayTaskError

from datagen import machine
from datagen.errors import DatagenError, ResourceError
from datagen.records import Recipe, ShardTask
from datagen.synthesis.engines.local import DEATHS, PATIENCE
from datagen.synthesis.heartbeat import beat

AHEAD = 4
"""tasks handed to Ray beyond those that its processors can take at once, so that none waits for this process"""
KNOCK = 10.0
"""seconds to wait for a cluster's head"""
QUIET = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
_makers: dict[str, Callable[[ShardTask], Any]] = {}
"""in a worker process: the maker of the production it works for, whose generator stays open between two shards"""


class Ray:
    """Shards as tasks of Ray: on the cluster of RAY_ADDRESS where that is set, else on one of this machine's own.

    The folder of the shards must be the same on every node, as must be the generator's.
    """

    def rank(self) -> tuple[int, int]:
        """Return (0, 1): this process alone hands out the shards."""
        return 0, 1

    def run(self, tasks: Sequence[ShardTask], make: Callable[[ShardTask], Any], recipe: Recipe) -> Generator[Any, None, None]:
        """Run every task and yield what came of it.

        Args:
            tasks: the shards to make.
            make: makes one; it is pickled for Ray's workers.
            recipe: with `workers` asked for by name, at most so many shards are made at once; without, as many as the cluster takes.

        Raises:
            ResourceError: the cluster cannot be reached, or three workers died at the same task.
            DatagenError: what `make` raised.
        """
        if not tasks:
            return
        with _joined(recipe.workers or machine.processors()), contextlib.redirect_stdout(sys.stderr):
            yield from self._run(list(tasks), make, recipe)

    def _run(self, waiting: list[ShardTask], make: Callable[[ShardTask], Any], recipe: Recipe) -> Generator[Any, None, None]:
        device = getattr(getattr(make, "origin", None), "device", "cpu")
        needs = {"num_gpus": 1, "num_cpus": 1} if device == "cuda" else {"num_cpus": 1}
        remote = ray.remote(**needs, max_retries=DEATHS - 1)(_made)
        maker, key = ray.put(make), os.urandom(16).hex()
        asked = recipe.workers if recipe.origins.get("workers", "plan") != "plan" else None
        running: dict[Any, ShardTask] = {}
        try:
            while waiting or running:
                room = asked or int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 1)) + AHEAD
                while waiting and len(running) < room and not any(task.probe for task in running.values()):
                    task = waiting.pop(0)
                    running[remote.remote(key, maker, task)] = task
                ready, _ = ray.wait(list(running), timeout=PATIENCE)
                beat(0)
                for reference in ready:
                    value, images = _got(reference, running.pop(reference))
                    beat(images)
                    yield value
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


@contextlib.contextmanager
def _joined(processors: int) -> Iterator[None]:
    """Be part of a cluster within the block: the one this process has joined before, that of RAY_ADDRESS, or an own one of so many processors.

    One that happens to run on this machine, which Ray would join unasked, is somebody else's.
    Ray takes SIGTERM for itself when it starts; here it stays a wish to stop between two shards.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _knock(address)
        ray.init(**({"address": address} if address else {"address": "local", "num_cpus": processors}), **QUIET)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ResourceError(f"Ray cannot be reached ({what})", where="--engine ray", hint="is RAY_ADDRESS that of a running cluster?") from error
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody answers at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()


def _made(key: str, make: Callable[[ShardTask], Any], task: ShardTask) -> tuple[Any, int]:
    """Make a shard in a worker of Ray; returns what came of it, and its number of images."""
    if key not in _makers:
        _makers.clear()
        _makers[key] = make
    return _makers[key](task), 0 if task.probe else sum(wanted for _, _, wanted in task.tiles)


def _got(reference: Any, task: ShardTask) -> tuple[Any, int]:
    try:
        found: tuple[Any, int] = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, DatagenError):
            raise error.cause from error
        raise RuntimeError(f"a worker failed:\n{error}") from error
    except RayError as error:
        hint = "often the memory is full: give fewer --workers or a smaller --shard-images"
        raise ResourceError(f"{DEATHS} workers died at this shard ({type(error).__name__})", where=task.file, hint=hint) from error
    return found
