"""What the benchmarks share: the sets with the options that their files need, and one datagen command with its document."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datagen.recogniser.fit import Settings

SETS: dict[str, list[str]] = {
    "digits": [],
    "sign_digits": ["--size", "32"],
    "fashion_mnist": [],
    "gtsrb35_ppm": ["--size", "32", "--group", r"(\d+/\d+)_"],
    "eurosat64": [],
    "neu_surface": ["--size", "64"],
    "cifar10_jpg": [],
}
"""options that describe the images; how the generator is fitted is left to datagen"""


def datagen(*arguments: str) -> dict:
    """Run one datagen command with --json and return its document; stops with its error line where it fails."""
    command = [sys.executable, "-m", "datagen", *arguments, "--json"]
    print("$ datagen", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: datagen {' '.join(arguments)}")
    return json.loads(done.stdout)


def judge(batch: int, images: int) -> Settings:
    """Return the recogniser that judges a set of so many real images: that of `datagen evaluate`, the peak of its learning rate by the batch."""
    from datagen.evaluation.plan import NARROW, WIDTH
    from datagen.recogniser.fit import Settings

    return Settings(batch=batch, learning_rate=0.2 * (batch / 128) ** 0.5, width=WIDTH if images < NARROW else None)


def rows(kept: Path) -> list[dict]:
    """Return the rows of a table that were measured before."""
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()] if kept.exists() else []


def keep(kept: Path, row: dict) -> None:
    """Add a row to those that are measured."""
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), file=sys.stderr, flush=True)
