"""Checks of the input side taken away on purpose: each is missed by the test that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from strange import Strange, corpus, polyglots
from test_strange import check_one
from test_strange_outputs import check_bomb, check_merge
from test_strange_places import check_place
from test_strange_tables import WRONG, check_attack, images, table

from datagen import colour
from datagen.errors import InputError
from datagen.sources import decode, folder
from datagen.sources import table as tables
from datagen.sources.table import list_csv
from datagen.synthesis import merge

Patch = pytest.MonkeyPatch


def named(name: str) -> Strange:
    return next(each for each in corpus() if each.name == name)


def check_the_pixel_cap(tmp_path: Path) -> None:
    check_one(named("bomb webp 9,500 x 9,500.png"), tmp_path)


def check_paths_of_tables(tmp_path: Path) -> None:
    check_attack("above", tmp_path)


def check_links(tmp_path: Path) -> None:
    check_place("a link to a file outside", tmp_path)


def check_whole_files(tmp_path: Path) -> None:
    check_one(named("half zeros.jpg"), tmp_path)


def check_tiles(tmp_path: Path) -> None:
    check_bomb("tiff tile of 1 GB")


def check_tails(tmp_path: Path) -> None:
    check_merge(polyglots()[0], tmp_path)


def check_profiles(tmp_path: Path) -> None:
    check_one(named("swapped channels.png"), tmp_path)


def check_labels_of_tables(tmp_path: Path) -> None:
    content, says = WRONG["two path columns"]
    with pytest.raises(InputError, match=says):
        list_csv(table(images(tmp_path), content), None)


def no_pixel_cap(patch: Patch) -> None:
    plain = decode._decode
    patch.setattr(decode, "_decode", lambda data, max_pixels: plain(data, 1 << 62))


def no_path_check(patch: Patch) -> None:
    patch.setattr(tables._PathCheck, "__call__", lambda self, path: "")


def links_are_always_inside(patch: Patch) -> None:
    patch.setattr(folder, "inside", lambda path, root: True)


def files_are_always_whole(patch: Patch) -> None:
    patch.setattr(decode, "whole", lambda data, kind: True)


def tiles_of_any_size(patch: Patch) -> None:
    patch.setattr(colour, "_LARGEST_TILE", 1 << 62)


def tails_travel(patch: Patch) -> None:
    patch.setattr(merge, "without_tail", lambda data: data)


def profiles_are_ignored(patch: Patch) -> None:
    plain: Any = colour.to_srgb
    patch.setattr(colour, "to_srgb", lambda image, profile, notes: plain(image, None, notes))


def first_of_two_columns(patch: Patch) -> None:
    patch.setattr(tables, "_column", lambda file, header, wanted: next(i for i, name in enumerate(header) if name.casefold() in wanted))


CASES: list[tuple[Callable[[Patch], None], Callable[[Path], None]]] = [
    (no_pixel_cap, check_the_pixel_cap),
    (no_path_check, check_paths_of_tables),
    (links_are_always_inside, check_links),
    (files_are_always_whole, check_whole_files),
    (tails_travel, check_tails),
    (profiles_are_ignored, check_profiles),
    (first_of_two_columns, check_labels_of_tables),
]


@pytest.mark.parametrize("check", [check for _, check in CASES], ids=lambda check: check.__name__)
def test_our_own_code_passes_its_checks(check: Callable[[Path], None], tmp_path: Path) -> None:
    check(tmp_path)


SLOW = [pytest.param(tiles_of_any_size, check_tiles, marks=pytest.mark.slow, id="tiles_of_any_size")]


@pytest.mark.parametrize(("mutant", "check"), [*(pytest.param(*case, id=case[0].__name__) for case in CASES), *SLOW])
def test_every_fault_is_caught(mutant: Callable[[Patch], None], check: Callable[[Path], None], tmp_path: Path, monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(tmp_path)
