"""The arms: the same recogniser trained on real, on synthetic and on both, finished ones kept by the hash of what decides them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datagen import seeds, storage
from datagen.errors import ArtefactError
from datagen.progress import Progress
from datagen.recogniser.fit import Fitted, Settings, fit
from datagen.records import SCHEMA, ArmResult

ARMS: Mapping[str, tuple[str, ...]] = {"real": ("real",), "synthetic": ("synthetic",), "both": ("real", "synthetic")}
"""the sets of images that each arm trains on; several share every batch equally"""
FEATURES = "features"
PIECE = 4096
"""images that are hashed at a time"""


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [N, H, W, C] (array or memory map) with labels int64 [N] and, where they are known, names of files and groups."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Return 64 hex digits decided by pixels and labels."""
        pieces = (np.ascontiguousarray(self.images[start : start + PIECE]).tobytes() for start in range(0, len(self), PIECE))
        return seeds.digest(*self.images.shape, *pieces, self.labels.astype("<i8").tobytes()).hex()


@dataclass(frozen=True)
class Trial:
    """What every arm has in common.

    Attributes:
        parts: the sets by name: real, synthetic, test.
        classes: names by label.
        settings: the recogniser's.
        seed: everything random follows from it.
        device: "cpu", "cuda" or "mps".
        hashes: of each part's pixels and labels, by name; "" where nothing is kept.
    """

    parts: Mapping[str, Labelled]
    classes: tuple[str, ...]
    settings: Settings
    seed: int
    device: str = "cpu"
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def key(self, arm: str, repeat: int) -> str:
        """Return 24 hex digits decided by all that decides an arm's result."""
        data = [self.hashes.get(part, "") for part in (*ARMS[arm], "test")]
        return seeds.digest("arm", SCHEMA, arm, repeat, self.seed, self.device, len(self.classes), dataclasses.astuple(self.settings), *data).hex()[:24]


def run(trial: Trial, arm: str, repeat: int, progress: Progress | None = None) -> ArmResult:
    """Train one arm once and test it on the unseen real images; equal repeats of all arms start from the same weights."""
    begun = time.monotonic()
    sets = [trial.parts[name] for name in ARMS[arm]]
    fitted = train(trial, sets, seeds.integer("arm", trial.seed, repeat), progress)
    test = trial.parts["test"]
    predicted = fitted.predict(test.images).argmax(1).astype(np.int64)
    return ArmResult(
        arm=arm,
        repeat=repeat,
        predicted=predicted,
        correct=predicted == test.labels,
        steps=trial.settings.steps,
        images=sum(len(part) for part in sets),
        seconds=time.monotonic() - begun,
    )


def judge(trial: Trial, progress: Progress | None = None) -> Fitted:
    """Train the recogniser whose features the measures use: on the real training images, with another seed than any arm."""
    return train(trial, [trial.parts["real"]], seeds.integer(FEATURES, trial.seed), progress)


def train(trial: Trial, sets: list[Labelled], seed: int, progress: Progress | None) -> Fitted:
    """Train a recogniser on one set, or on several that share every batch equally."""
    return fit(
        [part.images for part in sets],
        [part.labels for part in sets],
        classes=len(trial.classes),
        settings=trial.settings,
        seed=seed,
        device=trial.device,
        progress=progress.advance if progress is not None else None,
    )


class Kept:
    """Finished arms on disk, one sealed file each.

    Args:
        folder: of the report; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder / "arms" if folder is not None else None

    def _file(self, trial: Trial, arm: str, repeat: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{arm}-{repeat}-{trial.key(arm, repeat)}.json"

    def get(self, trial: Trial, arm: str, repeat: int) -> ArmResult | None:
        """Return a finished arm, None where it is not there, or damaged (it is trained again then)."""
        if self.folder is None or not self._file(trial, arm, repeat).is_file():
            return None
        try:
            value = storage.read_sealed(self._file(trial, arm, repeat))
            predicted = np.array(value["predicted"], np.int64)
        except (ArtefactError, KeyError, ValueError):
            return None
        labels = trial.parts["test"].labels
        if predicted.shape != labels.shape:
            return None
        return ArmResult(arm, repeat, predicted, predicted == labels, int(value["steps"]), int(value["images"]), float(value["seconds"]))

    def put(self, trial: Trial, result: ArmResult) -> None:
        """Keep a finished arm."""
        if self.folder is None:
            return
        value: dict[str, Any] = {"schema": SCHEMA, "arm": result.arm, "repeat": result.repeat, "steps": result.steps}
        value |= {"images": result.images, "seconds": round(result.seconds, 3), "predicted": result.predicted.tolist()}
        storage.make_folder(self.folder)
        storage.replace(self._file(trial, result.arm, result.repeat), storage.seal(value))
