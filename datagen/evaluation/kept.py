"""Finished arms on disk, kept by the hash of what decides them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from datagen import storage
from datagen.errors import ArtefactError
from datagen.evaluation.arms import Arm, Trial
from datagen.records import SCHEMA, ArmResult


class Kept:
    """Finished arms, one sealed file each.

    Args:
        folder: of the report; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder / "arms" if folder is not None else None

    def _file(self, trial: Trial, arm: Arm, repeat: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{arm.name}-{repeat}-{trial.key(arm, repeat)}.json"

    def get(self, trial: Trial, arm: Arm, repeat: int) -> ArmResult | None:
        """Return a finished arm, None where it is not there, or damaged (it is trained again then)."""
        if self.folder is None or not self._file(trial, arm, repeat).is_file():
            return None
        try:
            value = storage.read_sealed(self._file(trial, arm, repeat))
            predicted, labels = np.array(value["predicted"], np.int64), trial.parts[arm.tested].labels
            scores, blurred = (None if value[key] is None else np.array(value[key], kind) for key, kind in (("scores", np.float32), ("blurred", np.int64)))
            if predicted.shape != labels.shape:
                return None
            loss = math.nan if value["loss"] is None else float(value["loss"])
            numbers = int(value["steps"]), int(value["images"]), float(value["seconds"])
            return ArmResult(
                arm.name,
                repeat,
                predicted,
                predicted == labels,
                *numbers,
                arm.set,
                loss,
                scores,
                blurred,
            )
        except (ArtefactError, KeyError, ValueError, TypeError):
            return None

    def put(self, trial: Trial, arm: Arm, result: ArmResult) -> None:
        """Keep a finished arm."""
        if self.folder is None:
            return
        value: dict[str, Any] = {"schema": SCHEMA, "arm": result.arm, "repeat": result.repeat, "steps": result.steps, "images": result.images}
        value |= {"seconds": round(result.seconds, 3), "loss": None if math.isnan(result.loss) else result.loss, "predicted": result.predicted.tolist()}
        value |= {key: None if found is None else found.tolist() for key, found in (("scores", result.scores), ("blurred", result.blurred))}
        storage.make_folder(self.folder)
        storage.replace(self._file(trial, arm, result.repeat), storage.seal(value))
