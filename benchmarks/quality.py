"""The gap between recognisers trained on real and on synthetic images alone: `vae` with its defaults beside the classic families.

    python benchmarks/quality.py DATA WORK --only digits        the cells of one set; those in WORK/quality.jsonl are left alone
    python benchmarks/quality.py DATA WORK --out benchmarks/results/quality.md

DATA holds NAME/train/CLASS/FILE and NAME/test/CLASS/FILE (digits are made). A cell is one fit by `--budget`, as many synthetic images
as there are real ones, shared out alike, and the judge of `datagen evaluate` trained on them alone, tested on all unseen test images; as there,
their labels or soft ones (half label, half the filter's probabilities), soft unless labels do better on the run's select part after a third of the
steps. The classics are as tutorials leave them: no filter, no chosen spread, labels alone; what soft labels would make of them is kept, too.
Accuracies of real images are kept by set, judge and code.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import journey
import numpy as np

OURS = "default"
CLASSICS = ("cvae", "dcgan")


@dataclasses.dataclass(frozen=True)
class Bar:
    """What is asked of a set: budget of the fit, gap in points (None: half of the better classic's), seeds, steps and batch of the judge."""

    budget: str
    gap: float | None
    seeds: int
    steps: int
    batch: int


BARS = {
    "digits": Bar("2m", 1.0, 3, 600, 32),
    "fashion_mnist": Bar("10m", None, 1, 1500, 128),
    "sign_digits": Bar("5m", None, 3, 600, 32),
    "gtsrb35_ppm": Bar("10m", None, 1, 900, 64),
    "eurosat64": Bar("10m", None, 1, 600, 64),
    "neu_surface": Bar("10m", None, 1, 600, 32),
    "cifar10_jpg": Bar("10m", None, 1, 2500, 128),
}
FLOOR = {"sign_digits": 2.0}
"""gaps in points that are enough whatever the classics reach"""


Images = tuple[np.ndarray, np.ndarray]
"""images uint8 [N, H, W, C] with labels int64 [N], or to train on with probabilities float32 [N, classes]"""


def judged(train: Images, test: Images, bar: Bar, *, images: int, repeats: int, device: str = "cpu") -> list[float]:
    """Return the shares of the test images that recognisers of some training images name right, one for each repeat; `images` are the set's real ones."""
    import torch

    from datagen.recogniser import timing
    from datagen.recogniser.fit import fit

    classes, (height, width, channels) = int(test[1].max()) + 1, train[0].shape[1:]
    timed = timing.choose(journey.judge(bar.batch, images), (channels, height, width), classes, device=device, threads=[os.cpu_count() or 1])
    torch.set_num_threads(timed.threads)
    found = []
    for repeat in range(repeats):
        fitted = fit(*train, classes=classes, settings=dataclasses.replace(timed.settings, steps=bar.steps), seed=1000 + repeat, device=device)
        found.append(float((fitted.predict(test[0]).argmax(1) == test[1]).mean()))
    return found


def real_images(data: Path, name: str, shape: tuple[int, int, int]) -> tuple[Images, Images]:
    """Return training and test images uint8 [N, H, W, C] with their labels int64 [N], at the generator's shape."""
    from datagen.progress import Progress
    from datagen.recipe import gather
    from datagen.sources import cache, scan

    quiet, recipe = Progress(quiet=True), gather(None, [], size=shape[1:])
    dataset = scan.scan(data / name, recipe, progress=quiet)
    pixels = cache.pixels(dataset, shape, recipe, progress=quiet)
    rows = [np.flatnonzero(dataset.test == part) for part in (False, True)]
    train, test = ((np.asarray(pixels[part]), dataset.labels[part]) for part in rows)
    return train, test


def synthetic_images(shards: Path) -> dict[str, Images]:
    """Return the images of a set of shards with "hard" and "soft" labels."""
    from datagen.evaluation import soft
    from datagen.reading.shards import load

    loaded = load(shards)
    made = soft.labelled(loaded, loaded.classes, str(shards), "soft")
    return {"hard": (made.images, made.labels), "soft": (made.images, made.soft)}


def select_images(data: Path, run: Path) -> Images:
    """Return the images of the select part of a run, to which neither its generator nor its filter was fitted."""
    from datagen import storage
    from datagen.progress import Progress
    from datagen.recipe import gather
    from datagen.training import real

    reading = storage.read_json(run / "data.json")["settings"]
    found = real.read(data, gather(None, [], size=reading["size"]).changed("run", **reading), run, Progress(quiet=True), begun=True)
    return np.asarray(found.pixels[found.parts.select]), found.dataset.labels[found.parts.select]


def relabelled(options: argparse.Namespace, name: str, family: str, seed: int) -> dict[str, Any]:
    """Choose a cell's labels on the run's select part, and judge them by soft ones; returns its row."""
    from datagen.evaluation import choose

    bar, place = BARS[name], options.work / f"{name}-{family}-{seed}"
    made, select = synthetic_images(place / "shards"), select_images(options.data / name, place / "run")
    height, width, channels = select[0].shape[1:]
    train, test = real_images(options.data, name, (channels, height, width))
    third = dataclasses.replace(bar, steps=max(1, bar.steps // 3))
    right = {kind: judged(images, select, third, images=len(train[1]), repeats=1)[0] for kind, images in made.items()}
    accuracy = judged(made["soft"], test, bar, images=len(train[1]), repeats=1)
    chosen = "hard" if choose.clearly(right["hard"], right["soft"], len(select[1])) else "soft"
    row = {"set": name, "family": family, "seed": seed, "select": right, "images": len(select[1]), "chosen": chosen, "soft": accuracy}
    return row | {"date": time.strftime("%Y-%m-%d")}


def real_accuracy(kept: Path, train: Images, test: Images, bar: Bar) -> list[float]:
    """Return the accuracies after real images, measured once for equal images, judge and code."""
    from datagen import recogniser

    code = b"".join(path.read_bytes() for path in sorted(Path(recogniser.__file__).parent.glob("*.py")))
    what = [array.tobytes() for array in (*train, *test)] + [code, repr((bar.steps, bar.batch, bar.seeds)).encode()]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in what)).hexdigest()
    known = {row["key"]: row["accuracies"] for row in journey.rows(kept)}
    if key not in known:
        known[key] = judged(train, test, bar, images=len(train[1]), repeats=max(2, bar.seeds))
        journey.keep(kept, {"key": key, "accuracies": known[key]})
    return known[key]


def measure(options: argparse.Namespace, name: str, family: str, seed: int) -> dict[str, Any]:
    """Fit, synthesize and judge one cell; returns its row."""
    bar, place = BARS[name], options.work / f"{name}-{family}-{seed}"
    run, shards = str(place / "run"), str(place / "shards")
    budget = options.budget or bar.budget
    own = [] if family == OURS else ["--family", family]
    begun = time.monotonic()
    fitted = journey.datagen("fit", str(options.data / name), "--out", run, "--budget", budget, "--seed", str(seed), *own, *journey.SETS[name])
    seconds = time.monotonic() - begun
    train, test = real_images(options.data, name, tuple(fitted["shape"]))
    count = ["--count", str(len(train[1])), "--proportions", "real"]
    plain = [] if family == OURS else ["--min-confidence", "0", "--spread", "1"]
    made = journey.datagen("synthesize", run, *count, "--seed", str(seed), "--out", shards, *plain)
    accuracy = judged(synthetic_images(Path(shards))["hard"], test, bar, images=len(train[1]), repeats=1)
    real = real_accuracy(options.work / "real.jsonl", train, test, bar)
    row = {"set": name, "family": family, "seed": seed, "budget": budget, "seconds": round(seconds), "shown": fitted["images"], "chosen": fitted["chosen"]}
    row |= {"used": fitted["family"], "made": made["images"], "make_rate": round(made["images_per_second"]), "steps": bar.steps, "batch": bar.batch}
    return row | {"real": real, "synthetic": accuracy, "test": len(test[1]), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}


def right(rows: list[dict[str, Any]], labels: list[dict[str, Any]], name: str, family: str) -> dict[str, list[float]]:
    """Return by "hard" labels and by those "chosen" how many % of the test images the cells of a set and family name right; empty where not measured."""
    hard = {row["seed"]: 100 * row["synthetic"][0] for row in rows if (row["set"], row["family"]) == (name, family)}
    others = {row["seed"]: row for row in labels if (row["set"], row["family"]) == (name, family)}
    chosen = [100 * others[seed]["soft"][0] if others[seed]["chosen"] == "soft" else value for seed, value in hard.items() if seed in others]
    return {"hard": list(hard.values()), "chosen": chosen if len(chosen) == len(hard) else []}


def table(rows: list[dict[str, Any]], labels: list[dict[str, Any]]) -> str:
    """Return the rows, and those of their labels, as a Markdown table, one line a set."""
    lines = [
        "# Gap between real and synthetic-only accuracy",
        "",
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} shared processors, no GPU.",
        "Points between recognisers trained on real and on as many synthetic images alone, on unseen real images; means over seeds, spread in",
        "brackets. `datagen` is `datagen fit` with nothing set but --budget and how the images are read (benchmarks/journey.py), learnt by labels or",
        "soft labels (half the filter's probabilities) as the run's select part decides; the classics are fitted for the same minutes and used",
        "without filter, by labels (in brackets: by what the select part decides).",
        "Made by `python benchmarks/quality.py DATA WORK`.",
        "",
        "| set | fit | seeds | judge | real, % | datagen: % | gap | by labels | cvae: gap | dcgan: gap | bar | reached |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, bar in BARS.items():
        own = next((row for row in rows if (row["set"], row["family"]) == (name, OURS)), None)
        found = {family: right(rows, labels, name, family) for family in (OURS, *CLASSICS)}
        if own is None:
            continue
        found[OURS]["chosen"] = found[OURS]["chosen"] or found[OURS]["hard"]
        real = 100 * float(np.mean(own["real"]))
        gaps = {family: {kind: real - float(np.mean(v)) for kind, v in each.items() if v} for family, each in found.items()}
        known = [gaps[family]["hard"] for family in CLASSICS if gaps[family]]
        half = min(known) / 2 if known else None
        asked = bar.gap if bar.gap is not None else max(half, FLOOR.get(name, 0.0)) if half is not None else None
        reached = "–" if asked is None else "yes" if gaps[OURS]["chosen"] <= asked else "no"
        values = found[OURS]["chosen"]
        spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
        seeds = {row["seed"] for row in labels if (row["set"], row["family"], row["chosen"]) == (name, OURS, "soft")}
        used = f"{own['used']} {np.mean(values):.1f}{spread}" + (f", soft labels{'' if len(seeds) == len(values) else f' of {len(seeds)}'}" if seeds else "")
        others = [f"{gaps[f]['hard']:.1f}" + (f" ({gaps[f]['chosen']:.1f})" if "chosen" in gaps[f] else "") if gaps[f] else "–" for f in CLASSICS]
        numbers = [
            f"{real:.1f}",
            used,
            f"{gaps[OURS]['chosen']:.1f}",
            f"{gaps[OURS]['hard']:.1f}",
            *others,
            f"{asked:.1f}" if asked is not None else "–",
            reached,
        ]
        lines.append("| " + " | ".join([name, own["budget"], str(len(values)), f"{bar.steps:,} x {bar.batch}", *numbers]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the cells that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the sets")
    parser.add_argument("work", type=Path, help="folder for runs, shards and rows")
    parser.add_argument("--only", choices=BARS, action="append", help="one set; may be given again")
    parser.add_argument("--families", nargs="+", default=[OURS, *CLASSICS], help="default and classics")
    parser.add_argument("--seeds", type=int, help="of each cell; the bar's number by default")
    parser.add_argument("--budget", help="of each fit; the bar's by default")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if "digits" in (options.only or BARS) and not (options.data / "digits").exists():
        from datagen.cli.quickstart import write_digits
        from datagen.progress import Progress

        write_digits(options.data / "digits", Progress(quiet=True))
    kept, labels = options.work / "quality.jsonl", options.work / "labels.jsonl"
    cells = [(name, family, seed) for name in options.only or BARS for seed in range(options.seeds or BARS[name].seeds) for family in options.families]
    for cell, (file, how) in itertools.product(cells, {kept: measure, labels: relabelled}.items()):
        if cell not in {(row["set"], row["family"], row["seed"]) for row in journey.rows(file)}:
            journey.keep(file, how(options, *cell))
    text = table(journey.rows(kept), journey.rows(labels))
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
