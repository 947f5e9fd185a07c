"""What a person sees while a generator trains: a live line, progress.jsonl, TensorBoard, sample grids by class and run.html."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datagen import drawing, storage
from datagen.contracts import Family, State
from datagen.progress import Progress
from datagen.training.board import Board
from datagen.training.proxy import Proxy
from datagen.training.story import Story

LINE_SECONDS = 1.0
CLASSES_SHOWN = 20
EACH_SHOWN = 8
PIECE, LONG = 64, 3.0
"""images that the proxy draws at once, and seconds that all of them may take, as the grid before them tells"""


def draw(family: Family, state: State, classes: tuple[str, ...], shown: list[int], each: int, device: str) -> np.ndarray:
    """Return uint8 [len(shown), each, H, W, C]: the first images of the shown classes as `synthesize` with the same seed draws them."""
    pixels = drawing.numbered(family, state, device, classes, np.repeat(shown, each), np.tile(np.arange(each), len(shown)))
    return pixels.reshape(len(shown), each, *pixels.shape[1:])


def picture(grid: np.ndarray, gap: int = 2) -> bytes:
    """Return uint8 [rows, columns, H, W, C] as one PNG, small images enlarged by whole factors."""
    from PIL import Image

    rows, columns, height, width, channels = grid.shape
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = gap + row * (height + gap), gap + column * (width + gap)
            sheet[top : top + height, left : left + width] = grid[row, column]
    image = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    factor = max(1, 640 // max(image.size[0], 1))
    file = io.BytesIO()
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


class Watch:
    """Reports the steps of one fit.

    Args:
        run: the RUN folder.
        progress: the live line and status.json.
        classes: names in the order of the labels.
    """

    def __init__(self, run: Path, progress: Progress, classes: tuple[str, ...]) -> None:
        self.run, self.progress, self.classes = run, progress, classes
        self.shown = list(range(len(classes)))[:: max(1, -(-len(classes) // CLASSES_SHOWN))]
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = self._images = 0
        self._since = 0.0
        self._board: Any = None
        self._said_grid = False
        self._story: Story | None = None
        self.rate = 0.0
        self.last: dict[str, float] = {}
        self.proxy: Proxy | None = None
        self._useful = ""

    def board(self) -> Any:
        """Return what writes into RUN/tb for TensorBoard, or False where tensorboard cannot be imported."""
        if self._board is None:
            try:
                self._board = Board(self.run / "tb")
            except ImportError:
                self.progress.warn("tensorboard is not installed; losses go to progress.jsonl alone")
                self._board = False
        return self._board

    def step(self, stage: str, losses: Mapping[str, torch.Tensor], batch: int, images_seen: int) -> None:
        """Take in the losses of one step; about once a second they are averaged, shown and written."""
        self._since = self._since or time.monotonic()
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._steps += 1
        self._images += batch
        if time.monotonic() - self._since >= LINE_SECONDS:
            self._report(stage, images_seen)

    def _report(self, stage: str, images_seen: int) -> None:
        seconds = max(time.monotonic() - self._since, 1e-9)
        self.rate = self._images / seconds
        means = {name: round(float(total) / self._steps, 5) for name, total in self._sums.items()}
        self.last = means
        finite = {name: mean if math.isfinite(mean) else None for name, mean in means.items()}
        line = {"stage": stage, "images": images_seen, "images_per_second": round(self.rate, 1), "losses": finite}
        storage.append(self.run / "progress.jsonl", json.dumps(line) + "\n")
        if board := self.board():
            board.add({**{f"loss/{name}": mean for name, mean in means.items()}, "speed/images_per_second": self.rate}, images_seen)
        text = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
        self.progress.advance(self._images, f"{self.rate:,.0f} images/s, {text}{self._useful}")
        self._sums, self._steps, self._images, self._since = {}, 0, 0, time.monotonic()

    def forget(self) -> None:
        """Drop what was not reported yet: the fit goes back to a checkpoint."""
        self.last, self._sums, self._steps, self._images, self._since = {}, {}, 0, 0, time.monotonic()

    def end(self, stage: str, images_seen: int) -> None:
        """Report what is left of a stage at its end, or where it is stopped."""
        if self._steps:
            self._report(stage, images_seen)

    def grid(self, family: Family, state: State, images_seen: int, device: str) -> Path:
        """Draw a grid by class, write it as samples/IMAGES.png, and print the path of the first."""
        path = storage.make_folder(self.run / "samples") / f"{images_seen:012d}.png"
        begun = time.monotonic()
        sheet = picture(draw(family, state, self.classes, self.shown, EACH_SHOWN, device))
        storage.replace(path, sheet)
        self._ask(family, state, images_seen, device, (time.monotonic() - begun) / len(self.shown) / EACH_SHOWN)
        if not self._said_grid:
            self.progress.say(f"samples by class: {path} (one row a class; new ones follow in the same folder); all about this fit: {self.run / 'run.html'}")
            self._said_grid = True
        self._story = Story(self.run, family, self.classes, self.shown)
        self.tell("training")
        self._since += time.monotonic() - begun
        return path

    def _ask(self, family: Family, state: State, images_seen: int, device: str, seconds: float) -> None:
        """Say how useful the images are so far, unless at so many seconds an image that takes too long."""
        if self.proxy is None or seconds * len(self.proxy.labels) > LONG:
            return
        names = [f"proxy {name}" for name in self.classes]

        def drawer(labels: np.ndarray, places: np.ndarray) -> np.ndarray:
            pieces = [slice(start, start + PIECE) for start in range(0, len(labels), PIECE)]
            return np.concatenate([drawing.numbered(family, state, device, names, labels[piece], places[piece]) for piece in pieces])

        found = {"synthetic": round(self.proxy.ask(drawer), 4), "real": round(self.proxy.real, 4)}
        line = {"stage": "proxy", "images": images_seen, **found, "drawn": len(self.proxy.labels), "asked": len(self.proxy.answers)}
        storage.append(self.run / "progress.jsonl", json.dumps(line) + "\n")
        if board := self.board():
            board.add({f"usefulness/{name}": share for name, share in found.items()}, images_seen)
        self._useful = f", usefulness so far {100 * found['synthetic']:.0f} % (real {100 * found['real']:.0f} %)"

    def tell(self, state: str) -> None:
        """Rewrite run.html, once there is a grid to show; the state is one of `story.STATES`."""
        if self._story is not None:
            self._story.write(state)

    def finished(self, family: Family) -> None:
        """Rewrite run.html of a run that is finished."""
        self._story = Story(self.run, family, self.classes, self.shown)
        self.tell("finished")

    def chose(self, line: Mapping[str, Any]) -> None:
        """Write what was tried by usefulness, and how each class does, to progress.jsonl."""
        storage.append(self.run / "progress.jsonl", json.dumps({"stage": "selection", **line}) + "\n")

    def continued(self, **how: Any) -> None:
        """Write down in progress.jsonl that a fit was continued, and how: on another device or other threads it is not exact bit for bit."""
        storage.append(self.run / "progress.jsonl", json.dumps({"stage": "continued", **how}) + "\n")


class Mute(Watch):
    """Says and writes nothing: for the processes that train along with the first one."""

    def _report(self, stage: str, images_seen: int) -> None:
        self.last = {name: float(total) / self._steps for name, total in self._sums.items()}
        self._sums, self._steps, self._images, self._since = {}, 0, 0, time.monotonic()

    def continued(self, **how: Any) -> None:
        """Write nothing."""

    def grid(self, family: Family, state: State, images_seen: int, device: str) -> Path:
        """Draw nothing."""
        return self.run / "samples"
