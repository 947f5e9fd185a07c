"""Faults put into our own evaluation on purpose: each must be caught by the check that is there for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datagen import seeds
from datagen.errors import SafetyError
from datagen.evaluation import arms, experiment, inputs
from datagen.evaluation.arms import Arm, Labelled, Trial
from datagen.evaluation.plan import Plan
from datagen.progress import Progress
from datagen.recogniser import fit as recogniser
from datagen.recogniser import nets
from datagen.recogniser.fit import Settings, Source, peak_share

Patch = pytest.MonkeyPatch
QUICK = Settings(steps=25, batch=16, width=4, augment="none")


def marked(count: int, seed: int, turn: int = 0) -> Labelled:
    """Return noisy images of four classes, each bright in its own quarter; labels are turned on by `turn`."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 4, count)
    images = rng.integers(0, 80, (count, 8, 8, 1), dtype=np.uint8)
    for image, place in zip(images, places, strict=True):
        row, column = divmod(int(place), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 120
    return Labelled(images, (places + turn) % 4)


def trial(synthetic_turn: int = 1) -> Trial:
    parts = {"real": marked(120, 0), "synthetic": marked(120, 1, synthetic_turn), "test": marked(100, 2)}
    return Trial(parts, ("a", "b", "c", "d"), QUICK, 0)


def check_arms_learn_what_they_are_given() -> None:
    """Synthetic labels are all wrong by one: real must be right, synthetic must be wrong by one."""
    context = experiment.conduct(trial(), Plan(QUICK, 1, 1, 1000.0, {}))[""]
    assert context.correct("real").mean() > 0.95
    turned = (context.predicted("synthetic")[0] - context.test.labels) % 4
    assert (turned == 1).mean() > 0.95


def check_tested_on_unseen_images() -> None:
    """Labels that nothing in the images tells can be learnt by heart, but never be right on unseen images."""
    rng = np.random.default_rng(0)
    noise = [Labelled(rng.integers(0, 256, (32, 8, 8, 1), dtype=np.uint8), rng.integers(0, 4, 32)) for _ in range(2)]
    by_heart = Trial({"real": noise[0], "test": noise[1]}, ("a", "b", "c", "d"), dataclasses.replace(QUICK, steps=150, width=8), 0)
    assert arms.run(by_heart, arms.real(), 0).correct.mean() < 0.7


def check_equal_steps() -> None:
    """Every arm takes as many optimisation steps, counted where the optimiser takes them."""
    taken: list[int] = []
    real_step = torch.optim.SGD.step

    def counted(self: Any, *rest: Any) -> Any:
        taken.append(1)
        return real_step(self, *rest)

    torch.optim.SGD.step = counted  # type: ignore[assignment,method-assign]
    try:
        steps = []
        for arm in (arms.real(), *arms.with_synthetic("", trial().parts, "synthetic", trial().parts["real"])):
            taken.clear()
            arms.run(trial(), arm, 0)
            steps.append(len(taken))
    finally:
        torch.optim.SGD.step = real_step  # type: ignore[method-assign]
    assert steps == [25, 25, 25]


def check_training_equals_the_plain_loop() -> None:
    """The weights are those of a loop written out here, with gradients of the step's own batch alone."""
    part = marked(60, 3)
    settings = dataclasses.replace(QUICK, steps=6)
    found = recogniser.fit(part.images, part.labels, classes=4, settings=settings, seed=5)
    torch.manual_seed(seeds.integer("recogniser", 5, "weights"))
    net = nets.find("small", 4).build(4, (1, 8, 8)).train()
    groups = [{"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 5e-4}, {"params": [p for p in net.parameters() if p.ndim <= 1]}]
    optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.9, nesterov=True)
    source = Source(part.images, part.labels, ("recogniser", 5, 0), "cpu")
    for step in range(6):
        pixels, labels = source.take(16)
        x = ((pixels.float() - found.mean) / found.deviation).permute(0, 3, 1, 2).contiguous()
        for parameter in net.parameters():
            parameter.grad = None
        for group in optimizer.param_groups:
            group["lr"] = 0.2 * peak_share(step, 6)
        F.cross_entropy(net(x), labels, label_smoothing=0.1).backward()
        optimizer.step()
    for ours, plain in zip(found.module.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def check_leaked_test_images_are_refused() -> None:
    """A synthetic set that holds an unseen test image closes the gate."""
    test, made = marked(20, 4), marked(20, 5)
    made.images[7] = test.images[3]
    named = [dataclasses.replace(part, names=tuple(map(str, range(20)))) for part in (made, test)]
    with pytest.raises(SafetyError):
        inputs._refuse_leaks(named[0], named[1], "shards")
    inputs._refuse_leaks(dataclasses.replace(marked(20, 6), names=named[0].names), named[1], "shards")


def swapped_sets(patch: Patch) -> None:
    plain = Trial.source
    other = {"real": "synthetic", "synthetic": "real"}
    patch.setattr(Trial, "source", lambda self, part, arm, repeat: other.get(found := plain(self, part, arm, repeat), found))


def shuffled_labels(patch: Patch) -> None:
    plain = Trial.data

    def shuffled(self: Trial, part: Any, arm: Arm, repeat: int) -> Labelled:
        whole = plain(self, part, arm, repeat)
        return dataclasses.replace(whole, labels=np.random.default_rng(0).permutation(whole.labels)) if arm.name == "real" else whole

    patch.setattr(Trial, "data", shuffled)


def scored_on_training_images(patch: Patch) -> None:
    plain = arms.run

    def seen(trial: Trial, arm: Arm, repeat: int, progress: Progress | None = None) -> Any:
        return plain(dataclasses.replace(trial, parts={**trial.parts, "test": trial.parts["real"]}), arm, repeat, progress)

    patch.setattr(arms, "run", seen)


def unequal_steps(patch: Patch) -> None:
    plain = arms.train

    def longer(trial: Trial, arm: Arm, *rest: Any) -> Any:
        return plain(trial, dataclasses.replace(arm, steps=40) if arm.name == "both" else arm, *rest)

    patch.setattr(arms, "train", longer)


def forgotten_zero_grad(patch: Patch) -> None:
    patch.setattr(torch.optim.SGD, "zero_grad", lambda self, set_to_none=True: None)


def leaked_test_set(patch: Patch) -> None:
    patch.setattr(inputs, "_refuse_leaks", lambda synthetic, test, path: None)


CASES: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (swapped_sets, check_arms_learn_what_they_are_given),
    (shuffled_labels, check_arms_learn_what_they_are_given),
    (scored_on_training_images, check_tested_on_unseen_images),
    (unequal_steps, check_equal_steps),
    (forgotten_zero_grad, check_training_equals_the_plain_loop),
    (leaked_test_set, check_leaked_test_images_are_refused),
]


@pytest.mark.parametrize("check", dict.fromkeys(check for _, check in CASES), ids=lambda check: check.__name__)
def test_our_own_code_passes_its_checks(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(("mutant", "check"), CASES, ids=[mutant.__name__ for mutant, _ in CASES])
def test_every_fault_is_caught(mutant: Callable[[Patch], None], check: Callable[[], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()


def test_the_real_evaluation_refuses_the_leak_too(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    from datagen.evaluation.run import evaluate

    real, test = make_folder("real", each=6, size=(8, 8), seed=0), make_folder("test", each=4, size=(8, 8), seed=1)
    with pytest.raises(SafetyError, match="unseen test images are among the synthetic ones"):
        evaluate(test, real=real, test=test, out=tmp_path / "r", progress=Progress(quiet=True), quick=True)
