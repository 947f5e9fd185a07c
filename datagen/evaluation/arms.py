"""The arms: the same recogniser trained on real, on synthetic, on both and on the rivals of synthetic images, tested on unseen real ones."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from datagen import seeds
from datagen.evaluation import classical, command, focus
from datagen.recogniser import pretrained
from datagen.recogniser.fit import Fitted, Mix, Settings, fit
from datagen.records import SCHEMA, ArmResult

FEATURES = "features"
PIECE = 4096
"""images that are hashed at a time"""
COPIES = "copies of "
PROBABILITIES = "probabilities of "
"""before the name of a synthetic set: the same images, labelled by the probabilities that a teacher gave"""
KEPT = 2
"""sets of copies that stay in memory: trainings side by side may need two"""


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [N, H, W, C] (array or memory map) with labels int64 [N] and, where they are known, names of files and groups.

    `soft` are probabilities float32 [N, classes] that a teacher gave, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    soft: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Return 64 hex digits decided by pixels and labels, soft ones too."""
        pieces = (np.ascontiguousarray(self.images[start : start + PIECE]).tobytes() for start in range(0, len(self), PIECE))
        soft = [] if self.soft is None else [np.ascontiguousarray(self.soft).tobytes()]
        return seeds.digest_of(itertools.chain(self.images.shape, pieces, [self.labels.astype("<i8").tobytes()], soft)).hex()

    def taken(self, rows: np.ndarray) -> Labelled:
        """Return the images of some rows."""
        names, groups = (tuple(found[i] for i in rows) if found else () for found in (self.names, self.groups))
        return Labelled(self.images[rows], self.labels[rows], names, groups, None if self.soft is None else self.soft[rows])


@dataclass(frozen=True)
class Part:
    """One set of images that an arm trains on.

    Attributes:
        of: name of the set in the trial: real, synthetic and so on; "copies of NAME" are classically augmented copies of it,
            "probabilities of NAME" the set with soft labels.
        count: images of it, drawn by class (of copies: how many are made); None takes all.
        share: of every batch, beside the shares of the arm's other parts.
        policy: of the copies' augmentation.
    """

    of: str
    count: int | None = None
    share: float = 1.0
    policy: str = ""


@dataclass(frozen=True)
class Arm:
    """What a recogniser trains on and is tested on.

    Attributes:
        name: of the arm.
        parts: what it trains on.
        set: the synthetic set that it is about; "" for arms that all sets share.
        tested: name of the images it is tested on.
        balance: "natural", "weighted" (rarer classes count more in the loss) or "oversampled" (they are shown more often).
        steps: where other than all arms'.
        learning_rate: likewise.
        augment: likewise; "" is all arms'.
    """

    name: str
    parts: tuple[Part, ...]
    set: str = ""
    tested: str = "test"
    balance: str = "natural"
    steps: int | None = None
    learning_rate: float | None = None
    augment: str = ""

    @property
    def title(self) -> str:
        """Name and set for a progress line."""
        return f"{self.name} {self.set}".rstrip()


@dataclass(frozen=True)
class Trial:
    """What every arm has in common.

    Attributes:
        parts: the sets by name: real, test, train and select (the real ones in two), one entry a synthetic set.
        classes: names by label.
        settings: the recogniser's.
        seed: everything random follows from it.
        device: "cpu", "cuda" or "mps".
        hashes: of each part's pixels and labels, by name, and of the command; "" where nothing is kept.
        sets: names of the synthetic sets among the parts.
        apart: whether each set has arms of its own; else they are replicates, and each repeat takes the next.
        focus: label of the class in focus, or None.
        command: the user's own training instead of the recogniser's, with the folder it works in; None for the recogniser.
        made: the last few sets of classically augmented copies.
    """

    parts: Mapping[str, Labelled]
    classes: tuple[str, ...]
    settings: Settings
    seed: int
    device: str = "cpu"
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sets: tuple[str, ...] = ("synthetic",)
    apart: bool = False
    focus: int | None = None
    command: tuple[str, Path] | None = None
    made: dict[tuple[str, str, int], Labelled] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def source(self, part: Part, arm: Arm, repeat: int) -> str:
        """Return the name of the set behind a part; where an arm is about several synthetic sets, each repeat takes the next."""
        name = part.of.removeprefix(COPIES)
        soft = PROBABILITIES if name.startswith(PROBABILITIES) else ""
        return name if name.removeprefix(soft) != "synthetic" else soft + (arm.set or self.sets[repeat % len(self.sets)])

    def data(self, part: Part, arm: Arm, repeat: int) -> Labelled:
        """Return the images of one part of an arm."""
        whole = self.parts[self.source(part, arm, repeat)]
        if part.of.startswith(COPIES):
            return self._copies(self.source(part, arm, repeat), part.policy, part.count or len(whole))
        return whole if part.count is None or part.count >= len(whole) else whole.taken(subset(whole, part.count, self.seed))

    def _copies(self, name: str, policy: str, count: int) -> Labelled:
        found = self.made.get((name, policy, count))
        if found is None:
            whole = self.parts[name]
            found = self.made[name, policy, count] = Labelled(*classical.copies(whole.images, whole.labels, policy=policy, count=count, seed=self.seed))
            for old in list(self.made)[:-KEPT]:
                self.made.pop(old, None)
        return found

    def key(self, arm: Arm, repeat: int) -> str:
        """Return 24 hex digits decided by all that decides an arm's result."""
        used = [*(self.source(part, arm, repeat) for part in arm.parts), arm.tested, "command"]
        data = [*(self.hashes.get(name, "") for name in used), *pretrained.decided_by(self.settings)]
        how = [str(dataclasses.astuple(dataclasses.replace(arm, set=""))), str(dataclasses.astuple(self.settings))]
        return seeds.digest("arm", SCHEMA, *how, repeat, self.seed, self.device, len(self.classes), -1 if self.focus is None else self.focus, *data).hex()[:24]


def subset(whole: Labelled, count: int, seed: int) -> np.ndarray:
    """Return `count` rows, ascending, every class in proportion and one of each at least; a smaller subset lies inside a larger one.

    Groups stay together as far as the count allows, since images of one group say little more than one of them does.
    """
    marks = whole.groups or tuple(map(str, range(len(whole))))
    drawn = {mark: seeds.fraction("subset", seed, mark) for mark in set(marks)}
    order = sorted(range(len(whole)), key=lambda row: (drawn[marks[row]], seeds.fraction("subset row", seed, row)))
    place, total = np.empty(len(whole)), np.bincount(whole.labels)
    met = np.zeros(len(total), np.int64)
    for row in order:
        label = whole.labels[row]
        place[row] = -1.0 if met[label] == 0 else met[label] / total[label]
        met[label] += 1
    return np.sort(np.lexsort((np.arange(len(whole)), place))[: max(count, int((total > 0).sum()))])


def real(base: str = "real", **changes: object) -> Arm:
    """Return the arm of the real images alone."""
    return dataclasses.replace(Arm("real", (Part(base),)), **changes)  # type: ignore[arg-type]


Shares = tuple[float, float]
"""by which real images and those that are added to them make up a batch"""
HALVES: Shares = (1.0, 1.0)


def rival(policy: str, count: int, share: Shares = HALVES, base: str = "real", **changes: object) -> Arm:
    """Return the arm that synthetic images must beat: as many classically augmented copies, by the shares that those have."""
    parts = Part(base, share=share[0]), Part(COPIES + base, count, share=share[1], policy=policy)
    return dataclasses.replace(Arm("classical", parts), **changes)  # type: ignore[arg-type]


def balanced(balance: str, base: str = "real") -> Arm:
    """Return the arm of the real images with class weights ("weighted") or the rarer classes shown more often ("oversampled")."""
    return Arm(balance, (Part(base),), balance=balance)


def alone(made: str, labels: str = "hard", **changes: object) -> Arm:
    """Return the arm of a set's synthetic images alone, learnt by their class labels ("hard") or by soft ones ("soft")."""
    part = Part("synthetic" if labels == "hard" else PROBABILITIES + "synthetic")
    return dataclasses.replace(Arm("synthetic", (part,), made), **changes)  # type: ignore[arg-type]


def with_synthetic(name: str, whole: Mapping[str, Labelled], chosen: str, real_images: Labelled, labels: str = "hard") -> tuple[Arm, ...]:
    """Return the arms synthetic and both of one set.

    Half of every batch of both is synthetic; where the set lacks classes each image counts alike instead, and there is no arm of
    synthetic images only.

    Args:
        name: what the arms are named by: a set's name, or "" for all sets in turn.
        whole: the sets by name.
        chosen: a set among them.
        real_images: the real training images.
        labels: of the synthetic images alone, as for `alone`.
    """
    made = whole[chosen]
    share = shares(made, real_images)
    both = Arm("both", (Part("real", share=share[0]), Part("synthetic", share=share[1])), name)
    return (both,) if lacks(made, real_images) else (alone(name, labels), both)


def shares(made: Labelled, real_images: Labelled) -> Shares:
    """Return halves, but the two sets' numbers of images where the synthetic ones lack classes, as a top-up of rare ones does."""
    return (float(len(real_images)), float(len(made))) if lacks(made, real_images) else HALVES


def lacks(made: Labelled, real_images: Labelled) -> bool:
    """Whether synthetic images have none of some class."""
    return len(np.unique(made.labels)) < len(np.unique(real_images.labels))


class Advances(Protocol):
    """What counts the steps of a training."""

    def advance(self, count: int = 1, text: str = "") -> None:
        """Count steps done."""


def run(trial: Trial, arm: Arm, repeat: int, progress: Advances | None = None) -> ArmResult:
    """Train one arm once and test it; equal repeats of all arms start from the same weights."""
    begun = time.monotonic()
    parts = [trial.data(part, arm, repeat) for part in arm.parts]
    if trial.command is not None:
        return _commanded(trial, arm, repeat, parts, progress)
    fitted = train(trial, arm, parts, seeds.integer("arm", trial.seed, repeat), progress)
    test = trial.parts[arm.tested]
    found = fitted.predict(test.images)
    predicted = found.argmax(1).astype(np.int64)
    likelihood = found[np.arange(len(test)), test.labels].astype(np.float64)
    looked = trial.focus is not None and arm.tested == "test"
    return ArmResult(
        arm=arm.name,
        repeat=repeat,
        predicted=predicted,
        correct=predicted == test.labels,
        steps=fitted.settings.steps,
        images=sum(len(part) for part in parts),
        seconds=time.monotonic() - begun,
        set=arm.set,
        loss=float(-np.log(np.maximum(likelihood, 1e-12)).mean()),
        scores=found[:, trial.focus].astype(np.float32) if looked else None,
        blurred=fitted.predict(focus.blurred(test.images)).argmax(1).astype(np.int64) if looked else None,
    )


def _commanded(trial: Trial, arm: Arm, repeat: int, parts: list[Labelled], progress: Advances | None) -> ArmResult:
    """Train and test by the user's own command; how long and on which share of what it trains is its own affair."""
    assert trial.command is not None
    begun, test = time.monotonic(), trial.parts[arm.tested]
    given, work = trial.command
    predicted = command.run(given, parts, test, trial.classes, seed=seeds.integer("arm", trial.seed, repeat), work=work, progress=progress)
    images = sum(len(part) for part in parts)
    return ArmResult(arm.name, repeat, predicted, predicted == test.labels, 0, images, time.monotonic() - begun, arm.set)


def judge(trial: Trial, progress: Advances | None = None) -> Fitted:
    """Train the recogniser whose features the measures use: on the real training images, with another seed than any arm."""
    arm = real()
    return train(trial, arm, [trial.parts["real"]], seeds.integer(FEATURES, trial.seed), progress)


def train(trial: Trial, arm: Arm, parts: list[Labelled], seed: int, progress: Advances | None) -> Fitted:
    """Train a recogniser on the parts of an arm, by their shares of every batch."""
    soft = any(part.soft is not None for part in parts)
    classes = len(trial.classes)
    usual = trial.settings
    steps, rate, augment = arm.steps or usual.steps, arm.learning_rate or usual.learning_rate, arm.augment or usual.augment
    settings = dataclasses.replace(usual, steps=steps, learning_rate=rate, augment=augment)
    mix = Mix(tuple(part.share for part in arm.parts), _weights(parts, classes) if arm.balance == "weighted" else (), arm.balance == "oversampled")
    return fit(
        [part.images for part in parts],
        [_soft(part, classes, settings) if soft else part.labels for part in parts],
        classes=classes,
        settings=settings,
        seed=seed,
        device=trial.device,
        mix=mix,
        progress=progress.advance if progress is not None else None,
    )


def _weights(parts: list[Labelled], classes: int) -> tuple[float, ...]:
    """Return N / (classes n_c) for each class, 1 for one without images."""
    counts = np.bincount(np.concatenate([part.labels for part in parts]), minlength=classes)
    return tuple(float(counts.sum() / (classes * n)) if n else 1.0 for n in counts)


def _soft(part: Labelled, classes: int, settings: Settings) -> np.ndarray:
    """Return a part's soft labels float32 [N, classes]; hard ones are smoothed as they are in training."""
    if part.soft is not None:
        return np.asarray(part.soft, np.float32)
    smoothed = np.full((len(part), classes), settings.smoothing / classes, np.float32)
    smoothed[np.arange(len(part)), part.labels] += 1 - settings.smoothing
    return smoothed
