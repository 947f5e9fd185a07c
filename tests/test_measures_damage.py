"""Every damage of fresh digits is seen by the measures that must see it, and by none that is blind to it."""

from __future__ import annotations

from functools import cache

import damage
import pytest

EACH = 400


@cache
def given(kind: str, strength: int) -> object:
    return damage.context(EACH, kind, strength)


CELLS = [(name, kind, strength) for name in damage.MEASURES for kind, first in damage.MUST[name].items() for strength in range(first, 4)]
DARK = [(name, kind) for name in damage.MEASURES for kind in damage.BLIND[name]]


@pytest.mark.parametrize("name", damage.MEASURES)
def test_fresh_images_depart_from_nothing(name: str) -> None:
    assert not damage.seen(name, given("", 0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kind", "strength"), CELLS)
def test_damage_is_seen(name: str, kind: str, strength: int) -> None:
    assert damage.seen(name, given(kind, strength))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kind"), DARK)
def test_blindness_by_nature(name: str, kind: str) -> None:
    assert not damage.seen(name, given(kind, 3))  # type: ignore[arg-type]


def test_every_damage_must_be_seen_by_a_measure_and_none_is_both() -> None:
    assert {kind for kinds in damage.MUST.values() for kind in kinds} == set(damage.DAMAGES)
    assert not [name for name in damage.MEASURES if set(damage.MUST[name]) & set(damage.BLIND[name])]
    assert set(damage.MUST) == set(damage.BLIND) == set(damage.MEASURES)
