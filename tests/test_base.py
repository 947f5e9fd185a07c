"""Errors on one safe line, random numbers that depend on names alone, progress and its status file."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen import machine, progress, seeds
from datagen.errors import LINE_LIMIT, DatagenError, ResourceError, Stopped, UsageError, nearest, printable
from datagen.progress import Progress, span

ANY_TEXT = st.text(st.characters(codec=None))
GOLDEN = [-0.07963811606168747, 1.1653107404708862, -0.0551646426320076, 1.3993370532989502]


@given(ANY_TEXT)
def test_printable_text_holds_nothing_that_moves_a_cursor_or_turns_text(text: str) -> None:
    safe = printable(text)
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs"} for char in safe)
    safe.encode("utf-8")


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_an_error_is_one_line_of_limited_length(what: str, where: str, hint: str) -> None:
    line = UsageError(what, where=where, hint=hint).line()
    assert len(f"error: {line}") <= LINE_LIMIT
    assert len(line.splitlines()) <= 1


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = UsageError("is wrong", where="a.png", hint="drop it")
    assert str(error) == "a.png: is wrong; drop it"
    assert isinstance(error, DatagenError)
    assert (Stopped("x").code, Stopped("x", interrupted=True).code) == (75, 130)


def test_the_nearest_name_or_all_of_them() -> None:
    assert nearest("parket", ["parquet", "folder"]) == "did you mean 'parquet'?"
    assert "composed otherwise" in nearest("cafe\u0301", ["caf\u00e9"]) and "composed" not in nearest("image", ["image", "label"])
    assert nearest("zzz", ["parquet", "folder"]) == "known: folder, parquet"


def test_streams_depend_on_their_keys_alone() -> None:
    assert np.array_equal(seeds.stream("a", 1).random(5), seeds.stream("a", 1).random(5))
    streams = [("a", 1), ("a", "1"), ("a1",), ("a", 1, ""), (b"a", 1), ("b", 1), ("a", 2), ("", "a", 1)]
    assert len({tuple(seeds.stream(*keys).random(2)) for keys in streams}) == len(streams)


def test_the_noise_of_an_image_never_changes() -> None:
    """Golden values: another version must draw the same images from the same seeds."""
    noise = seeds.image_noise(0, "猫", 3, 0, 4)
    assert noise.dtype == np.float32
    assert np.allclose(noise, GOLDEN, atol=1e-7)
    assert np.array_equal(seeds.image_noise(0, "猫", 3, 0, 2), noise[:2])
    others = [seeds.image_noise(*key, 4) for key in [(1, "猫", 3, 0), (0, "犬", 3, 0), (0, "猫", 4, 0), (0, "猫", 3, 1)]]
    assert all(not np.array_equal(noise, other) for other in others)


def test_noise_is_standard_normal() -> None:
    drawn = np.concatenate([seeds.image_noise(7, "a", index, 0, 64) for index in range(300)])
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1) < 0.03


@given(st.integers(), st.text())
def test_integers_and_fractions_are_in_range(number: int, name: str) -> None:
    assert 0 <= seeds.integer(number, name) < 2**63
    assert 0 <= seeds.fraction(number, name) < 1


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (125, "2 min 5 s"), (3660, "1 h 1 min"), (-3, "0 s")])
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_status_says_stage_and_how_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    told = Progress(tmp_path)
    with told.stage("scan", 10):
        told.advance(4, "quick\x1b[31m")
        status = json.loads((tmp_path / "status.json").read_text())
    assert (status["stage"], status["done"], status["total"], status["exit_code"]) == ("scan", 4, 10, None)
    assert status["seconds_left"] >= 0
    told.status(exit_code=0)
    assert json.loads((tmp_path / "status.json").read_text())["exit_code"] == 0
    err = capsys.readouterr().err
    assert err.startswith("scan: 40 %, ")
    assert "\x1b" not in err


def test_the_time_left_is_told_when_the_beginning_weighs_little(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    told = Progress()
    with told.stage("train", 1000):
        told.advance(1, "loss 2")
        told.advance(9, "loss 1")
    with told.stage("read", 0):
        told.advance(3)
    first, second, unknown = capsys.readouterr().err.splitlines()
    assert (first, unknown) == ("train: 0 %, loss 2", "read: 3")
    assert second.startswith("train: 1 %, ") and second.endswith(" left, loss 1")


def test_quiet_says_warnings_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = Progress(quiet=True)
    told.say("hello")
    told.warn("look\nout")
    assert capsys.readouterr().err == "warning: look\nout\n"


def test_another_folder_is_not_ours_until_it_was_written(tmp_path: Path) -> None:
    told = Progress(tmp_path, quiet=True)
    with told.stage("a", 1):
        pass
    assert told.started
    (tmp_path / "other").mkdir()
    told.folder = tmp_path / "other"
    told.status(exit_code=5)
    assert not list((tmp_path / "other").iterdir())


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.device("cpu") == "cpu"
    assert machine.processors() >= 1
    monkeypatch.setattr(machine, "DRIVERS", ())
    with pytest.raises(ResourceError, match="--device auto"):
        machine.device("cuda")
