"""How useful the images are: fit, synthesize and evaluate on real sets, one command line each, one row a set and family.

    python benchmarks/quality.py DATA WORK                      every row of the table, those in WORK/rows.jsonl left alone
    python benchmarks/quality.py DATA WORK --only sign_digits   one set

DATA holds NAME/train/CLASS/FILE and NAME/test/CLASS/FILE. Rows are kept in WORK/rows.jsonl, so that a stopped table
goes on where it was; the table is printed and, with --out, written.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

SETS: dict[str, list[str]] = {
    "sign_digits": ["--size", "32"],
    "fashion_mnist": [],
    "gtsrb35_ppm": ["--size", "32", "--group", r"(\d+/\d+)_"],
    "cifar10_jpg": [],
    "neu_surface": ["--size", "64"],
}
FAMILIES = {"sign_digits": ["cvae", "dcgan", "gan"], "fashion_mnist": ["cvae", "dcgan", "gan"]}


def datagen(*arguments: str) -> dict:
    """Run one datagen command with --json and return its document; stops with its error line where it fails."""
    command = [sys.executable, "-m", "datagen", *arguments, "--json"]
    print("$ datagen", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: datagen {' '.join(arguments)}")
    return json.loads(done.stdout)


def measure(data: Path, work: Path, name: str, family: str, options: argparse.Namespace) -> dict:
    """Fit, synthesize and evaluate one set with one family; returns the row."""
    place = work / f"{name}-{family}"
    run, shards, report = (str(place / part) for part in ("run", "shards", "report"))
    begun = time.monotonic()
    fitted = datagen("fit", str(data / name), "--out", run, "--budget", options.budget, "--family", family, *SETS[name])
    fit_seconds = time.monotonic() - begun
    made = datagen("synthesize", run, "--per-class", str(options.per_class), "--out", shards)
    judged = datagen("evaluate", shards, "--run", run, "--out", report, "--repeats", "1", "--steps", str(options.steps))
    arms = {arm: judged["arms"][arm]["accuracy"]["mean"] for arm in ("real", "synthetic", "both")}
    row = {"set": name, "family": family, "shape": fitted["shape"], "budget": options.budget, "fit_seconds": round(fit_seconds), "shown": fitted["images"]}
    row |= {"train_rate": round(fitted["images"] / fitted["training_seconds"]) if fitted.get("training_seconds") else None}
    row |= {"made": made["images"], "make_rate": round(made["images_per_second"]), "steps": options.steps, **arms, "test": judged["data"]["test"]["images"]}
    return row | {"judge_seconds": round(judged["seconds"])}


def table(rows: list[dict], options: argparse.Namespace) -> str:
    """Return the rows as a Markdown table with how they were measured."""
    lines = [
        f"# Usefulness after `--budget {options.budget}`",
        "",
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, 2 shared cores without GPU, one seed, one repeat, a judge of {options.steps} steps of 128 images,",
        f"{options.per_class} synthetic images a class. Accuracy in % on the set's own unseen test images. Made by `python benchmarks/quality.py DATA WORK`.",
        "",
        "| set | family | shape | images shown | shown/s | made/s | real | synthetic | both | both - real |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        shape = "x".join(map(str, r["shape"][1:])) + (" grey" if r["shape"][0] == 1 else "")
        accuracies = [100 * r[arm] for arm in ("real", "synthetic", "both")]
        cells = [r["set"], r["family"], shape, f"{r['shown']:,}", f"{r['train_rate'] or 0:,}", f"{r['make_rate']:,}", *(f"{a:.1f}" for a in accuracies)]
        lines.append("| " + " | ".join([*cells, f"{accuracies[2] - accuracies[0]:+.1f}"]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the rows that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the sets")
    parser.add_argument("work", type=Path, help="folder for runs, shards, reports and rows.jsonl")
    parser.add_argument("--only", choices=SETS, help="one set")
    parser.add_argument("--budget", default="3m", help="of each fit (3m)")
    parser.add_argument("--per-class", type=int, default=1000, help="synthetic images a class (1000)")
    parser.add_argument("--steps", type=int, default=400, help="optimisation steps of the judge (400)")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "rows.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    wanted = [(name, family) for name in SETS for family in FAMILIES.get(name, ["cvae"]) if options.only in (None, name)]
    wanted.sort(key=lambda cell: cell[1] != "cvae")
    for name, family in wanted:
        if not any((r["set"], r["family"]) == (name, family) for r in rows):
            rows.append(measure(options.data, options.work, name, family, options))
            with kept.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    text = table(rows, options)
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
