"""What every family must do: plan, build, step, finish and sample at odd shapes, grey and colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from datagen.contracts import Spec, Stage, State
from datagen.records import FIT, Recipe

SPECS = [((1, 8, 8), 2, 16), ((3, 12, 20), 3, 40)]
"""shape, classes, training images a class"""
STEPS, BATCH = 3, 8


def images(spec: Spec, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return easy images float32 [count, C, H, W] in [-1, 1], each class one grey level, and labels int64 [count]."""
    labels = torch.arange(count) % spec.classes
    levels = labels.float() / spec.classes * 1.6 - 0.8
    noise = torch.rand((count, *spec.shape), generator=torch.Generator().manual_seed(seed)) * 0.2
    return (levels.view(-1, 1, 1, 1) + noise).clamp(-1, 1), labels


def planned(family: Any, shape: tuple[int, int, int], classes: int, count: int) -> Spec:
    spec = Spec(classes, shape, (count,) * classes, Recipe(device="cpu", width=8, images=10_000))
    values = dict(family.plan(spec))
    assert set(values) <= set(Recipe.model_fields), "plan names settings of Recipe"
    assert set(values) <= set(Recipe().settings(FIT)), "plan fills settings of fit"
    return Spec(classes, shape, spec.counts, spec.recipe.planned(**values))


def train(family: Any, spec: Spec) -> State:
    torch.manual_seed(1)
    state = State(spec)
    stages = list(family.stages(spec))
    assert stages
    assert all(isinstance(stage, Stage) and stage.name for stage in stages)
    assert abs(sum(stage.share for stage in stages) - 1) < 1e-6, "the shares of the stages sum to 1"

    def walk(batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        pictures, labels = images(spec, 32)
        yield from zip(pictures.split(batch), labels.split(batch), strict=True)

    for stage in stages:
        stage.build(state)
        rows = None if stage.inputs is None else stage.inputs(state, walk)
        assert rows is None or (len(rows) == 32 and torch.isfinite(rows).all()), "one row for each training image"
        assert set(stage.averaged) <= set(state.modules)
        for step in range(STEPS):
            pictures, labels = images(spec, BATCH, step)
            losses = stage.step(state, pictures if rows is None else rows[:BATCH], labels, step / STEPS)
            assert losses
            assert set(losses) <= set(family.explained), "every loss is explained"
            assert all(torch.isfinite(value).all() and not value.requires_grad for value in losses.values()), dict(losses)

    for module in state.modules.values():
        module.eval()
    family.finish(state, walk)
    return state


def check(family_class: Any) -> None:
    """Train a few steps at every shape and look at what comes out."""
    family = family_class()
    assert any(char.isdigit() for char in family.paper), "the paper is named with its year"
    for shape, classes, count in SPECS:
        spec = planned(family, shape, classes, count)
        state = train(family, spec)
        assert set(family.kept) <= set(state.modules)
        for name in family.kept:
            assert all(torch.isfinite(t).all() for t in state.modules[name].state_dict().values() if t.is_floating_point())
        kept = State(spec, {name: state.modules[name] for name in family.kept})
        sampled(family, kept, spec)
        again = train(family, spec)
        for name in family.kept:
            weights = again.modules[name].state_dict()
            assert all(torch.equal(t, weights[key]) for key, t in state.modules[name].state_dict().items()), "equal seeds, equal weights"


def sampled(family: Any, state: State, spec: Spec) -> None:
    size = family.noise(spec)
    assert size >= 1
    noise = torch.randn(6, size, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(6) % spec.classes
    with torch.no_grad():
        first = family.sample(state, labels, noise, 1.0, 0.0)
        assert first.shape == (6, *spec.shape)
        assert torch.isfinite(first).all()
        assert first.min() >= -1 and first.max() <= 1
        assert torch.equal(first, family.sample(state, labels, noise, 1.0, 0.0)), "equal noise, equal images"
        assert not torch.equal(first, family.sample(state, labels, noise.flip(0), 1.0, 0.0)), "the noise matters"
        assert not torch.equal(first, family.sample(state, labels.roll(1), noise, 1.0, 0.0)), "the label matters"
        assert family.sample(state, labels, noise, 0.5, 1.0).shape == first.shape
