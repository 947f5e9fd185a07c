"""Which training images a step sees: a function of seed and place alone, so that any step can be made again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from datagen import machine, seeds

KEPT_IN_MEMORY = 2 << 30


class Batches:
    """Endless labelled batches without state.

    Balanced: the classes take turns in shuffled rounds, and each class walks through its images in shuffled passes.
    Natural: shuffled passes over all images.

    Attributes:
        again: which of the orders is shown, 0 for the first.

    Args:
        pixels: uint8 [N, H, W, C], an array or a memory map.
        labels: int64 [N].
        rows: int64 [M], the training images.
        balanced: whether classes are shown equally often.
        seed: the recipe's seed.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, rows: np.ndarray, *, balanced: bool, seed: int) -> None:
        self.seed, self.pixels, self.labels = seed, pixels, labels
        self.place: np.ndarray | None = None
        self._there: tuple[torch.Tensor, torch.Tensor] | tuple[()] | None = None
        present = np.unique(labels[rows])
        self.groups = [rows[labels[rows] == k] for k in present] if balanced else [rows]
        if len(rows) * int(np.prod(pixels.shape[1:])) <= KEPT_IN_MEMORY:
            self.pixels, self.place = np.ascontiguousarray(pixels[rows].transpose(0, 3, 1, 2)), np.zeros(len(labels), np.int64)
            self.place[rows] = np.arange(len(rows))
        self.rows = rows
        self.again = 0
        self._orders: dict[object, tuple[int, np.ndarray]] = {}

    def reorder(self, again: int) -> None:
        """Show the images in another order from now on; 0 is the first one."""
        if again != self.again:
            self.again, self._orders = again, {}

    def _order(self, name: tuple[object, ...], turn: int, size: int) -> np.ndarray:
        """Return the order of `size` things in a turn; of each name the last one is kept."""
        known = self._orders.get(name)
        if known is None or known[0] != turn:
            known = turn, seeds.stream(self.seed, "order", *name, turn, *([self.again] if self.again else [])).permutation(size)
            self._orders[name] = known
        return known[1]

    def chosen(self, start: int, count: int) -> np.ndarray:
        """Return the rows int64 [count] shown at places `start` to `start + count` of the endless sequence."""
        picked = np.empty(count, np.int64)
        many = len(self.groups)
        for turn in range(start // many, -(-(start + count) // many)):
            first = turn * many
            order = self._order(("round",), turn, many) if many > 1 else np.zeros(1, np.int64)
            for place in range(max(start, first), min(start + count, first + many)):
                group = order[place - first]
                rows = self.groups[group]
                walk, step = divmod(turn, len(rows))
                picked[place - start] = rows[self._order(("class", group), walk, len(rows))[step]]
        return picked

    def walk(self, batch: int, device: str = "cpu", most: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all training images and labels once, in their order, `batch` at a time; with `most` no more than so many, of large classes fewer."""
        rows = self.rows if most is None or len(self.rows) <= most else self._some(most)
        for start in range(0, len(rows), batch):
            yield self.images(rows[start : start + batch], device)

    def _some(self, most: int) -> np.ndarray:
        """Return training rows int64, `most` at the most: evenly spaced ones of each class, all of those that have no more than their share."""
        labels = self.labels[self.rows]
        left, shares = most, np.zeros(int(labels.max()) + 1, np.int64)
        counts = np.bincount(labels)
        for place, label in enumerate(np.argsort(counts, kind="stable")):
            shares[label] = min(counts[label], left // (len(counts) - place))
            left -= shares[label]
        places = [np.flatnonzero(labels == label)[(np.arange(share) * counts[label]) // max(share, 1)] for label, share in enumerate(shares)]
        return self.rows[np.sort(np.concatenate(places))]

    def instead(self, rows: np.ndarray, inputs: torch.Tensor, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Return what stands for the given training images, and labels int64 [N]; `inputs` [M, ...] are in the order of `walk`."""
        places, labels = torch.from_numpy(np.searchsorted(self.rows, rows)), torch.from_numpy(self.labels[rows])
        return machine.moved(inputs[machine.moved(places, inputs.device)], device), machine.moved(labels, device)

    def _on(self, device: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return all pixels and labels on a GPU, brought there once; None where they would take more than a third of its free memory."""
        if self._there is None:
            fit = self.pixels.nbytes <= torch.cuda.mem_get_info()[0] // 3
            self._there = (torch.from_numpy(self.pixels).to(device), torch.from_numpy(self.labels).to(device)) if fit else ()
        return self._there or None

    def images(self, rows: np.ndarray, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 [N, C, H, W] in [-1, 1] and labels int64 [N] of the given rows on a device."""
        if device == "cuda" and self.place is not None and (there := self._on(device)) is not None:
            at = machine.moved(torch.from_numpy(np.stack([self.place[rows], rows])), device)
            return there[0][at[0]].float().div_(127.5).sub_(1), there[1][at[1]]
        if self.place is not None:
            raw = torch.from_numpy(self.pixels[self.place[rows]])
        else:
            raw = torch.from_numpy(np.ascontiguousarray(self.pixels[np.asarray(rows)].transpose(0, 3, 1, 2)))
        labels = torch.from_numpy(self.labels[rows])
        return machine.moved(raw, device).float().div_(127.5).sub_(1), machine.moved(labels, device)
