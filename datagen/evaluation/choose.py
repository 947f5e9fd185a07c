"""What is chosen on the validation part of the real images: learning rate, mirroring, the rival's policy, the arm to beat, soft labels."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from datagen import seeds
from datagen.evaluation import arms, classical
from datagen.evaluation.arms import Arm, Labelled, Shares, Trial
from datagen.records import ArmResult

SHORTER = 3
"""choices train for a third of the steps"""
RATES: Mapping[str, tuple[float, ...]] = {"small": (0.2, 0.1, 0.4)}
OTHER_RATES = (0.05, 0.01, 0.2)
BATCH = 128
"""learning rates tried for so many images a step, the first one where they tie or nothing is tried; others go with the root of the batch"""
MIRROR = "mirror"
"""augmentation that is tried beside the usual one"""
RIVAL = "geometric"
"""policy of the classical rival where nothing is tried"""
BALANCES = ("weighted", "oversampled")
SELECT, TRAIN, WHOLE = "select", "train", "validation"
"""parts of the real training images by name: those of each fold, and the validation part as it is"""
HARD, SOFT = "hard", "soft"
"""class labels, and the probabilities that a teacher gave"""
FEW, FOLDS, SHARE = 100, 3, 0.2
"""below so many validation images choices are made on three disjoint fifths of the real training images instead"""


@dataclass(frozen=True)
class Choice:
    """What was chosen and by which figures.

    Attributes:
        learning_rate: of every arm.
        policy: of the classical rival's copies.
        base: the arm without synthetic images that real + synthetic is compared with.
        scores: accuracy on the validation part, by what was chosen and by candidate; empty where nothing was tried.
        images: of all validation parts.
        augment: of the recogniser in every arm; "" as its settings have it.
        parts: validation parts; each candidate trained once for each.
        labels: by which synthetic images alone are learnt, "hard" or "soft".
        validated: images of the validation part that the labels were chosen on; 0 where they were not.
    """

    learning_rate: float
    policy: str = RIVAL
    base: str = "real"
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    images: int = 0
    augment: str = ""
    parts: int = 0
    labels: str = HARD
    validated: int = 0

    def labelled(self, scores: Mapping[str, float], images: int) -> Choice:
        """Return the choice with soft labels for synthetic images alone, unless class labels did better by more than a standard error of so many images."""
        better = clearly(scores[HARD], scores[SOFT], images)
        return dataclasses.replace(self, labels=HARD if better else SOFT, scores={**self.scores, "labels": dict(scores)}, validated=images)


def runs(recogniser: str, *, given_rate: bool, unbalanced: bool, folds: int = 1) -> int:
    """Return how many recognisers `choose` trains."""
    return folds * ((1 if given_rate else len(rates(recogniser))) + 1 + len(classical.POLICIES) - 1 + 2 * unbalanced)


def rates(recogniser: str, weights: str | None = None, batch: int = BATCH) -> tuple[float, ...]:
    """Return the learning rates that are tried for a recogniser; one that begins with weights from a file takes smaller ones."""
    usual = OTHER_RATES if weights is not None else RATES.get(recogniser, OTHER_RATES)
    return tuple(float(f"{rate * math.sqrt(batch / BATCH):.2g}") for rate in usual)


def folds(images: int) -> int:
    """Return how many times a candidate is trained, each with another validation part, for a validation part of so many images."""
    return FOLDS if images < FEW else 1


def validation(real: Labelled, select: np.ndarray, seed: int) -> dict[str, Labelled]:
    """Return the parts "train K" and "select K" of the real training images that choices are made with.

    A large validation part is taken as it is. In place of a small one there are three disjoint fifths of the images, with
    groups whole, each validating what the rest trained.

    Args:
        real: the real training images.
        select: bool [N], the validation part.
        seed: decides the fifths.
    """
    if folds(int(select.sum())) == 1:
        masks = [select]
    else:
        marks = real.groups or tuple(map(str, range(len(real))))
        drawn = np.array([seeds.fraction("fold", seed, mark) for mark in marks])
        masks = [(drawn >= SHARE * k) & (drawn < SHARE * (k + 1)) for k in range(FOLDS)]
    masks = [mask for mask in masks if mask.any() and not mask.all()]
    parts: dict[str, Labelled] = {}
    for number, mask in enumerate(masks):
        parts |= {f"{TRAIN} {number}": real.taken(np.flatnonzero(~mask)), f"{SELECT} {number}": real.taken(np.flatnonzero(mask))}
    return parts


@dataclass(frozen=True)
class _Tried:
    """One candidate on every validation part: accuracy over all their images, mean loss."""

    accuracy: float
    loss: float


def choose(trial: Trial, copies: tuple[int, Shares], train: Callable[[Sequence[Arm]], Sequence[ArmResult]], *, given_rate: bool, unbalanced: bool) -> Choice:
    """Choose on the validation parts, whose images their candidates do not train on; no test label is read.

    Args:
        trial: has the parts that `validation` gives, one pair at least.
        copies: how many classically augmented images the rival adds, and by which shares.
        train: trains arms and tests them.
        given_rate: keep the learning rate of the trial's settings.
        unbalanced: try class weights and oversampling too.
    """
    count = sum(name.startswith(f"{SELECT} ") for name in trial.parts)
    steps = max(1, trial.settings.steps // SHORTER)

    def tried(candidates: Mapping[str, Callable[[str], Arm]], rates: Mapping[str, float], augment: str) -> dict[str, _Tried]:
        def changed(name: str, fold: int) -> Arm:
            changes = {"steps": steps, "learning_rate": rates.get(name, rate), "augment": augment}
            return dataclasses.replace(candidates[name](f"{TRAIN} {fold}"), tested=f"{SELECT} {fold}", **changes)  # type: ignore[arg-type]

        results = train([changed(name, fold) for name in candidates for fold in range(count)])
        return {name: _over(results[place * count : (place + 1) * count]) for place, name in enumerate(candidates)}

    candidates = (trial.settings.learning_rate,) if given_rate else rates(trial.settings.recogniser, trial.settings.weights, trial.settings.batch)
    usual, rate = trial.settings.augment, candidates[0]
    by_rate = tried({f"{r:g}": arms.real for r in candidates}, {f"{r:g}": r for r in candidates}, usual)
    rate = max(candidates, key=lambda r: _score(by_rate[f"{r:g}"]))
    images = sum(len(trial.parts[f"{SELECT} {k}"]) for k in range(count))
    mirrored = f"{usual},{MIRROR}"
    ways = {usual: by_rate[f"{rate:g}"]} | tried({mirrored: arms.real}, {}, mirrored)
    augment = _mirrored(ways, usual, images)
    plain = ways[augment]
    others: dict[str, Callable[[str], Arm]] = {p: functools.partial(arms.rival, p, *copies) for p in classical.POLICIES if p != "none"}
    if unbalanced:
        others |= {kind: functools.partial(arms.balanced, kind) for kind in BALANCES}
    scored = tried(others, {}, augment)
    rivals = {name: scored[name] for name in others if name not in BALANCES} | {"none": plain}
    policy = max(rivals, key=lambda p: _score(rivals[p]))
    bases = {"real": plain, "classical": rivals[policy]} | {kind: scored[kind] for kind in BALANCES if kind in scored}
    base = max(bases, key=lambda name: _score(bases[name]))
    found = {"learning_rate": by_rate, "augment": ways, "policy": rivals, "base": bases}
    scores = {what: {name: round(result.accuracy, 6) for name, result in each.items()} for what, each in found.items()}
    return Choice(rate, policy, base, scores, images, augment, count)


def labels(trial: Trial, sets: Sequence[str], train: Callable[[Sequence[Arm]], Sequence[ArmResult]]) -> dict[str, dict[str, float]]:
    """Return the share of the validation part named right after a set's synthetic images alone, by "hard" and "soft" labels; of replicates the mean.

    The validation part is the one that the generator, too, was not fitted to where it kept the same images back; never the fifths.

    Args:
        trial: has the part "validation", and "probabilities of SET" where a set has them; its settings are chosen already.
        sets: what arms are named by: sets, or "" for all of them in turn; those without probabilities are left out.
        train: trains arms and tests them.
    """
    steps = max(1, trial.settings.steps // SHORTER)
    behind = {name: [name] if name else list(trial.sets) for name in sets}
    known = [name for name in sets if WHOLE in trial.parts and all(arms.PROBABILITIES + own in trial.parts for own in behind[name])]
    asked = [(name, kind, own if len(behind[name]) > 1 else name) for name in known for kind in (HARD, SOFT) for own in behind[name]]
    results = train([arms.alone(own, kind, name=f"{kind} labels", tested=WHOLE, steps=steps) for _, kind, own in asked])
    right: dict[tuple[str, str], list[float]] = {}
    for (name, kind, _), result in zip(asked, results, strict=True):
        right.setdefault((name, kind), []).append(float(result.correct.mean()))
    return {name: {kind: round(float(np.mean(right[name, kind])), 6) for kind in (HARD, SOFT)} for name in known}


def _over(results: Sequence[ArmResult]) -> _Tried:
    """Return what a candidate reached over all validation parts."""
    return _Tried(float(np.concatenate([result.correct for result in results]).mean()), float(np.mean([result.loss for result in results])))


def _mirrored(ways: Mapping[str, _Tried], usual: str, images: int) -> str:
    """Return the augmentation with mirror images where it is better by more than one standard error, else the usual one.

    Mirroring changes the meaning of signs and letters, so a lucky tie must not bring it in.
    """
    other = next(way for way in ways if way != usual)
    return other if clearly(ways[other].accuracy, ways[usual].accuracy, images) else usual


def clearly(other: float, usual: float, images: int) -> bool:
    """Whether an accuracy, 0 to 1, on so many images lies above another by more than that one's standard error; a single image decides nothing."""
    return other > usual + math.sqrt(max(usual * (1 - usual), 2 / images) / images)


def _score(tried: _Tried) -> tuple[float, float]:
    """Order by accuracy, then by likelihood."""
    return tried.accuracy, -tried.loss
