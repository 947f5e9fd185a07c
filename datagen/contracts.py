"""What each kind of part must offer; the contract tests run over every row of the registry."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from torch import nn

    from datagen.records import Batch, Finding, Recipe, ShardTask


@dataclass(frozen=True)
class Spec:
    """What a family builds for: number of classes, shape (channels, height, width), training images a class, settings."""

    classes: int
    shape: tuple[int, int, int]
    counts: tuple[int, ...]
    recipe: Recipe


@dataclass
class State:
    """The nets, their optimisers and their moving averages while a stage trains or a generator samples.

    Where `trains` is False the optimisers may be left out; that saves seconds, as the first one makes torch load its compiler.
    """

    spec: Spec
    modules: dict[str, Any] = field(default_factory=dict)
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    trains: bool = True


Walk = Callable[[int], "Iterator[tuple[torch.Tensor, torch.Tensor]]"]
"""walks once over the training images float [N, C, H, W] and labels int64 [N], so many at a time"""


@dataclass(frozen=True)
class Stage:
    """One part of a family's training.

    Attributes:
        name: shown and written to progress.jsonl.
        build: adds the stage's nets and optimisers to the state (weights drawn by torch's global generator).
        step: one optimisation step on images float32 [N, C, H, W] in [-1, 1], labels int64 [N] and the share
            of the stage that is done (0 to 1); returns losses by name as tensors without gradient.
        share: of the time of a fit by budget, and of the images of one by --images (`times` as many of them); all shares sum to 1.
        averaged: names of nets that a moving average follows; the averages are what is sampled and kept.
        schedule: of the step size: "cosine" (to zero, after a short warm-up) or "constant".
        inputs: what the stage trains on in place of images: given the state and `images(batch)`, which walks once over the training
            images and labels, it returns one row for each training image, float [N, ...]. None trains on images.
        times: batches that one step takes together.
    """

    name: str
    build: Callable[[State], None]
    step: Callable[[State, torch.Tensor, torch.Tensor, float], Mapping[str, torch.Tensor]]
    share: float = 1.0
    averaged: tuple[str, ...] = ()
    schedule: str = "cosine"
    inputs: Callable[[State, Walk], torch.Tensor] | None = None
    times: int = 1


class Family(Protocol):
    """A way to learn a class-conditional generator; `paper` names the sources of its equations."""

    paper: str
    kept: tuple[str, ...]
    """names of the nets that `sample` needs; only they are stored in generator/"""
    explained: Mapping[str, str]
    """every loss that a step returns, by name, as a formula and in words"""

    def plan(self, spec: Spec) -> Mapping[str, Any]:
        """Return values for the settings of the group "fit" that are still None."""

    def noise(self, spec: Spec) -> int:
        """Return the numbers of standard normal noise an image takes."""

    def stages(self, spec: Spec) -> Sequence[Stage]:
        """Return the stages in the order of training."""

    def finish(self, state: State, images: Walk) -> None:
        """Fit what comes after the last step; `images(batch)` walks once over the training images and labels."""

    def sample(self, state: State, labels: torch.Tensor, noise: torch.Tensor, spread: float, guidance: float) -> torch.Tensor:
        """Return images float [N, C, H, W] in [-1, 1] for labels int64 [N] and noise float32 [N, noise]."""


class Rule(Protocol):
    """A rule that draws labelled images without training."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]

    def draw(self, seed: int, label: int, sources: Sequence[np.ndarray] = ()) -> Drawn:
        """Draw one image of a class; equal arguments give equal pixels."""


@dataclass(frozen=True)
class Drawn:
    """One drawn image: uint8 [H, W, C], and where the rule has them mask uint8 [H, W] and box (left, top, right, bottom)."""

    image: np.ndarray
    mask: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Rows:
    """Rows of one shard by column, all of one length, in the order they are stored.

    Attributes:
        images: encoded image files.
        labels: int64 [N], the place of the class in `classes`.
        classes: every class of the set, names in code-point order.
        seeds: int64 [N]; indices: int64 [N]; attempts: int64 [N].
        confidence, nearest_real: float32 [N] or None where nothing scored them.
        probabilities: float16 [N, classes] or None.
        suffix: of the image files, "png" or "jpg".
        source: what made them: "synthetic", or "rule".
        tried: images computed for them, 0 where none was thrown away; forced: images taken though no attempt was accepted.
        near_copies: images thrown away since they repeat a training image.
    """

    images: Sequence[bytes]
    labels: np.ndarray
    classes: tuple[str, ...]
    seeds: np.ndarray
    indices: np.ndarray
    attempts: np.ndarray
    confidence: np.ndarray | None = None
    nearest_real: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    suffix: str = "png"
    source: str = "synthetic"
    tried: int = 0
    forced: int = 0
    near_copies: int = 0


class Format(Protocol):
    """Writer and reader of one shard format."""

    suffix: str
    """of a shard's file, "" where a shard is many files in class folders"""

    def name(self, id: int, count: int) -> str:
        """Return the relative name of the file of shard `id` of `count`; where a shard is many files, of their list."""

    def files(self, rows: Rows) -> Iterator[tuple[str, bytes]]:
        """Yield relative name and bytes of each file that stands beside the shard's own; written before it."""

    def listed(self, file: Path) -> Iterator[tuple[str, str]]:
        """Yield relative name and SHA-256 of each file that stands beside the shard's own; ArtefactError as `read`."""

    def write(self, file: BinaryIO, rows: Rows) -> None:
        """Write the rows as one file; equal rows give equal bytes."""

    def read(self, file: Path) -> Iterator[Rows]:
        """Yield the rows of one file in order, in pieces that fit in memory; ArtefactError where it is damaged."""

    def count(self, file: Path) -> int:
        """Return the number of rows without decoding images."""


class Engine(Protocol):
    """A way to run shard tasks."""

    def rank(self) -> tuple[int, int]:
        """Return which of several processes that share one folder this is, from 0, and how many there are; (0, 1) alone."""

    def run(self, tasks: Sequence[ShardTask], make: Callable[[ShardTask], Any], recipe: Recipe) -> Generator[Any, None, None]:
        """Run every task, in any order, and yield what `make` returned as it comes; one that is a probe, given first, ends before another begins."""


class Filter(Protocol):
    """Scores images on their way into a shard."""

    def score(self, batch: Batch) -> np.ndarray:
        """Return float32 [N]; higher is better."""


class Recogniser(Protocol):
    """A classifier's net by name: what the judge trains."""

    def build(self, classes: int, shape: tuple[int, int, int]) -> nn.Module:
        """Return a net that maps float32 [N, C, H, W] (standardised) to logits [N, classes]."""


class Measure(Protocol):
    """One way to look at synthetic images beside real ones; `keys` documents every key of its findings' details, by path."""

    keys: Mapping[str, str]

    def measure(self, context: Any) -> Finding | Iterable[Finding]:
        """Return the finding; `context` is evaluation.experiment.Context."""
