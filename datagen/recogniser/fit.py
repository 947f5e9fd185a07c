"""The only loop that trains a recogniser, and what comes out of it: probabilities and features."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from datagen import machine, seeds
from datagen.recogniser import augment, nets, pretrained

RISE = 0.2
"""share of the steps in which the learning rate rises"""
STATISTICS = 10_000
"""images that mean and deviation are taken from"""
COUNTED = 1 << 22
"""numbers of images that are counted together"""
STEADY = ("small",)
"""recognisers that draw no random numbers while they train"""
RESIDENT = 8 << 30
"""bytes of images that are kept on a GPU as a whole"""


@dataclass(frozen=True)
class Settings:
    """How a recogniser is trained; equal settings, data and seed give equal weights on a CPU.

    Attributes:
        recogniser: a row of the registry, a torchvision model's name, FILE.py:Class, or MODULE:FUNCTION.
        steps: optimisation steps.
        batch: images a step.
        learning_rate: at its peak; it rises linearly for a fifth of the steps and falls linearly to zero.
        weight_decay: on weights of convolutions and linear layers alone.
        momentum: Nesterov's.
        smoothing: share of a label spread over all classes (Szegedy et al. 2016).
        augment: some of shift, zoom, contrast, mirror, or none.
        width: of the small net's first stage; None plans it.
        precision: "fp32" or "bf16" (autocast).
        layout: "contiguous" or "channels-last".
        weights: file of safetensors that the net begins with, its head aside; None draws all anew.
    """

    recogniser: str = "small"
    steps: int = 500
    batch: int = 128
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    momentum: float = 0.9
    smoothing: float = 0.1
    augment: str = "shift,zoom"
    width: int | None = None
    precision: str = "fp32"
    layout: str = "contiguous"
    weights: str | None = None


@dataclass(frozen=True)
class Mix:
    """How several sets share every batch, and how classes count.

    Attributes:
        shares: of a batch that each set has; empty gives each the same.
        class_weights: by which the loss of an image of each class is multiplied (a batch's mean is weighted); empty is 1 for all.
        balanced: show every class equally often (oversampling).
    """

    shares: tuple[float, ...] = ()
    class_weights: tuple[float, ...] = ()
    balanced: bool = False


@dataclass(frozen=True)
class Fitted:
    """A trained recogniser.

    Attributes:
        module: the net, in evaluation mode; takes standardised images.
        mean: float32 [C], of the training images on 0 to 255.
        deviation: float32 [C], likewise.
        settings: what it was trained with.
        device: where it computes.
    """

    module: nn.Module
    mean: torch.Tensor
    deviation: torch.Tensor
    settings: Settings
    device: str

    def predict(self, images: np.ndarray, batch: int = 512) -> np.ndarray:
        """Return probabilities float32 [N, classes] of images uint8 [N, H, W, C]."""
        return self._each(images, batch, lambda x: self.module(x).float().softmax(1))

    def features(self, images: np.ndarray, batch: int = 512) -> np.ndarray:
        """Return what goes into the last linear layer, float32 [N, F], of images uint8 [N, H, W, C]."""
        caught: list[torch.Tensor] = []
        handle = nets.last_linear(self.module).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))

        def one(x: torch.Tensor) -> torch.Tensor:
            caught.clear()
            self.module(x)
            return caught[-1].flatten(1).float()

        try:
            return self._each(images, batch, one)
        finally:
            handle.remove()

    def _each(self, images: np.ndarray, batch: int, work: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        parts = []
        with torch.inference_mode():
            for start in range(0, max(len(images), 1), batch):
                pixels = torch.from_numpy(np.array(images[start : start + batch])).to(self.device)
                parts.append(_forward(work, _standard(pixels, self.mean, self.deviation), self.settings).cpu().numpy())
        return np.concatenate(parts)


def _standard(pixels: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Return uint8 [N, H, W, C] as standardised float32 [N, C, H, W]."""
    return ((pixels.float() - mean) / deviation).permute(0, 3, 1, 2)


def _forward(net: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, settings: Settings) -> torch.Tensor:
    x = x.contiguous(memory_format=torch.channels_last if settings.layout == "channels-last" else torch.contiguous_format)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        return net(x)


def _room(device: str) -> int:
    """Return how many bytes of images may stay on a GPU: a third of what is free at most."""
    return min(RESIDENT, torch.cuda.mem_get_info()[0] // 3) if device == "cuda" else RESIDENT


class Source:
    """One set of labelled images shown in an order of its own, every image once before any comes again.

    Args:
        images: uint8 [N, H, W, C].
        labels: int64 [N], or probabilities float [N, classes].
        key: decides the order.
        device: where batches are wanted.
        balanced: show every class as often as the largest one, its images again and again (oversampling).
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, key: tuple[object, ...], device: str, *, balanced: bool = False) -> None:
        self.images, self.device = images, device
        self.labels = torch.from_numpy(np.array(labels, np.int64 if labels.ndim == 1 else np.float32))
        self.balanced = balanced
        self.resident = torch.from_numpy(np.array(images)).to(device) if device != "cpu" and images.nbytes <= _room(device) else None
        self._order = self._endless(key)

    def _endless(self, key: tuple[object, ...]) -> Iterator[int]:
        epoch = 0
        while True:
            rng = seeds.stream("order", *key, epoch)
            rows = rng.permutation(len(self.images))
            yield from (rng.permutation(self._repeated(rows)) if self.balanced else rows).tolist()
            epoch += 1

    def _repeated(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of every class repeated up to the number of the largest one."""
        labels = self.labels.numpy()[rows]
        members = [rows[labels == label] for label in np.unique(labels)]
        return np.concatenate([np.resize(found, max(map(len, members))) for found in members])

    def take(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next images uint8 [count, H, W, C] and labels int64 [count] (or probabilities [count, classes]) on the device."""
        rows = np.fromiter(self._order, np.int64, count)
        index = torch.from_numpy(rows)
        labels = machine.moved(self.labels[index], self.device)
        if self.resident is not None:
            return self.resident[machine.moved(index, self.device)], labels
        return machine.moved(torch.from_numpy(self.images[rows]), self.device), labels


_DRAWING = threading.RLock()
"""held while torch's global generator is drawn from, which all threads share"""


def side_by_side(recogniser: str) -> bool:
    """Return whether several of a recogniser may be trained in threads at once without a change of their weights."""
    return recogniser in STEADY


def fit(
    images: np.ndarray | Sequence[np.ndarray],
    labels: np.ndarray | Sequence[np.ndarray],
    *,
    classes: int,
    settings: Settings,
    seed: int,
    device: str = "cpu",
    mix: Mix | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> Fitted:
    """Train a recogniser from scratch.

    Args:
        images: uint8 [N, H, W, C], array or memory map; or several such sets, which share every batch equally.
        labels: int64 [N], likewise; or probabilities float [N, classes] (soft labels, which are not smoothed further).
        classes: number of classes.
        settings: how.
        seed: decides weights, order and augmentation.
        device: "cpu", "cuda" or "mps".
        mix: how the sets share a batch and how classes count; None is the plain way.
        progress: called after each step with 1 and a short text.

    Raises:
        UsageError: the recogniser is unknown or cannot work on these images, or the file of weights is of another net.
        ArtefactError: the file of weights is damaged.
        ValueError: no images, or images and labels that do not match.
    """
    several, mix = _sets(images, labels), mix or Mix()
    with contextlib.ExitStack() as drawing:
        drawing.enter_context(_DRAWING)
        drawing.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []))
        torch.manual_seed(seeds.integer("recogniser", seed, "weights"))
        height, width, channels = several[0][0].shape[1:]
        net = nets.find(settings.recogniser, settings.width).build(classes, (channels, height, width))
        if settings.weights is not None:
            pretrained.begin(net, settings.weights)
        if side_by_side(settings.recogniser):
            drawing.close()
        net = net.to(device)
        if settings.layout == "channels-last":
            net = net.to(memory_format=torch.channels_last)
        mean, deviation = (part.to(device) for part in _statistics(several))
        sources = [Source(x, y, ("recogniser", seed, i), device, balanced=mix.balanced) for i, (x, y) in enumerate(several)]
        feed = Feed(sources, allotted(settings.batch, mix.shares or [1.0] * len(sources)), lambda pixels: _standard(pixels, mean, deviation))
        weights = torch.tensor(mix.class_weights).to(device) if mix.class_weights else None
        _train(net, feed, settings, seed=seed, weights=weights, progress=progress)
    return Fitted(net.eval(), mean, deviation, settings, device)


@dataclass(frozen=True)
class Feed:
    """Where batches come from: sources, images that each gives to a batch, and what standardises uint8 [N, H, W, C]."""

    sources: Sequence[Source]
    counts: Sequence[int]
    standard: Callable[[torch.Tensor], torch.Tensor]

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next standardised images float32 [N, C, H, W] and labels."""
        taken = [source.take(count) for source, count in zip(self.sources, self.counts, strict=True)]
        pixels, labels = (torch.cat([pair[i] for pair in taken]) for i in (0, 1))
        return self.standard(pixels), labels


def allotted(batch: int, shares: Sequence[float]) -> list[int]:
    """Return how many images of a batch each set gives, at least one each: shares rounded so that they sum to the batch (ValueError where it is too small)."""
    if batch < len(shares):
        raise ValueError(f"a batch of {batch} has no room for {len(shares)} sets")
    ends = np.floor(np.cumsum(shares) / np.sum(shares) * batch + 0.5).astype(int)
    counts = np.maximum(1, np.diff(ends, prepend=0))
    counts[counts.argmax()] -= counts.sum() - batch
    return [int(count) for count in counts]


def _sets(images: np.ndarray | Sequence[np.ndarray], labels: np.ndarray | Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    one = isinstance(images, np.ndarray)
    several = list(zip([images] if one else images, [labels] if one else labels, strict=True))
    for x, y in several:
        if not len(x) or len(x) != len(y) or x.ndim != 4 or x.dtype != np.uint8:
            raise ValueError(f"images uint8 [N, H, W, C] and as many labels are needed, got {x.dtype} {x.shape} and {len(y)} labels")
    return several


def _statistics(several: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and deviation float32 [C] of the pixels, every set with equal weight."""
    means, squares = [], []
    for images, _ in several:
        rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), STATISTICS)).astype(np.int64))
        shares = _histogram(images, rows) / (len(rows) * images.shape[1] * images.shape[2])
        means.append(shares @ np.arange(256.0))
        squares.append(shares @ np.arange(256.0) ** 2)
    mean = np.mean(means, axis=0)
    deviation = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 1.0))
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(deviation.astype(np.float32))


def _histogram(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return int64 [C, 256], how often each value is among the pixels of some rows of uint8 [N, H, W, C], few images in memory at a time."""
    channels = images.shape[3]
    found = np.zeros((channels, 256), np.int64)
    piece = max(1, COUNTED // max(1, images[0].size))
    for start in range(0, len(rows), piece):
        block = images[rows[start : start + piece]]
        found += np.stack([np.bincount(block[..., channel].ravel(), minlength=256) for channel in range(channels)])
    return found


def _optimizer(net: nn.Module, settings: Settings) -> torch.optim.SGD:
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=settings.learning_rate, momentum=settings.momentum, nesterov=True, foreach=True)


def peak_share(step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of its peak: linear up for a fifth of the steps, linear down to zero."""
    rise = max(1, math.ceil(RISE * steps))
    return (step + 1) / rise if step < rise else (steps - step) / max(1, steps - rise + 1)


def _train(net: nn.Module, feed: Feed, settings: Settings, *, seed: int, weights: torch.Tensor | None, progress: Callable[[int, str], None] | None) -> None:
    optimizer, parts = _optimizer(net, settings), augment.parse(settings.augment)
    generator = torch.Generator().manual_seed(seeds.integer("recogniser", seed, "augment"))
    net.train()
    for step in range(settings.steps):
        images, labels = feed.batch()
        x = augment.augment(images, parts, generator)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * peak_share(step, settings.steps)
        optimizer.zero_grad(set_to_none=True)
        smoothing = settings.smoothing if labels.ndim == 1 else 0.0
        loss = F.cross_entropy(_forward(net, x, settings).float(), labels, weight=weights, label_smoothing=smoothing)
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(1, f"loss {loss.item():.2f}" if step % 10 == 0 else "")
