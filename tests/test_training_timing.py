"""The timing that chooses precision, layout and threads, by a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datagen import registry, turns
from datagen.contracts import Spec, Stage, State
from datagen.generators import losses
from datagen.generators.gan import PENALTY_EVERY
from datagen.records import Recipe
from datagen.training import timing

SECONDS = {("fp32", False): 4.0, ("fp32", True): 3.0, ("bf16", True): 1.0, ("bf16", False): 2.0}
BATCH = (torch.zeros(32, 3, 8, 8), torch.zeros(32, dtype=torch.int64))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[timing.Timed, list[tuple[str, bool, int, int]]]]:
    """Return a function that times a stage whose steps take seconds by setting, multiplied by `slowed` of the step's number."""
    clock, steps, before = SimpleNamespace(now=0.0), [], torch.get_num_threads()

    def choose(
        seconds: Mapping[tuple[str, bool], float] = SECONDS, slowed: Callable[[int], float] = lambda step: 1.0, threads: tuple[int, ...] = (2,), **options: Any
    ) -> tuple[timing.Timed, list[tuple[str, bool, int, int]]]:
        def build(state: State) -> None:
            state.modules["net"] = torch.nn.Conv2d(3, 2, 3)

        def step(state: State, images: torch.Tensor, labels: torch.Tensor, done: float) -> dict[str, torch.Tensor]:
            precision = "bf16" if torch.is_autocast_enabled("cpu") else "fp32"
            last = images.is_contiguous(memory_format=torch.channels_last) and state.modules["net"].weight.is_contiguous(memory_format=torch.channels_last)
            steps.append((precision, last, len(images), torch.get_num_threads()))
            extra = options.get("penalty", 0.0) * float(torch.rand(()) < 0.25)
            speed = 1.5 if torch.get_num_threads() == 1 and options.get("busy") else 1.0
            clock.now += (seconds[precision, last] + extra) / speed * len(images) / 32 * slowed(len(steps))
            return {"loss": torch.zeros(())}

        stage = Stage("only", build, step)
        spec = Spec(2, (3, 8, 8), (16, 16), Recipe(device="cpu"))

        def fresh() -> State:
            state = State(spec)
            stage.build(state)
            return state

        for module in (timing, turns):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
        return timing.choose(stage, fresh, BATCH, allowed=timing.CHOICES, threads=threads), steps

    yield choose
    torch.set_num_threads(before)


def test_the_fastest_setting_wins_and_says_its_rate(timed: Any) -> None:
    found, _ = timed()
    assert (found.precision, found.layout, found.threads) == ("bf16", "channels-last", 2)
    assert found.rate == pytest.approx(32.0) and len(found.rates) == 4
    assert found.rates[timing.label("fp32", "contiguous", 2)] == pytest.approx(8.0)


def test_a_later_setting_must_win_by_more_than_noise(timed: Any) -> None:
    even = dict.fromkeys(SECONDS, 1.0) | {("bf16", True): 0.97}
    found, _ = timed(even)
    assert (found.precision, found.layout) == ("fp32", "contiguous")


@pytest.mark.parametrize("best", [1.0, 2.0])
@pytest.mark.parametrize("begins", range(1, 40, 3))
def test_steps_at_a_tenth_of_the_speed_decide_nothing(timed: Any, begins: int, best: float) -> None:
    seconds = {setting: value / 30 for setting, value in (SECONDS | {("bf16", True): best, ("bf16", False): 2.5}).items()}
    found, _ = timed(seconds, slowed=lambda step: 10.0 if begins <= step < begins + 14 else 1.0)
    assert (found.precision, found.layout) == ("bf16", "channels-last")


def test_what_is_hopeless_costs_parts_of_a_batch(timed: Any) -> None:
    found, steps = timed(SECONDS | {("bf16", True): 400.0, ("bf16", False): 500.0})
    assert (found.precision, found.layout) == ("fp32", "channels-last")
    slow = [images for precision, _, images, _ in steps if precision == "bf16"]
    assert slow == [2] * 8, "two tries of a sixteenth for each, and once more"
    assert all(rate < 0.2 for name, rate in found.rates.items() if name.startswith("bf16")), "a rate is known all the same"


def test_long_steps_are_timed_as_often_as_must_be(timed: Any) -> None:
    found, steps = timed(slowed=lambda step: 1.0 + step)
    whole = [images for _, _, images, _ in steps if images == 32]
    assert len(whole) == timing.STEPS * len(found.rates), "after LONG no further turns"


def test_fewer_threads_are_tried_with_the_pair_that_won(timed: Any) -> None:
    found, steps = timed(threads=(2, 1), busy=True)
    assert (found.precision, found.layout, found.threads) == ("bf16", "channels-last", 1)
    assert {(precision, last) for precision, last, _, threads in steps if threads == 1} == {("bf16", True)}
    assert torch.get_num_threads() == 1


def test_every_setting_takes_the_same_steps_with_a_penalty(timed: Any) -> None:
    even = dict.fromkeys(SECONDS, 1.0)
    found, _ = timed(even, penalty=3.0)
    assert (found.precision, found.layout) == ("fp32", "contiguous"), "chance gives no setting fewer steps with a penalty"
    assert len(set(found.rates.values())) == 1


def test_the_steps_that_are_timed_have_as_many_penalties_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    family, penalised = registry.load("families", "gan")(), []
    plain = Recipe(family="gan", device="cpu", batch=8, width=4, latent=8)
    spec = Spec(2, (3, 16, 16), (8, 8), plain)
    state = State(Spec(2, spec.shape, spec.counts, plain.planned(**family.plan(spec))))
    (stage,) = family.stages(state.spec)
    stage.build(state)
    trial = timing._Trial(stage, state, ("fp32", "contiguous"), torch.get_num_threads(), (torch.rand(8, 3, 16, 16), torch.arange(8) % 2))
    monkeypatch.setattr(losses, "gradient_penalty", lambda logits, *images: penalised.append(1) or (logits * 0).sum())
    trial.turn()
    assert len(penalised) == timing.STEPS / PENALTY_EVERY
