"""A rare class: its recall at equal false alarms when synthetic images top it up, beside oversampling, class weights and classical copies.

    python benchmarks/rare.py DATA WORK --out benchmarks/results/rare_recall.md     every cell, those in WORK/rare.jsonl left alone
    python benchmarks/rare.py DATA WORK --only neu_surface --draws 1         some cells

DATA holds NAME/train/CLASS/FILE and NAME/test/CLASS/FILE. A cell keeps 20 drawn training images of one class and all of the others, fits,
fills that class up to the largest one, and is judged with `--focus` on all test images of the set.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from pathlib import Path
from typing import Any

from journey import SETS, datagen, keep, rows

CLASSES = {"neu_surface": "inclusion", "gtsrb35_ppm": "00001"}
"""the class that is cut; named before anything was measured"""
KEPT = 20
RIVALS = ("real", "oversampled", "weighted", "classical")


def cut(data: Path, name: str, number: int, place: Path) -> Path:
    """Copy the training images into place/train, of the rare class those 20 that are drawn by `number`; returns that folder."""
    for folder in sorted(path for path in (data / name / "train").iterdir() if path.is_dir()):
        files = sorted(folder.iterdir())
        if folder.name == CLASSES[name]:
            files = random.Random(f"{name} {number}").sample(files, KEPT)
        target = place / "train" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, target / file.name)
    return place / "train"


def measure(name: str, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fit, synthesize and evaluate one cell; returns its row."""
    place, rare = options.work / f"rare-{name}-{number}", CLASSES[name]
    train, test = str(cut(options.data, name, number, place)), str(options.data / name / "test")
    run, shards, report = (str(place / part) for part in ("run", "shards", "report"))
    size = [part for part in SETS[name] if part == "--size" or part.isdigit()]
    groups = [part for part in SETS[name] if part not in size]
    begun = time.monotonic()
    datagen("fit", train, "--out", run, "--budget", options.budget, "--holdout", "0", *SETS[name])
    made = datagen("synthesize", run, "--balance-with", train, "--classes", rare, "--mode", "augment", "--out", shards)
    found = datagen("evaluate", shards, "--real", train, "--test", test, "--focus", rare, "--out", report, *groups)
    recall, settings = found["measures"]["focus_recall"], found["measured"]["settings"]
    row = {"set": name, "class": rare, "draw": number, "budget": options.budget, "made": made["images"], "base": found["verdict"]["base"]}
    row |= {"recalls": recall["arms"], "gains": recall["gains"], "alarms": recall["false_alarms"], "tested": recall["images"]}
    row |= {"shortcut": found["measures"]["focus_shortcut"]["suspected"], "repeats": found["measured"]["repeats"]}
    row |= {"accuracy": {arm: value["accuracy"]["mean"] for arm, value in found["arms"].items()}}
    return row | {"steps": settings["steps"], "batch": settings["batch"], "minutes": round((time.monotonic() - begun) / 60, 1)}


def table(found: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown tables with how they were measured."""
    lines = ["# A rare class", ""]
    lines += [f"{time.strftime('%Y-%m-%d')}, 2 shared cores without GPU. One class cut to {KEPT} training images and filled up to the largest one with"]
    lines += ["synthetic images of a generator (default family) fitted on what was left. Recall of that class in % on the set's unseen test images,"]
    lines += ["each arm at as many false alarms as the real arm has. Made by `python benchmarks/rare.py DATA WORK`.", ""]
    lines += ["| set | class | draw | made | unseen | false alarms, % | real | oversampled | weighted | classical | both | judge | minutes |"]
    lines += ["|" + "---|" * 13]
    for r in found:
        recalls = [f"{100 * r['recalls'][arm]['mean']:.1f}" if arm in r["recalls"] else "–" for arm in (*RIVALS, "both")]
        judge = f"{r['repeats']} x {r['steps']:,} x {r['batch']}"
        first = [r["set"], r["class"], str(r["draw"]), str(r["made"]), str(r["tested"]), f"{100 * r['alarms']:.2f}"]
        lines.append("| " + " | ".join([*first, *recalls, judge, str(r["minutes"])]) + " |")
    lines += ["", "Points of recall that real + synthetic has more than each other arm, with 95 % intervals; whether blur turns other classes into it:", ""]
    lines += ["| set | draw | " + " | ".join(RIVALS) + " | shortcut |", "|" + "---|" * 7]
    for r in found:
        gains = [_points(r["gains"][arm]) if arm in r["gains"] else "–" for arm in RIVALS]
        lines.append("| " + " | ".join([r["set"], str(r["draw"]), *gains, "suspected" if r["shortcut"] else "none seen"]) + " |")
    return "\n".join(lines) + "\n"


def _points(gain: dict[str, float]) -> str:
    return f"{100 * gain['mean']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"


def main() -> None:
    """Make the cells that are missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the sets")
    parser.add_argument("work", type=Path, help="folder for what is made and rare.jsonl")
    parser.add_argument("--only", choices=CLASSES, help="one set")
    parser.add_argument("--draws", type=int, default=2, help="of each set (2)")
    parser.add_argument("--budget", default="5m", help="of each fit (5m)")
    parser.add_argument("--out", type=Path, help="write the tables here")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "rare.jsonl"
    for name in CLASSES if options.only is None else [options.only]:
        for number in range(options.draws):
            if not any((row["set"], row["draw"]) == (name, number) for row in rows(kept)):
                keep(kept, measure(name, number, options))
    text = table(rows(kept))
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
