"""Images a second of fitting, synthesizing and reading, each as a ratio to a plain loop that does the bare work."""

from __future__ import annotations

import argparse
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


def fit(asked: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Compare our steps of every stage with a tutorial's loop over the same nets, in turns, and say what of ours is no matrix work.

    The tutorial's loop: decoded images as floats in memory, a shuffling DataLoader, fp32, its own memory layout, `loss.backward()`, the
    optimiser as the library sets it, and the losses read after every step. Ours: batches, steps, moving averages and reports as
    `datagen fit` does them, set as its timing chose here.
    """
    import copy
    import statistics
    import sys
    from unittest import mock

    import numpy as np
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from datagen import registry
    from datagen.contracts import Spec, State
    from datagen.progress import Progress
    from datagen.records import Recipe
    from datagen.training import loop, timing
    from datagen.training.batches import Batches
    from datagen.training.watch import Watch

    pixels = np.random.default_rng(0).integers(0, 256, (2000, asked.size, asked.size, 3), dtype=np.uint8)
    labels = np.arange(len(pixels)) % 10
    for name in asked.families:
        family = registry.load("families", name)()
        recipe = Recipe(family=name, device="cpu", images=asked.images, precision="fp32", layout="contiguous", threads=asked.threads)
        spec = Spec(10, (3, asked.size, asked.size), (200,) * 10, recipe)
        spec = Spec(10, spec.shape, spec.counts, recipe.planned(**family.plan(spec)))
        batches, state = Batches(pixels, labels, np.arange(len(pixels)), balanced=True, seed=0), State(spec)
        watch = Watch(folder, Progress(quiet=True), tuple(map(str, range(10))))
        job = loop.Job(family, list(family.stages(spec)), [10**9] * 9, state, batches, folder, "cpu", watch)
        for index, stage in enumerate(job.stages):
            batch = (spec.recipe.batch or 1) * stage.times
            loop.build(job, index)
            loop._prepare(job, stage)
            rows = batches.chosen(0, batch)
            many = batches.images(rows) if job.inputs is None else batches.instead(rows, job.inputs)
            chosen = timing.choose(stage, partial(copy.deepcopy, state), many, allowed=timing.CHOICES, threads=[asked.threads])
            plain = as_in_tutorials(copy.deepcopy(state))
            whole = batches.images(np.arange(len(pixels))) if job.inputs is None else (job.inputs, torch.from_numpy(labels))
            loader = DataLoader(TensorDataset(*whole), batch_size=batch, shuffle=True, drop_last=True)
            settings = spec.recipe.changed("timed", precision=chosen.precision, layout=chosen.layout)
            job.state = State(Spec(10, spec.shape, spec.counts, settings), state.modules, state.optimizers)
            timing.arrange(job.state, chosen.layout)
            steps, rates = max(2, asked.images // 3 // batch), []
            for turn in range(3):
                with mock.patch.object(sys.modules[type(family).__module__], "descend", plainly):
                    tutorial = rate(steps * batch, partial(tutorial_steps, stage, plain, loader, steps))
                ours = rate(steps * batch, partial(our_steps, job, index, batch, steps, turn))
                rates.append((ours / tutorial, ours, tutorial))
            _, ours, tutorial = sorted(rates)[1]
            rest = 1 - matrix_share(partial(our_steps, job, index, batch, 2, 3))
            how = f"{chosen.precision}, {chosen.layout}; {100 * rest:.0f} % of the step is neither convolution nor matrix product"
            yield f"fit {name} {asked.size}x{asked.size}: {stage.name} ({how})", ours, statistics.median([tutorial])
            job.state = state
            loop.adopt(job)


def as_in_tutorials(state: Any) -> Any:
    """Return a state whose optimisers do as the library has them do where nothing is said: weight by weight, operation by operation."""
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = None
    return state


def plainly(optimizer: Any, loss: Any) -> Any:
    """Take a step as tutorials do: gradients of all that the loss went through, and no look at whether they are numbers."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def tutorial_steps(stage: Any, state: Any, loader: Any, steps: int) -> None:
    """Take steps as tutorials do, the losses read after each."""
    batches = iter(loader)
    for step in range(steps):
        try:
            images, labels = next(batches)
        except StopIteration:
            batches = iter(loader)
            images, labels = next(batches)
        for value in stage.step(state, images, labels, step / steps).values():
            value.item()


def our_steps(job: Any, index: int, batch: int, steps: int, turn: int) -> None:
    """Take steps as `datagen fit` does."""
    from datagen.training import loop

    for step in range(steps):
        loop._one_step(job, index, (turn * steps + step) * batch)


def matrix_share(work: Callable[[], Any]) -> float:
    """Return the share of the processor time of some work that convolutions and matrix products take."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    spent = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    matrix = sum(time for name, time in spent.items() if any(part in name for part in ("conv", "mm", "linear", "matmul")))
    return matrix / max(1, sum(spent.values()))


def synthesize(asked: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Compare sampling alone, encoding alone and the whole verb with the bound that the two alone set, and with a plain loop."""
    import producing

    yield from producing.measured(asked, folder)


def read(asked: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Compare a shuffled pass over ShardDataset with torchvision's, webdataset's and Hugging Face's readers of the same images."""
    import consuming

    yield from consuming.measured(asked, folder)


def main() -> None:
    """Measure what was asked for, print the table and write it where asked to."""
    import torch

    from datagen import machine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fit", "synthesize", "read", "all"], nargs="*", default="all", help="what to measure (default all three)")
    parser.add_argument("--images", type=int, default=6000, help="images of each measurement (default 6000)")
    parser.add_argument("--turns", type=int, default=3, help="turns of synthesize, of which the middle one counts (default 3)")
    parser.add_argument("--seconds", type=float, default=110.0, help="about how long the whole verb runs in a turn, start-up included (default 110)")
    parser.add_argument("--tiles", type=int, default=40, help="tiles of 64 images of sampling and encoding alone, a worker (default 40)")
    parser.add_argument("--sides", type=int, nargs="+", default=[28, 32, 64], choices=[28, 32, 64], help="sizes of synthesize in pixels (default all)")
    parser.add_argument("--size", type=int, default=32, help="side of the images of fit in pixels (default 32)")
    parser.add_argument("--threads", type=int, default=machine.processors(), help="compute threads of fit (default all processors)")
    parser.add_argument("--families", nargs="+", default=["vae", "gan"], help="families of fit (default vae and gan)")
    parser.add_argument("--write", metavar="FILE.md", help="write the table to a file, too")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    lines = [f"Python {platform.python_version()}, {os.cpu_count()} processors.", ""]
    lines += ["| what | images/s | beside | ratio |", "| --- | --- | --- | --- |"]
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
