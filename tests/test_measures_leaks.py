"""Unseen images that nearly equal training images: they are found, and the arms are scored without them too."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures.copies import Copies
from datagen.records import ArmResult, Finding


def blobs(count: int, seed: int) -> np.ndarray:
    """Return smooth random images uint8 [count, 16, 16, 1], no two alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 1)).astype(np.uint8)
    return coarse.repeat(3, 1).repeat(3, 2)[:, :16, :16]


def measured(planted: int) -> dict[str, Finding]:
    """Measure 200 unseen images of which some are brighter training images that only the arm "both" names right."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    real, test = Labelled(blobs(200, 1), labels), Labelled(blobs(200, 2), labels)
    test.images[:planted] = np.clip(real.images[:planted].astype(int) + 6, 0, 255)
    right = {"real": rng.random(200) < 0.8, "both": rng.random(200) < 0.8}
    right["real"][:planted], right["both"][:planted] = False, True
    arms = tuple(ArmResult(arm, 0, np.where(ok, labels, 1 - labels), ok, 1, 1, 1.0) for arm, ok in right.items())
    encoders = {"recogniser": lambda images: images.reshape(len(images), -1)[:, ::7].astype(np.float32)}
    context = Context(("a", "b"), real, Labelled(blobs(100, 3), labels[:100]), test, arms, encoders)
    return {finding.measure: finding for finding in Copies().measure(context)}


@pytest.mark.parametrize("planted", [0, 40])
def test_near_duplicates_of_training_images_are_scored_apart(planted: int) -> None:
    found = measured(planted)["leaks"].details
    assert (found["found"], found["rows"], found["checked"]) == (planted, list(range(planted)), 200)
    assert abs(found["difference"]["mean"]) < 0.1, "what the planted images alone showed is gone"
    assert found["departs"] is (planted > 0)
    if planted:
        assert "40 of 200" in measured(planted)["leaks"].sentence
