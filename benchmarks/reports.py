"""What an evaluation with default settings reports of the default generator: every arm with its interval and the minutes, for three real sets.

    python benchmarks/reports.py DATA WORK --out benchmarks/results/reports.md

DATA holds NAME/train/CLASS/FILE and NAME/test/CLASS/FILE. The three verbs run once a set, `fit` with --budget, everything else
as it is without flags; as many synthetic images as real ones are made. Rows are kept in WORK/reports.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

from journey import SETS, datagen
from lowdata import draw

NAMES = {"sign_digits": None, "gtsrb35_ppm": None, "fashion_mnist": 1_000}
"""training images of a class that are drawn, None for all"""


def measure(name: str, options: argparse.Namespace) -> dict:
    """Fit, synthesize and evaluate one set; returns its row."""
    place, whole = options.work / f"report-{name}", options.data / name
    drawn = NAMES[name]
    train = whole / "train" if drawn is None else draw(options.data, name, drawn, 0, place)
    run, shards, report = (str(place / part) for part in ("run", "shards", "report"))
    classes = sorted(path.name for path in train.iterdir() if path.is_dir())
    count = sum(1 for name in classes for _ in (train / name).iterdir())
    times = [time.monotonic()]
    fitted = datagen("fit", str(train), "--out", run, "--budget", options.budget, "--holdout", "0", *SETS[name])
    times.append(time.monotonic())
    datagen("synthesize", run, "--per-class", str(-(-count // len(classes))), "--out", shards)
    times.append(time.monotonic())
    found = datagen("evaluate", shards, "--labels", "hard", "--real", str(train), "--test", str(whole / "test"), "--out", report, *_groups(name))
    times.append(time.monotonic())
    minutes = dict(zip(("fit", "synthesize", "evaluate"), (round((b - a) / 60, 1) for a, b in itertools.pairwise(times)), strict=True))
    arms = {arm: {**value["accuracy"], "seconds": value["seconds"], "images": value["images"]} for arm, value in found["arms"].items()}
    row = {"set": name, "family": fitted["family"], "shape": fitted["shape"], "minutes": minutes, "arms": arms, "verdict": found["verdict"]}
    row |= {"data": {part: found["data"][part]["images"] for part in ("real", "test")}, "settings": found["measured"]["settings"]}
    row |= {"repeats": found["measured"]["repeats"], "differences": {name: _ends(value) for name, value in found["differences"].items()}}
    sentences = {key: found["measures"][key]["sentence"] for key in ("exchange", "copies", "fidelity", "coverage") if key in found["measures"]}
    return row | {"sentences": sentences}


def _groups(name: str) -> list[str]:
    return [part for part in SETS[name] if part != "--size" and not part.isdigit()]


def _ends(found: dict) -> dict:
    return {end: found[end] for end in ("mean", "low", "high")}


def table(rows: list[dict], budget: str) -> str:
    """Return the rows as Markdown, one table a set."""
    lines = ["# Reports of the default generator", ""]
    lines += [f"{time.strftime('%Y-%m-%d')}, 2 shared cores without GPU, `fit --budget {budget}`, everything else default; accuracy in % on the set's own"]
    lines += ["unseen test images with 95 % intervals. Made by `python benchmarks/reports.py DATA WORK`.", ""]
    for row in rows:
        shape, settings = "x".join(map(str, row["shape"])), row["settings"]
        minutes = ", ".join(f"{verb} {value}" for verb, value in row["minutes"].items())
        lines += [f"## {row['set']}", ""]
        lines += [f"{row['data']['real']:,} real training images ({shape}), {row['data']['test']:,} unseen ones, family `{row['family']}`; minutes: {minutes};"]
        lines += [f"{row['repeats']} repeats, {settings['steps']:,} steps of {settings['batch']} images.", ""]
        lines += ["| arm | training images | right, % | 95 % interval | minutes |", "|---|---|---|---|---|"]
        for arm, found in row["arms"].items():
            mean, low, high = (f"{100 * found[key]:.1f}" for key in ("mean", "low", "high"))
            lines.append(f"| {arm} | {found['images']:,} | {mean} | {low} to {high} | {found['seconds'] / 60:.1f} |")
        lines += ["", "| difference | points | 95 % interval |", "|---|---|---|"]
        lines += [f"| {name} | {100 * d['mean']:+.1f} | {100 * d['low']:+.1f} to {100 * d['high']:+.1f} |" for name, d in row["differences"].items()]
        lines += ["", row["verdict"]["sentence"], *(f"- {sentence}" for sentence in row["sentences"].values()), ""]
    return "\n".join(lines)


def main() -> None:
    """Make the rows that are missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the sets")
    parser.add_argument("work", type=Path, help="folder for what is made and reports.jsonl")
    parser.add_argument("--only", choices=NAMES, help="one set")
    parser.add_argument("--budget", default="3m", help="of each fit (3m)")
    parser.add_argument("--out", type=Path, help="write the tables here")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "reports.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for name in NAMES:
        if options.only not in (None, name) or any(row["set"] == name for row in rows):
            continue
        rows.append(measure(name, options))
        with kept.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(f"{name} is done", file=sys.stderr, flush=True)
    text = table(rows, options.budget)
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
