"""Storage: nothing is overwritten, nothing half written is ever visible, one process a folder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen import holding, storage
from datagen.errors import ArtefactError, OutputError

Operations = list[tuple[str, str]]


@pytest.fixture
def record() -> Iterator[Operations]:
    """Every operation that passes the hook."""
    seen: Operations = []
    storage.hook = lambda operation, path: seen.append((operation, path))
    yield seen
    storage.hook = None


@pytest.fixture
def fail_at() -> Iterator[Callable[[int, BaseException], None]]:
    """Return a function that makes the n-th operation from now raise an error."""

    def arm(place: int, error: BaseException) -> None:
        count = 0

        def hook(operation: str, path: str) -> None:
            nonlocal count
            count += 1
            if count == place + 1:
                raise error

        storage.hook = hook

    yield arm
    storage.hook = None


def visible(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.startswith(storage.TEMPORARY)}


def test_create_is_synced_before_it_is_named(tmp_path: Path, record: Operations) -> None:
    size, sha = storage.create(tmp_path / "a.bin", b"abc")
    assert (size, sha) == (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert [operation for operation, _ in record] == ["open", "write", "fsync", "link", "fsync-folder", "unlink"]
    assert os.listdir(tmp_path) == ["a.bin"]


def test_create_never_overwrites(tmp_path: Path) -> None:
    storage.create(tmp_path / "a", b"first")
    with pytest.raises(OutputError, match="exists already") as caught:
        storage.create(tmp_path / "a", b"second")
    assert caught.value.code == 5
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_create_without_links_claims_the_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    storage.create(tmp_path / "a", b"first")
    assert (tmp_path / "a").read_bytes() == b"first"
    with pytest.raises(OutputError):
        storage.create(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.ESTALE])
def test_a_fault_anywhere_leaves_the_whole_file_or_none(place: int, number: int, tmp_path: Path, fail_at: Callable[..., None]) -> None:
    """Row W1."""
    fail_at(place, OSError(number, os.strerror(number)))
    try:
        storage.create(tmp_path / "a", b"whole")
    except OutputError as error:
        assert error.code == 5
        assert error.where in (str(tmp_path / "a"), str(tmp_path))
        assert os.strerror(number) in error.line()
    storage.hook = None
    assert visible(tmp_path) in (set(), {"a"})
    if visible(tmp_path):
        assert (tmp_path / "a").read_bytes() == b"whole"
    storage.sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == visible(tmp_path)


class Killed(BaseException):
    """Stands in for a kill: nothing may catch it, and clean-up does not count."""


@pytest.mark.parametrize("place", range(5))
def test_a_kill_during_replace_leaves_the_old_or_the_new(place: int, tmp_path: Path, fail_at: Callable[..., None]) -> None:
    """Row W1."""
    storage.write_json(tmp_path / "a.json", {"state": "old"})
    fail_at(place, Killed())
    with pytest.raises(Killed):
        storage.write_json(tmp_path / "a.json", {"state": "new"})
    assert visible(tmp_path) == {"a.json"}
    assert storage.read_json(tmp_path / "a.json")["state"] in {"old", "new"}


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(file: object) -> None:
        raise ValueError("broken encoder")

    with pytest.raises(ValueError, match="broken encoder"):
        storage.create(tmp_path / "a", write)
    assert os.listdir(tmp_path) == []


def test_append_closes_a_line_that_a_kill_cut(tmp_path: Path) -> None:
    log = tmp_path / "progress.jsonl"
    storage.append(log, '{"a": 1}\n')
    with open(log, "ab") as file:
        file.write(b'{"a": 2, "lo')
    storage.append(log, '{"a": 3}\n')
    lines = log.read_text().splitlines()
    assert json.loads(lines[0]) == {"a": 1}
    assert json.loads(lines[-1]) == {"a": 3}
    assert len(lines) == 3


def test_make_folder_says_when_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        storage.make_folder(tmp_path / "a")
    with pytest.raises(OutputError):
        storage.make_folder(tmp_path / "a" / "b")
    assert storage.make_folder(tmp_path / "b" / "c").is_dir()


def test_rename_folder_never_replaces_a_full_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(OutputError):
        storage.rename_folder(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "file").read_text() == "b"


HOLD = "import sys, time; from datagen import holding\nwith holding.lock(sys.argv[1]):\n print('held', flush=True); time.sleep(20)"


def test_one_process_a_folder_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another datagen process") as caught, holding.lock(tmp_path):
            pass
        assert caught.value.code == 5
        other.kill()
        other.wait()
    with holding.lock(tmp_path):
        pass


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nul"])
def test_read_json_refuses_what_is_not_json(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(ArtefactError, match="cannot be read as JSON"):
        storage.read_json(tmp_path / "a.json")
    with pytest.raises(ArtefactError, match="is missing"):
        storage.read_json(tmp_path / "b.json")
    with pytest.raises(ArtefactError, match="larger than"):
        storage.read_json(Path(__file__), limit=10)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_json_keeps_every_text(value: object) -> None:
    assert json.loads(storage.to_json(value)) == value


def test_names_that_are_no_utf8_survive_json() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert os.fsencode(json.loads(storage.to_json([name]))[0]) == b"caf\xe9"


def test_free_bytes_looks_at_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    size, nodes = storage.free_bytes(tmp_path / "not" / "yet")
    assert size > 0 and nodes > 0


def test_files_that_are_thrown_away_soon_are_written_unsynced_and_never_over_others(tmp_path: Path, record: Operations) -> None:
    assert storage.write_all(tmp_path / "t", [("a/1.png", b"abc"), ("a/2.png", b""), ("b/1.png", b"d")]) == 4
    assert {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*.png")} == {"t/a/1.png": b"abc", "t/a/2.png": b"", "t/b/1.png": b"d"}
    assert not [operation for operation, _ in record if "fsync" in operation]
    with pytest.raises(OutputError) as caught:
        storage.write_all(tmp_path / "t", [("b/1.png", b"other")])
    assert caught.value.code == 5 and (tmp_path / "t/b/1.png").read_bytes() == b"d"
    storage.write_all(tmp_path / "empty", [])
    assert (tmp_path / "empty").is_dir()


def test_a_log_for_another_program_is_continued(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        with storage.opened_log(tmp_path / "x.log") as file:
            file.write(text)
    assert (tmp_path / "x.log").read_bytes() == b"onetwo"
    with pytest.raises(OutputError), storage.opened_log(tmp_path):
        pass
