"""Which rows an epoch takes of a set that has more: all are seen before any is seen again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from datagen import seeds


class Turns:
    """Consecutive pieces of one endless sequence, in which every pass over the rows is shuffled anew.

    Epoch and place lie in shared memory, so that loader workers that are kept alive hear of them.

    Args:
        total: rows there are.
        count: rows an epoch takes, any number.
        key: what the order follows from.
    """

    def __init__(self, total: int, count: int, *key: object) -> None:
        self.total, self.count, self._key = total, count, key
        self._place = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._drawn: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        """Rows that are left of the epoch."""
        return max(0, self.count - int(self._place[1]))

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self._place[0], self._place[1] = epoch, 0

    def state_dict(self, seen: int = 0) -> dict[str, int]:
        """Return where an epoch stands after `seen` more rows."""
        return {"epoch": int(self._place[0]), "seen": int(self._place[1]) + seen}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Leave out the rows of an epoch that were seen."""
        self._place[0], self._place[1] = state["epoch"], state["seen"]

    def row(self, place: int) -> int:
        """Return the row at a place of what is left of the epoch."""
        return int(self._rows()[int(self._place[1]) + place])

    def _rows(self) -> np.ndarray:
        epoch = int(self._place[0])
        if self._drawn[0] != epoch:
            places = np.arange(epoch * self.count, (epoch + 1) * self.count)
            passes, within = np.divmod(places, max(1, self.total))
            orders = {int(turn): seeds.stream(*self._key, int(turn)).permutation(self.total) for turn in np.unique(passes)}
            self._drawn = (epoch, np.array([orders[int(turn)][at] for turn, at in zip(passes, within, strict=True)], np.int64))
        return self._drawn[1]
