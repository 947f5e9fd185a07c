"""Few real images: what synthetic ones add, from a generator fitted on those few alone.

    python benchmarks/lowdata.py DATA WORK --out benchmarks/results/lowdata.md     every cell, those in WORK/lowdata.jsonl left alone
    python benchmarks/lowdata.py DATA WORK --only sign_digits --per-class 20       some cells

DATA holds NAME/train/CLASS/FILE and NAME/test/CLASS/FILE. A cell draws so many training images of every class, fits,
synthesizes and evaluates with the three verbs, and is judged on all test images of the set.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from pathlib import Path

from journey import SETS, datagen

NAMES = ("sign_digits", "fashion_mnist")
COUNTS = (20, 50, 100)


def draw(data: Path, name: str, count: int, number: int, place: Path) -> Path:
    """Copy `count` training images of every class, drawn by `number`, into place/train; returns that folder."""
    for folder in sorted(path for path in (data / name / "train").iterdir() if path.is_dir()):
        files = sorted(folder.iterdir())
        target = place / "train" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for file in random.Random(f"{name} {count} {number} {folder.name}").sample(files, min(count, len(files))):
            shutil.copyfile(file, target / file.name)
    return place / "train"


def measure(name: str, count: int, number: int, options: argparse.Namespace) -> dict:
    """Fit, synthesize and evaluate one cell; returns its row."""
    place = options.work / f"{name}-{count}-{number}"
    train, test = draw(options.data, name, count, number, place), str(options.data / name / "test")
    run, shards, report = (str(place / part) for part in ("run", "shards", "report"))
    begun = time.monotonic()
    size = [part for part in SETS[name] if part == "--size" or part.isdigit()]
    datagen("fit", str(train), "--out", run, "--budget", options.budget, "--holdout", "0", *size)
    datagen("synthesize", run, "--per-class", str(options.made), "--out", shards)
    found = datagen("evaluate", shards, "--run", run, "--test", test, "--labels", options.labels, "--out", report)
    base = found["verdict"]["base"]
    row = {"set": name, "count": count, "draw": number, "budget": options.budget, "base": base, "policy": found["chosen"]["policy"]}
    row |= {"labels": found["arms"]["synthetic"].get("labels", "hard")}
    row |= {"arms": {arm: value["accuracy"] for arm, value in found["arms"].items()}, "repeats": found["measured"]["repeats"]}
    gains = {f"both-{arm}": {end: found["differences"][f"both-{arm}"][end] for end in ("mean", "low", "high")} for arm in ("real", "classical")}
    best = {end: found["differences"][f"both-{base}"][end] for end in ("mean", "low", "high")}
    return row | {"gains": gains, "gain": best, "steps": found["measured"]["settings"]["steps"], "minutes": round((time.monotonic() - begun) / 60, 1)}


def table(rows: list[dict]) -> str:
    """Return the rows as a Markdown table with how they were measured."""
    lines = [
        "# Few real images",
        "",
        f"{time.strftime('%Y-%m-%d')}, 2 shared cores without GPU. Generator (default family) fitted on the drawn images alone; accuracy in % on all",
        "unseen test images of the set. The arm to beat is the better of real and real + classically augmented copies on validation.",
        "Made by `python benchmarks/lowdata.py DATA WORK`.",
        "",
        "| set | images a class | draw | fit | real | classical | synthetic | by labels | both | to beat | both - to beat (95 % interval) | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (r["set"], r["count"], r["draw"])):
        means = [f"{100 * r['arms'][arm]['mean']:.1f}" for arm in ("real", "classical", "synthetic", "both")]
        means.insert(3, r.get("labels", "hard"))
        gain = f"{100 * r['gain']['mean']:+.1f} ({100 * r['gain']['low']:+.1f} to {100 * r['gain']['high']:+.1f})"
        beat = r["base"] + (f" ({r['policy']})" if r["base"] == "classical" else "")
        lines.append("| " + " | ".join([r["set"], str(r["count"]), str(r["draw"]), r["budget"], *means, beat, gain, str(r["minutes"])]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the cells that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the sets")
    parser.add_argument("work", type=Path, help="folder for what is made and lowdata.jsonl")
    parser.add_argument("--only", choices=NAMES, help="one set")
    parser.add_argument("--per-class", type=int, choices=COUNTS, help="one number of real images a class")
    parser.add_argument("--draws", type=int, default=2, help="of each cell (2)")
    parser.add_argument("--budget", default="1m", help="of each fit (1m)")
    parser.add_argument("--made", type=int, default=500, help="synthetic images a class (500)")
    parser.add_argument("--labels", default="auto", help="of the synthetic images, as evaluate takes them (auto)")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "lowdata.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    cells = [(name, count, number) for count in COUNTS for name in NAMES for number in range(options.draws)]
    cells = [cell for cell in cells if options.only in (None, cell[0]) and options.per_class in (None, cell[1])]
    for name, count, number in cells:
        if any((r["set"], r["count"], r["draw"]) == (name, count, number) for r in rows):
            continue
        rows.append(measure(name, count, number, options))
        with kept.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if options.out:
            options.out.write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
