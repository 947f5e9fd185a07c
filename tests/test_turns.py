"""Timings in turns: settings are compared fairly while the machine is slow for a while."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from datagen import turns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    kept = SimpleNamespace(now=0.0)
    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: kept.now))
    return kept


def test_two_turns_that_agree_are_enough() -> None:
    order: list[str] = []
    found = turns.taken([lambda: order.append("a") or 1.0, lambda: order.append("b") or 2.0])  # type: ignore[func-returns-value]
    assert found == [[1.0, 1.0], [2.0, 2.0]] and order == ["a", "b", "a", "b"]


def test_a_setting_whose_turns_differ_gets_more_and_so_do_the_others() -> None:
    slow = iter([9.0, 3.0, 1.0, 1.05, 1.0])
    steady = [0]

    def other() -> float:
        steady[0] += 1
        return 2.0

    assert turns.taken([lambda: next(slow), other]) == [[9.0, 3.0, 1.0, 1.05], [2.0] * 4]
    assert steady == [4]


def test_turns_end_where_none_agree_and_where_time_is_up(clock: SimpleNamespace) -> None:
    seen: list[float] = []

    def wild() -> float:
        seen.append(1.5 ** -len(seen))
        clock.now += 1.0
        return seen[-1]

    assert turns.taken([wild]) == [seen] and len(seen) == turns.MOST
    seen.clear()
    turns.taken([wild], long=3.5)
    assert len(seen) == 4
    seen.clear()
    turns.taken([wild], long=0)
    assert len(seen) == 1, "one turn that takes longer than there is time for is enough"


@given(some.lists(some.floats(0.001, 1000), min_size=1, max_size=6), some.floats(1, 2))
def test_no_later_one_beats_the_first_by_its_worth(seconds: list[float], worth: float) -> None:
    best = turns.first([[2 * each, each] for each in seconds], worth)
    assert all(each * worth >= seconds[best] for each in seconds[best + 1 :])
    assert best == 0 or seconds[best] * worth < seconds[0], "a later one has won by it"
