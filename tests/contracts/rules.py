"""What every rule must do: draw equal pixels for equal arguments, in its own shape, every class another."""

from __future__ import annotations

from typing import Any

import numpy as np


def check(rule_class: Any) -> None:
    """Draw several images of every class."""
    rule = rule_class()
    channels, height, width = rule.shape
    assert channels in (1, 3)
    assert len(set(rule.classes)) == len(rule.classes) >= 2
    sources = [np.full((height, width, channels), 90, dtype=np.uint8)]
    means = []
    for label in range(len(rule.classes)):
        drawn = [rule.draw(seed, label, sources) for seed in range(20)]
        for seed, one in enumerate(drawn):
            assert one.image.dtype == np.uint8
            assert one.image.shape == (height, width, channels)
            again = rule_class().draw(seed, label, sources)
            assert np.array_equal(one.image, again.image), "equal arguments, equal pixels"
            boxed(one, height, width)
        assert len({one.image.tobytes() for one in drawn}) == len(drawn), "every seed another image"
        means.append(b"".join(one.image.tobytes() for one in drawn))
    assert len(set(means)) == len(means), "every class another image"


def boxed(drawn: Any, height: int, width: int) -> None:
    if drawn.mask is not None:
        assert drawn.mask.shape == (height, width)
        assert drawn.mask.dtype == np.uint8
        assert drawn.mask.any()
    if drawn.box is not None:
        left, top, right, bottom = drawn.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    if drawn.mask is not None and drawn.box is not None:
        rows, columns = np.nonzero(drawn.mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == tuple(drawn.box)
