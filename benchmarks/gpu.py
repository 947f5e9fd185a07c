"""Generators on one GPU: images a second of training and sampling beside the matrix-product ceiling, and what the images are worth.

    python benchmarks/gpu.py FOLDER --minutes 2 --families vae gan

FOLDER holds cifar10_jpg/train/CLASS and test/CLASS; `gpu.sh` unpacks it. Prints one row a family and writes the table where `--out` says.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import journey
import quality
import torch

SIDE = 8192
JUDGE = quality.Bar("", None, 1, 2500, 128)
SEEDS = 16
"""steps over which operations are counted: some of a GAN's have a penalty"""
LONGEST, AFTER = 500, 110
"""seconds of everything, and those that a family takes beyond its fit: one that would not end in time is left out"""


def ceiling(device: str, side: int) -> float:
    """Return the operations a second of a matrix product of bf16 squares, the best of five tries."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(6):
        wait(device)
        begun = time.perf_counter()
        left @ right
        wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def wait(device: str) -> None:
    """Let the device finish."""
    if device == "cuda":
        torch.cuda.synchronize()


def operations(run: Path) -> tuple[str, float, int]:
    """Return the name of a run's longest stage, its operations for one training image, forwards and backwards, and the weights of its nets."""
    from torch.utils.flop_counter import FlopCounterMode

    from datagen import registry
    from datagen.contracts import Spec, State
    from datagen.records import Recipe

    known = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    card = json.loads((run / "generator/card.json").read_text(encoding="utf-8"))
    settings = {key: value for key, value in known["settings"].items() if value is not None} | {"device": "cpu", "precision": "fp32", "layout": "contiguous"}
    recipe = Recipe().changed("plan", **settings)
    family, state = registry.load("families", recipe.family)(), State(Spec(len(card["classes"]), tuple(card["shape"]), tuple(card["counts"]), recipe))
    stages = family.stages(state.spec)
    longest = max(range(len(stages)), key=lambda k: stages[k].share)
    batch = 8
    for stage in stages[: longest + 1]:
        stage.build(state)
    images, labels = torch.zeros(batch, *card["shape"]), torch.arange(batch) % len(card["classes"])
    with FlopCounterMode(display=False) as counter:
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            stages[longest].step(state, images, labels, 0.5)
    weights = sum(weight.numel() for net in state.modules.values() for weight in net.parameters())
    return stages[longest].name, counter.get_total_flops() / batch / SEEDS, weights


def shown(run: Path, stage: str) -> float:
    """Return the images a second that a stage was trained with, the median of its reports but the first."""
    lines = [json.loads(line) for line in (run / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line["images_per_second"] for line in lines if line["stage"] == stage and "losses" in line]
    return statistics.median(rates[1:] or rates)


def measured(asked: argparse.Namespace, family: str, device: str, most: float) -> dict[str, Any]:
    """Fit, synthesize and judge one family; returns its row."""
    place = asked.folder / f"{family}-{asked.minutes:g}"
    run, shards = place / "run", place / "shards"
    budget = f"{round(60 * asked.minutes)}s"
    fitted = journey.datagen("fit", str(asked.folder / "cifar10_jpg"), "--out", str(run), "--family", family, "--budget", budget, "--device", device)
    plan = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    stage, each_image, weights = operations(run)
    rate = shown(run, stage)
    train, test = quality.real_images(asked.folder, "cifar10_jpg", tuple(fitted["shape"]))
    each = asked.per_class or len(train[1]) // len(fitted["classes"])
    made = journey.datagen("synthesize", str(run), "--per-class", str(each), "--out", str(shards), "--device", device)
    images, labels = quality.synthetic_images(shards)
    bar = dataclasses.replace(JUDGE, steps=asked.steps)
    right = quality.judged((images, labels), test, bar, images=len(train[1]), repeats=1, device=device)[0]
    settings = plan["settings"]
    found = {"family": family, "minutes": asked.minutes, "precision": settings["precision"], "shown": fitted["images"], "train_rate": round(rate)}
    found |= {"ceiling": round(rate * each_image / most, 3), "sample_rate": round(made["images_per_second"]), "synthetic": round(right, 4)}
    return found | {"parameters": weights}


def main() -> None:
    """Measure every family and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with cifar10_jpg; runs and shards are written beside it")
    parser.add_argument("--minutes", type=float, default=2.0, help="budget of each fit (default 2)")
    parser.add_argument("--families", nargs="+", default=["vae", "gan"], help="families (default vae gan)")
    parser.add_argument("--per-class", type=int, help="synthetic images a class; as many as real ones by default")
    parser.add_argument("--steps", type=int, default=JUDGE.steps, help=f"of the judge, each of {JUDGE.batch} images (default {JUDGE.steps})")
    parser.add_argument("--side", type=int, default=SIDE, help=f"of the squares whose product is the ceiling (default {SIDE})")
    parser.add_argument("--all", action="store_true", help="measure every family, however long it takes")
    parser.add_argument("--out", type=Path, help="write the table here")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    most = ceiling(device, asked.side)
    lines = [f"# Generators on {name}", "", f"{time.strftime('%Y-%m-%d')}, cifar10_jpg; bf16 matrix product of {asked.side:,}: {most / 1e12:,.2f} TFLOP/s."]
    heads = ["family", "fit", "parameters", "precision", "images shown", "training images/s", "of the ceiling", "sampling images/s", "synthetic only, %"]
    lines += ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    quality.real_images(asked.folder, "cifar10_jpg", (3, 32, 32))
    begun = time.monotonic()
    for family in asked.families:
        if time.monotonic() - begun + 60 * asked.minutes + AFTER > LONGEST and not asked.all:
            print(f"{family} left out: it would not end within {LONGEST} seconds (--all measures it)", flush=True)
            continue
        try:
            row = measured(asked, family, device, most)
        except SystemExit as error:
            print(f"{family}: {error}", flush=True)
            continue
        print(json.dumps(row), flush=True)
        numbers = [f"{row['shown']:,}", f"{row['train_rate']:,}", f"{100 * row['ceiling']:.1f} %", f"{row['sample_rate']:,}", f"{100 * row['synthetic']:.1f}"]
        lines.append(f"| {family} | {asked.minutes:g} min | {row['parameters']:,} | {row['precision']} | " + " | ".join(numbers) + " |")
        if asked.out:
            asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
