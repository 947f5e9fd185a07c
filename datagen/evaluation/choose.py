"""What is chosen on the validation part of the real images: learning rate, policy of the classical rival, the arm that synthetic images must beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from datagen.evaluation import arms, classical
from datagen.evaluation.arms import Arm, Trial
from datagen.records import ArmResult

SHORTER = 3
"""choices train for a third of the steps"""
RATES: Mapping[str, tuple[float, ...]] = {"small": (0.2, 0.1, 0.4)}
OTHER_RATES = (0.05, 0.01, 0.2)
"""learning rates tried, the first one where they tie or nothing is tried"""
RIVAL = "geometric"
"""policy of the classical rival where nothing is tried"""
SELECT, TRAIN = "select", "train"


@dataclass(frozen=True)
class Choice:
    """What was chosen and by which figures.

    Attributes:
        learning_rate: of every arm.
        policy: of the classical rival's copies.
        base: the arm without synthetic images that real + synthetic is compared with.
        scores: accuracy on the validation part, by what was chosen and by candidate; empty where nothing was tried.
        images: of the validation part.
    """

    learning_rate: float
    policy: str = RIVAL
    base: str = "real"
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    images: int = 0


def runs(trial_recogniser: str, *, given_rate: bool, unbalanced: bool) -> int:
    """Return how many recognisers `choose` trains."""
    return (1 if given_rate else len(rates(trial_recogniser))) + len(classical.POLICIES) - 1 + 2 * unbalanced


def rates(recogniser: str, weights: str | None = None) -> tuple[float, ...]:
    """Return the learning rates that are tried for a recogniser; one that begins with weights from a file takes smaller ones."""
    return OTHER_RATES if weights is not None else RATES.get(recogniser, OTHER_RATES)


def choose(trial: Trial, copies: int, train: Callable[[Arm], ArmResult], *, given_rate: bool, unbalanced: bool) -> Choice:
    """Choose on the validation part, whose images no candidate trains on; no test label is read.

    Args:
        trial: has the parts train and select.
        copies: classically augmented images of the rival, as many as there are synthetic ones.
        train: trains an arm and tests it.
        given_rate: keep the learning rate of the trial's settings.
        unbalanced: try class weights and oversampling too.
    """
    short = {"tested": SELECT, "steps": max(1, trial.settings.steps // SHORTER)}
    tried = (trial.settings.learning_rate,) if given_rate else rates(trial.settings.recogniser, trial.settings.weights)
    plain = {rate: train(arms.real(TRAIN, learning_rate=rate, **short)) for rate in tried}
    rate = max(tried, key=lambda r: _score(plain[r]))
    short["learning_rate"] = rate
    rivals = {policy: train(arms.rival(policy, copies, TRAIN, **short)) for policy in classical.POLICIES if policy != "none"}
    rivals["none"] = plain[rate]
    policy = max(rivals, key=lambda p: _score(rivals[p]))
    bases = {"real": plain[rate], "classical": rivals[policy]}
    if unbalanced:
        bases |= {balance: train(dataclasses.replace(arms.real(TRAIN, **short), name=balance, balance=balance)) for balance in ("weighted", "oversampled")}
    base = max(bases, key=lambda name: _score(bases[name]))
    found = {"learning_rate": {f"{r:g}": plain[r] for r in tried}, "policy": rivals, "base": bases}
    scores = {what: {name: round(float(result.correct.mean()), 6) for name, result in each.items()} for what, each in found.items()}
    return Choice(rate, policy, base, scores, len(trial.parts[SELECT]))


def _score(result: ArmResult) -> tuple[float, float]:
    """Order by accuracy, then by likelihood."""
    return float(result.correct.mean()), -result.loss
