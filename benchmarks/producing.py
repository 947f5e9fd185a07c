"""What `synthesize` could reach on these cores, sampling and encoding each measured alone by as many workers, beside what the whole verb reaches."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import datagen
from datagen import machine, recipe
from datagen.formats import encode
from datagen.records import Recipe, ShardTask
from datagen.rules.shapes import Shapes
from datagen.synthesis import generator
from datagen.synthesis.engines.local import Local
from datagen.synthesis.painter import look, open_painter
from datagen.synthesis.plan import TILE, Plan
from datagen.synthesis.worker import ShardMaker

Row = tuple[str, float, float]
SIDES = {28: "L", 32: "RGB", 64: "RGB"}
"""pixels a side and Pillow's mode of the images"""
OPEN = {"min_confidence": 0.0, "keep_near_copies": True}
"""settings without any filter"""
LEAST = 100
"""images a rate is taken from at least"""


@dataclass
class Alone:
    """A worker's task of one kind of work: the images made and the seconds they took, its start-up and a first tile aside.

    Attributes:
        maker: makes shards of the production.
        what: "sampling" or "encoding".
    """

    maker: ShardMaker
    what: str

    def __call__(self, task: ShardTask) -> tuple[int, float]:
        """Do the work of a shard, and nothing else of it."""
        painter = open_painter(self.maker.origin, self.maker.plan.seed)
        first, *tiles = [(self.maker.plan.classes[label], start) for label, start, _ in task.tiles]
        images = painter.tile(*first, TILE).images
        encode.encode(images, "png", self.maker.mark)
        begun = time.perf_counter()
        for tile in tiles:
            if self.what == "sampling":
                painter.tile(*tile, TILE)
            else:
                encode.encode(images, "png", self.maker.mark)
        return len(tiles) * TILE, time.perf_counter() - begun


def fitted(folder: Path, side: int, mode: str) -> Path:
    """Fit the default generator for a size shortly, to shapes, and return its folder."""
    rule = Shapes()
    for label, name in enumerate(rule.classes):
        (folder / "real" / name).mkdir(parents=True)
        for index in range(40):
            image = Image.fromarray(rule.draw(index, label).image).resize((side, side), Image.Resampling.BILINEAR)
            image.convert(mode).save(folder / "real" / name / f"{index}.png")
    datagen.fit(folder / "real", folder / "run", images=500, device="cpu")
    return folder / "run"


def maker_of(run: Path, settings: Recipe) -> ShardMaker:
    """Return what makes the shards of an order, unfiltered."""
    origin = dataclasses.replace(look(str(run), settings), confidence=0.0, reference="")
    return ShardMaker("", origin, Plan(origin.classes, (10**6,) * len(origin.classes), 0, 10_000), "parquet", "png", encode.MARKS["synthetic"])


def alone(maker: ShardMaker, what: str, workers: int, tiles: int) -> float:
    """Return images a second of one kind of work by so many workers at once."""
    made = Alone(dataclasses.replace(maker), what)
    tasks = [ShardTask(i, "", tuple((k % len(maker.plan.classes), TILE * k, TILE) for k in range(tiles * i, tiles * (i + 1)))) for i in range(workers)]
    found = list(Local().run(tasks, made, Recipe(workers=workers)))
    return sum(images / seconds for images, seconds in found)


def sustained(maker: ShardMaker, what: str, workers: int, asked: argparse.Namespace) -> float:
    """Return the rate of `alone` over a sixth of the seconds of the whole verb, as a short burst is faster than a processor stays."""
    quick = alone(maker, what, workers, asked.tiles)
    return alone(maker, what, workers, max(asked.tiles, int(quick * asked.seconds / 6 / TILE / workers)))


def bound_of(rates: Mapping[str, float]) -> float:
    """Return the images a second of work that follows upon work at some rates."""
    return 1 / sum(1 / rate for rate in rates.values())


def plain(run: Path, folder: Path, count: int) -> float:
    """Return images a second of the loop that scripts have: one image a forward pass, fp32, all threads, saved by Pillow as PNG."""
    import torch

    opened = generator.open_generator(run)
    folder.mkdir()
    begun = time.perf_counter()
    for index in range(count):
        label = np.array([index % len(opened.card.classes)])
        noise = torch.randn(1, opened.card.noise).numpy()
        image = opened.images(label, noise)[0]
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{index}.png")
    return count / (time.perf_counter() - begun)


def measured(asked: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Give the rows of the table for every size, the middle one of the turns; the whole verb's rates include its start-up.

    Sampling is all that makes a tile: noise, generator, and the filter's confidence; alone it is measured before and after the verb.
    The plain loop has neither confidence nor labels.
    """
    workers = machine.processors()
    for side in asked.sides:
        home = folder / str(side)
        run = fitted(home, side, SIDES[side])
        settings = recipe.gather(None, [], device="cpu")
        maker = maker_of(run, settings)
        turns: list[dict[str, float]] = []
        for turn in range(asked.turns):
            before = {what: sustained(maker, what, workers, asked) for what in ("sampling", "encoding")}
            bound = bound_of(before)
            each = int(bound * asked.seconds / len(maker.plan.classes))
            works: dict[str, Callable[[], float]] = {
                "whole": partial(verb, run, home / f"open{turn}", per_class=each, **OPEN),
                "whole, filters on": partial(verb, run, home / f"filtered{turn}", per_class=max(LEAST, each // 2)),
                "plain loop": partial(plain, run, home / f"plain{turn}", max(LEAST, int(bound))),
            }
            whole = {name: work() for name, work in works.items()}
            after = {what: sustained(maker, what, workers, asked) for what in before}
            rates = {what: (rate + after[what]) / 2 for what, rate in before.items()}
            turns.append({f"{what} alone": rate for what, rate in rates.items()} | {"bound": bound_of(rates)} | whole)
        rates = {name: statistics.median(each[name] for each in turns) for name in turns[0]}
        for name in ("sampling alone", "encoding alone", "whole", "whole, filters on", "plain loop"):
            yield f"{name}, {side} px", rates[name], rates["bound"]
        yield f"whole beside the plain loop, {side} px", rates["whole"], rates["plain loop"]


def verb(run: Path, out: Path, **settings: Any) -> float:
    """Return images a second of the whole verb to Parquet, from its call to its return."""
    begun = time.perf_counter()
    made = datagen.synthesize(run, out, device="cpu", **settings)
    return float(made["images"] / (time.perf_counter() - begun))
