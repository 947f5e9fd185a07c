"""Reads sets in forked processes that are killed at random times, then opens them again; run as a program."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from datagen.reading.shards import ShardDataset

FORMATS = ("parquet", "webdataset", "folder")


def read(path: Path, cache: Path) -> None:
    """Open a set and read it with two workers, in a process group of its own, for ever."""
    os.setpgid(0, 0)
    os.environ["DATAGEN_CACHE"] = str(cache)
    data = ShardDataset(path, rotate=True)
    while True:
        for _ in DataLoader(data, batch_size=8, num_workers=2):
            pass


def main(sets: Path, folder: Path, kills: int) -> dict[str, object]:
    """Kill so many readers; returns the seconds that the next opening took each time, how many were killed at work, and their process groups."""
    rng, seconds, hit, groups = random.Random(9), [], 0, []
    for number in range(kills):
        path, cache = sets / FORMATS[number % 3], folder / f"cache{number}"
        process = os.fork()
        if process == 0:
            try:
                read(path, cache)
            finally:
                os._exit(1)
        groups.append(process)
        time.sleep(rng.uniform(0, 0.3))
        with contextlib.suppress(OSError):
            os.kill(process if number % 2 else -process, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
        hit += os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        os.environ["DATAGEN_CACHE"] = str(cache)
        begun = time.monotonic()
        assert len(ShardDataset(path)[7][0]) == 3
        seconds.append(time.monotonic() - begun)
    return {"seconds": seconds, "in time": hit, "groups": groups}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
