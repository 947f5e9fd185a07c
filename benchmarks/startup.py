"""How long `datagen --help` takes, beside a bare interpreter and beside `import torch`."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "datagen --help": ["-m", "datagen", "--help"],
    "datagen fit --help": ["-m", "datagen", "fit", "--help"],
    "datagen evaluate --help": ["-m", "datagen", "evaluate", "--help"],
    "datagen recipes": ["-m", "datagen", "recipes"],
    "datagen fit x --batch nan": ["-m", "datagen", "fit", "x", "--batch", "nan"],
    "python -c 'import torch'": ["-c", "import torch"],
}


def seconds(arguments: list[str], repeats: int) -> float:
    """Return the shortest wall time in seconds of a Python process with these arguments."""
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        best = min(best, time.perf_counter() - begun)
    return best


def main() -> None:
    """Print the table and write it where asked to; exit 1 where --help takes longer than --limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="the shortest of so many runs counts (default 5)")
    parser.add_argument("--limit", type=float, default=0.5, help="seconds that datagen --help may take (default 0.5)")
    parser.add_argument("--write", metavar="FILE.md", help="write the table to a file, too")
    asked = parser.parse_args()
    found = {name: seconds(arguments, asked.repeats) for name, arguments in COMMANDS.items()}
    bare = found["python -c pass"]
    lines = [f"Shortest of {asked.repeats} runs, Python {platform.python_version()}, {os.cpu_count()} processors.", ""]
    lines += ["| command | seconds | times a bare interpreter |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {took:.3f} | {took / bare:.1f} |" for name, took in found.items()]
    print("\n".join(lines))
    if asked.write:
        Path(asked.write).write_text("\n".join([f"# {__doc__}", "", *lines, ""]), encoding="utf-8")
    sys.exit(found["datagen --help"] > asked.limit)


if __name__ == "__main__":
    main()
