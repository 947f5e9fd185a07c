"""Makes small sets in forked processes that are killed at random times and started again; run as a program, never loads torch."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from datagen.errors import DatagenError
from datagen.synthesis.run import synthesize

FORMATS = ("parquet", "webdataset", "folder")
TIMES = 4
"""kills of one set before it is let go on to its end"""


def started(rule: str, out: Path, format: str, workers: int) -> int:
    """Start making six images in two shards in a process of its own; returns its number."""
    if process := os.fork():
        with contextlib.suppress(OSError):
            os.setpgid(process, process)
        return process
    code = 1
    try:
        os.setpgid(0, 0)
        synthesize(rule, out, per_class=2, shard_images=4, workers=workers, format=format)
        code = 0
    except DatagenError as error:
        print(error, file=sys.stderr)
        code = error.code
    finally:
        os._exit(code)


def children(process: int) -> list[int]:
    """Return the numbers of a process's children."""
    with contextlib.suppress(OSError):
        return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def kill(process: int, what: str) -> bool:
    """Kill a process, its group, or one of its workers; returns whether there was one."""
    targets = {"parent": [process], "group": [-process], "worker": children(process)[:1]}[what]
    for target in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
    return bool(targets)


def ended(process: int) -> int:
    """Wait for a process and return its exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(rule: str, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill so many times; returns how often what was hit. Every set is finished in the end, `folder/FORMAT-N`."""
    rng, hit, number, spans = random.Random(seed), {"parent": 0, "group": 0, "worker": 0, "in time": 0, "sets": 0}, 0, {1: 0.05, 2: 0.6}
    while hit["parent"] + hit["group"] + hit["worker"] < kills:
        format, workers, number = FORMATS[number % 3], 2 if number % 5 == 4 else 1, number + 1
        out = folder / f"{format}-{number}"
        for _ in range(TIMES):
            what = rng.choice(("parent", "group", "worker")) if workers == 2 else "parent"
            process = started(rule, out, format, workers)
            time.sleep(rng.uniform(0, spans[workers]))
            hit[what] += kill(process, what)
            hit["in time"] += ended(process) != 0
        begun = time.monotonic()
        code = ended(started(rule, out, format, workers))
        while code == 5 and time.monotonic() - begun < 20:
            time.sleep(0.05)
            code = ended(started(rule, out, format, workers))
        if code:
            raise SystemExit(f"{out} ended with {code}")
        hit["sets"] += 1
    assert "torch" not in sys.modules
    return hit


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
