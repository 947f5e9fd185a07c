"""What more a fitted generator gives: filtered images, soft labels, and fresh images in place of the same ones again.

    python benchmarks/more.py DATA RUN KEPT.jsonl --steps 600 --batch 32

A recogniser is trained on synthetic images alone, and on real and synthetic ones, half of every batch each; the share of the select
part that it names right decides, and no test image is looked at. "Same": as many images as the generator learnt from. "Fresh": so many
that none is shown twice. Soft labels are the probabilities of the run's filter, which was trained on the real training images.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import journey
import numpy as np

LEAST = 0.6
"""confidence that filtered images reach"""
PIECE = 512

Labelled = tuple[np.ndarray, np.ndarray]


def pool(generator: object, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return so many images of each class, shuffled: uint8 [N, H, W, C], labels int64 [N], the filter's probabilities float32 [N, classes]."""
    from datagen import drawing, seeds

    labels = np.repeat(np.arange(len(counts)), counts)
    places = np.concatenate([np.arange(count) for count in counts])
    order = seeds.stream("more", len(labels)).permutation(len(labels))
    labels, places = labels[order], places[order]
    names, state = [f"more {name}" for name in generator.card.classes], generator.state
    pieces = [drawing.numbered(generator.family, state, "cpu", names, labels[k : k + PIECE], places[k : k + PIECE]) for k in range(0, len(labels), PIECE)]
    images = np.concatenate(pieces)
    return images, labels, generator.filter.predict(images)


def first_of_each(labels: np.ndarray, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return the first rows of each class that are allowed, as many as wanted; others of the class make up for what lacks."""
    rows = []
    for label, count in enumerate(wanted):
        own = np.flatnonzero(labels == label)
        rows.append(np.concatenate([own[allowed[own]], own[~allowed[own]]])[:count])
    return np.sort(np.concatenate(rows))


def smoothed(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """Return hard labels as the probabilities float32 [N, classes] that the recogniser makes of them."""
    return ((1 - smoothing) * np.eye(classes)[labels] + smoothing / classes).astype(np.float32)


def ways(images: np.ndarray, labels: np.ndarray, soft: np.ndarray, wanted: np.ndarray) -> dict[str, Labelled]:
    """Return what a recogniser may be trained on, by name: images and labels, hard int64 [N] or soft float32 [N, classes]."""
    sure = soft[np.arange(len(labels)), labels] >= LEAST
    same = first_of_each(labels, wanted, np.ones(len(labels), bool))
    filtered = first_of_each(labels, wanted, sure)
    return {
        "same": (images[same], labels[same]),
        "same, filtered": (images[filtered], labels[filtered]),
        "same, soft": (images[same], soft[same]),
        "fresh": (images, labels),
        "fresh, filtered": (images[sure], labels[sure]),
        "fresh, soft": (images, soft),
    }


def main() -> None:
    """Measure the cells that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the labelled folder that RUN was fitted on")
    parser.add_argument("run", type=Path, help="what datagen fit wrote")
    parser.add_argument("kept", type=Path, help="file of the rows that are measured")
    parser.add_argument("--steps", type=int, default=600, help="of each training (600)")
    parser.add_argument("--batch", type=int, default=32, help="images of a step (32)")
    parser.add_argument("--repeats", type=int, default=2, help="trainings of each way (2)")
    parser.add_argument("--alone", action="store_true", help="leave out what is trained on real and synthetic images together")
    asked = parser.parse_args()
    from datagen import storage
    from datagen.progress import Progress
    from datagen.recogniser import timing
    from datagen.recogniser.fit import fit
    from datagen.synthesis.generator import open_generator
    from datagen.training import real

    generator = open_generator(asked.run)
    reading = storage.read_json(asked.run / "data.json")["settings"]
    found = real.read(asked.data, generator.state.spec.recipe.changed("run", **reading), asked.run, Progress(quiet=True), begun=True)
    classes, rows, select = len(generator.card.classes), found.parts.train, found.parts.select
    images, labels = np.asarray(found.pixels[rows]), found.dataset.labels[rows]
    tested = np.asarray(found.pixels[select]), found.dataset.labels[select]
    wanted = np.bincount(labels, minlength=classes)
    times = -(-asked.steps * asked.batch // len(labels))
    print(f"{len(labels):,} real images, {len(select):,} of the select part, {times} times as many synthetic ones", flush=True)
    made = ways(*pool(generator, wanted * times), wanted)
    settings = journey.judge(asked.batch, len(labels))
    timed = timing.choose(settings, found.shape, classes, threads=[os.cpu_count() or 1])
    settings = dataclasses.replace(timed.settings, steps=asked.steps)

    def sets(name: str) -> list[Labelled]:
        if name == "real":
            return [(images, labels)]
        alone = made[name.removeprefix("real + ")]
        own = smoothed(labels, classes, settings.smoothing) if alone[1].ndim == 2 else labels
        return [(images, own), alone] if name.startswith("real + ") else [alone]

    names = ["real", *made, *(f"real + {name}" for name in made if not asked.alone)]
    for repeat in range(asked.repeats):
        for name in names:
            if any((row["run"], row["way"], row["repeat"]) == (str(asked.run), name, repeat) for row in journey.rows(asked.kept)):
                continue
            begun, given = time.monotonic(), sets(name)
            judge = fit([x for x, _ in given], [y for _, y in given], classes=classes, settings=settings, seed=2000 + repeat)
            right = float((judge.predict(tested[0]).argmax(1) == tested[1]).mean())
            row = {"run": str(asked.run), "way": name, "repeat": repeat, "right": round(right, 6), "select": len(select)}
            journey.keep(asked.kept, row | {"steps": asked.steps, "batch": asked.batch, "seconds": round(time.monotonic() - begun)})
    own = [row for row in journey.rows(asked.kept) if row["run"] == str(asked.run)]
    print("\n".join(["| trained on | right of the select part, % |", "|---|---|"]))
    for name in names:
        print(f"| {name} | " + ", ".join(f"{100 * row['right']:.1f}" for row in own if row["way"] == name) + " |")


if __name__ == "__main__":
    main()
