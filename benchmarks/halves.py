"""Real against real: one half of a real set plays the synthetic images for the other half; nothing must be found.

    python benchmarks/halves.py DATA WORK --out benchmarks/results/halves.md

DATA holds NAME/train/CLASS/FILE and NAME/test/CLASS/FILE. The halves are disjoint and equal, drawn by class. The accuracy of
a recogniser trained on the second half must be that of one trained on the first (ratio 0.98 to 1.02), the number of real
images that it equals must not lie above the number there are, and no copies may be named.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from pathlib import Path

from journey import datagen

NAMES = {"fashion_mnist": 10_000, "eurosat64": 10_000}


def halve(data: Path, name: str, count: int, place: Path) -> tuple[Path, Path]:
    """Copy `count` training images, drawn by class, into two disjoint halves; returns their folders."""
    halves = place / "one", place / "other"
    classes = sorted(path for path in (data / name / "train").iterdir() if path.is_dir())
    for folder in classes:
        files = sorted(folder.iterdir())
        drawn = random.Random(f"{name} {folder.name}").sample(files, min(len(files), count // len(classes)) // 2 * 2)
        for number, file in enumerate(drawn):
            target = halves[number % 2] / folder.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / file.name)
    return halves


def main() -> None:
    """Measure every set and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the sets")
    parser.add_argument("work", type=Path, help="folder for the halves and reports")
    parser.add_argument("--only", choices=NAMES, help="one set")
    parser.add_argument("--steps", help="optimisation steps of every arm (planned)")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    lines = [
        "# Real against real",
        "",
        f"{time.strftime('%Y-%m-%d')}, 2 shared cores without GPU. One half of the real images plays the synthetic ones.",
        "Made by `python benchmarks/halves.py DATA WORK`.",
        "",
        "| set | images a half | steps | one half | other half | ratio | equals (95 % interval) | copies named | verdict | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, count in NAMES.items():
        if options.only not in (None, name):
            continue
        one, other = halve(options.data, name, count, options.work / name)
        begun = time.monotonic()
        steps = ["--steps", options.steps] if options.steps else []
        found = datagen(
            "evaluate", str(other), "--real", str(one), "--test", str(options.data / name / "test"), "--out", str(options.work / name / "report"), *steps
        )
        real, made = (found["arms"][arm]["accuracy"]["mean"] for arm in ("real", "synthetic"))
        worth, copies = found["measures"]["exchange"], found["measures"]["copies"]
        equals = {key: "above" if worth[key] is None else f"{worth[key]:,.0f}" for key in ("images", "low", "high")}
        cells = [name, f"{found['data']['real']['images']:,}", str(found["measured"]["settings"]["steps"]), f"{100 * real:.1f}", f"{100 * made:.1f}"]
        cells += [f"{made / real:.3f}", f"{equals['images']} ({equals['low']} to {equals['high']})", str(copies.get("named")), found["verdict"]["kind"]]
        lines.append("| " + " | ".join([*cells, f"{(time.monotonic() - begun) / 60:.1f}"]) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
