"""Images a second of fitting, synthesizing and reading, each as a ratio to a plain loop that does the bare work."""

from __future__ import annotations

import argparse
import io
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

Row = tuple[str, float, float]
"""what was measured, images a second, images a second of the plain loop"""


def rate(images: int, work: Callable[[], Any]) -> float:
    """Return images a second of one call."""
    begun = time.perf_counter()
    work()
    return images / (time.perf_counter() - begun)


def bare_steps(stage: Any, state: Any, images: Any, labels: Any, steps: int) -> None:
    """Take optimisation steps on one batch and nothing else."""
    for step in range(steps):
        stage.step(state, images, labels, step / steps)


def fit(asked: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Compare the slope of `fit` over two lengths with the bare steps of the same family on one fixed batch.

    The slope leaves out the scan, the timing and the generator's writing, which do not grow with the images.
    """
    import torch

    import datagen
    from datagen import registry
    from datagen.contracts import Spec, State
    from datagen.records import Recipe

    data, size, fixed = folder / "data", asked.size, {"precision": "fp32", "layout": "contiguous", "threads": asked.threads}
    datagen.synthesize("rule:shapes", folder / "shards", per_class=100)
    datagen.export(folder / "shards", data, format="folder")
    source = data / "data" / "train"
    for name in asked.families:
        short, long = asked.images, 3 * asked.images
        took = []
        for images in (short, long):
            begun = time.perf_counter()
            datagen.fit(source, folder / f"{name}-{images}", size=size, family=name, images=images, allow_synthetic=True, **fixed)
            took.append(time.perf_counter() - begun)
        family = registry.load("families", name)()
        recipe = Recipe(family=name, device="cpu", images=long, **fixed)
        spec = Spec(6, (3, size, size), (100,) * 6, recipe)
        spec = Spec(6, spec.shape, spec.counts, recipe.planned(**family.plan(spec)))
        state, batch = State(spec), spec.recipe.batch or 64
        images, labels = torch.rand(batch, *spec.shape) * 2 - 1, torch.arange(batch) % 6
        seconds = 0.0
        for stage in family.stages(spec):
            stage.build(state)
            bare_steps(stage, state, images, labels, 1)
            steps = max(3, short // batch)
            seconds += stage.share / rate(steps * batch, partial(bare_steps, stage, state, images, labels, steps))
        yield f"fit {name} {size}x{size}", (long - short) / (took[1] - took[0]), 1 / seconds


def synthesize(asked: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Compare `synthesize rule:shapes` in every format with drawing the same images and saving each by Pillow."""
    from PIL import Image

    import datagen
    from datagen.rules.shapes import Shapes

    each = asked.images // len(Shapes.classes)
    total = each * len(Shapes.classes)

    def plain() -> None:
        rule = Shapes()
        for label, name in enumerate(rule.classes):
            (folder / "plain" / name).mkdir(parents=True)
            for index in range(each):
                Image.fromarray(rule.draw(index, label).image).save(folder / "plain" / name / f"{index}.png")

    bare = rate(total, plain)
    for name in ("parquet", "webdataset", "folder"):
        for workers in (1, 2):
            out = folder / f"{name}-{workers}"
            order = {"per_class": each, "format": name, "workers": workers, "shard_images": max(64, total // 8)}
            yield (
                f"synthesize rule:shapes {name}, {workers} workers",
                rate(total, partial(datagen.synthesize, "rule:shapes", out, **order)),
                bare,
            )


def read(asked: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Compare a shuffled pass over ShardDataset in every format with decoding the same PNG files from memory in order."""
    import numpy as np
    from PIL import Image
    from torch.utils.data import DataLoader

    import datagen
    from datagen.rules.shapes import Shapes

    each = asked.images // len(Shapes.classes)
    total = each * len(Shapes.classes)
    datagen.synthesize("rule:shapes", folder / "parquet", per_class=each)
    for name in ("webdataset", "folder"):
        datagen.export(folder / "parquet", folder / name, format=name)
    files = [path.read_bytes() for path in sorted((folder / "folder" / "data").rglob("*.png"))]
    bare = rate(total, lambda: [np.asarray(Image.open(io.BytesIO(file))) for file in files])
    for name in ("parquet", "webdataset", "folder"):
        for workers in (0, 2):
            loader = DataLoader(datagen.ShardDataset(folder / name), batch_size=64, shuffle=True, num_workers=workers)
            yield f"read {name}, {workers} loader workers", rate(total, partial(list, loader)), bare


def main() -> None:
    """Measure what was asked for, print the table and write it where asked to."""
    import torch

    from datagen import machine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fit", "synthesize", "read", "all"], nargs="*", default="all", help="what to measure (default all three)")
    parser.add_argument("--images", type=int, default=6000, help="images of each measurement (default 6000)")
    parser.add_argument("--size", type=int, default=32, help="side of the images of fit in pixels (default 32)")
    parser.add_argument("--threads", type=int, default=machine.processors(), help="compute threads of fit (default all processors)")
    parser.add_argument("--families", nargs="+", default=["cvae", "dcgan", "gan"], help="families of fit (default all)")
    parser.add_argument("--write", metavar="FILE.md", help="write the table to a file, too")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    lines = [f"{asked.images:,} images each, Python {platform.python_version()}, {os.cpu_count()} processors.", ""]
    lines += ["| what | images/s | plain loop | ratio |", "| --- | --- | --- | --- |"]
    print("\n".join(lines))
    for name in ["fit", "synthesize", "read"] if "all" in asked.what else asked.what:
        with tempfile.TemporaryDirectory() as folder:
            for what, ours, plain in {"fit": fit, "synthesize": synthesize, "read": read}[name](asked, Path(folder)):
                lines.append(f"| {what} | {ours:,.0f} | {plain:,.0f} | {ours / plain:.2f} |")
                print(lines[-1], flush=True)
    if asked.write:
        Path(asked.write).write_text("\n".join([f"# {__doc__}", "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
