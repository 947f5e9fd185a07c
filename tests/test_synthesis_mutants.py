"""Row W4: each step of the protocol is dropped, one at a time, and the checks of the other rows must notice."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dying import Dying
from sweeps import KILL, Fault, Late, Sweep, Unsynced, hooked, small

from datagen import holding, places, storage
from datagen.errors import DatagenError, OutputError, ResourceError
from datagen.reading import verify
from datagen.reading.manifest import MANIFEST
from datagen.records import Recipe, ShardTask
from datagen.synthesis import commit
from datagen.synthesis.engines import local
from datagen.synthesis.heartbeat import listening
from datagen.synthesis.run import synthesize

Patch = pytest.MonkeyPatch


def fresh(path: Path) -> Any:
    """Open a new file as storage does, where it is recorded."""
    return vars(storage).get("open", open)(path, "xb")


# The checks: each returns what is wrong, nothing where the protocol is whole.


def killed(sweep: Sweep) -> list[str]:
    """W1: kills at every third operation."""
    return sweep.faults((KILL,), step=3)


def power_after_exit_0(sweep: Sweep) -> list[str]:
    """W2."""
    return sweep.done_then_power()


def killed_then_power(sweep: Sweep) -> list[str]:
    """W2: kills before each fsync of a folder, then a run to the end, then the power goes."""
    return sweep.done_then_power([2, *sweep.places("fsync-folder")])


def rot_before_the_next_run(sweep: Sweep) -> list[str]:
    """W8: a committed shard of an unfinished set rots; the same command must make it anew."""
    out = sweep.place()
    small(sweep.rule, out, sweep.format)
    (out / MANIFEST).unlink()
    rot(sorted((out / "data").rglob("*.*"))[0])
    return sweep.again(out, "rot")


def rot(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


def rot_is_named(sweep: Sweep) -> list[str]:
    """W8: by verify."""
    out = sweep.place()
    small(sweep.rule, out, sweep.format)
    rot(victim := sorted((out / "data").rglob("*.*"))[0])
    return [] if any(victim.name in problem for problem in verify.verify(out)) else [f"{victim.name} was not named"]


def second_fsync(sweep: Sweep) -> list[str]:
    """W5."""
    found = []
    for at, times in ((1, 1), (4, 1), (4, 2)):
        fault = Unsynced(at, times, folders=False)
        ended = sweep.broken(sweep.place(), fault)
        found += fault.again + [f"ended with {ended}"] * (ended != ("done" if times == 1 else "5"))
    return found


def lost_replies(sweep: Sweep) -> list[str]:
    """W12."""
    found = []
    for name in ("link", "replace"):
        with Patch.context() as patch:
            Late(patch, name, 5, 2)
            ended = sweep.broken(sweep.place(), Fault(1 << 60))
            found += [f"{name}: ended with {ended}"] * (ended != "done")
    return found


def second_writer(sweep: Sweep) -> list[str]:
    """W7: the same command in the middle of a run must be refused."""
    out, codes = sweep.place(), []

    def hook(operation: str, path: str) -> None:
        if path.endswith("00000.json") and operation == "link":
            storage.hook = None
            try:
                small(sweep.rule, out, sweep.format)
                codes.append(0)
            except DatagenError as error:
                codes.append(error.code)

    with hooked(hook), contextlib.suppress(OutputError):
        small(sweep.rule, out, sweep.format)
    return [] if codes == [5] else [f"a second writer ended with {codes}"]


def another_plan(sweep: Sweep) -> list[str]:
    """W7: a folder that was begun by another command."""
    out = sweep.place()
    small(sweep.rule, out, sweep.format)
    try:
        synthesize(sweep.rule, out, per_class=2, shard_images=4, workers=1, format=sweep.format, seed=1)
    except DatagenError:
        return []
    return ["another plan was taken"]


def nothing_is_overwritten(sweep: Sweep) -> list[str]:
    """W7: with a broken lock the first plan stands."""
    path = storage.make_folder(sweep.place()) / "plan"
    storage.create(path, b"first")
    with contextlib.suppress(OutputError):
        storage.create(path, b"second")
    return [] if path.read_bytes() == b"first" else ["it was overwritten"]


def deaths_end(sweep: Sweep) -> list[str]:
    """W6: the third death at a shard is exit 6."""
    make = Dying(str(storage.make_folder(sweep.place())), "oom", (1,), times=4)
    with contextlib.suppress(ResourceError):
        list(local.Local().run([ShardTask(i, f"{i}", ((0, 0, 8),)) for i in range(3)], make, Recipe(workers=2)))
    return [] if len(make.attempts(1)) == 3 else [f"{len(make.attempts(1))} attempts"]


def hangs_end(sweep: Sweep) -> list[str]:
    """W6: a worker that hangs is replaced."""
    make, until = Dying(str(storage.make_folder(sweep.place())), "hang", (1,)), time.monotonic() + 8

    def listen(images: int, spent: object) -> None:
        if time.monotonic() > until:
            raise OutputError("nobody saw that it hangs")

    with Patch.context() as patch, listening(listen):
        patch.setattr(local, "LATE", 0.3)
        try:
            list(local.Local().run([ShardTask(i, f"{i}", ((0, 0, 8),)) for i in range(3)], make, Recipe(workers=2)))
        except OutputError as error:
            return [error.what]
    return []


# The mutants: each drops one step.


def no_fsync(patch: Patch) -> None:
    def written(path: Path, write: Callable[[Any], None]) -> tuple[int, str]:
        with fresh(path) as file:
            write(file)
            file.flush()
            size = file.tell()
        return size, storage.hash_file(path)

    patch.setattr(storage, "_write_synced", written)


def no_folder_fsync(patch: Patch) -> None:
    patch.setattr(storage, "sync_folder", lambda path: None)


def no_fsync_of_what_a_killed_run_left(patch: Patch) -> None:
    whole = commit.finish

    def finish(out: Path, *given: Any) -> Any:
        with Patch.context() as inner:
            inner.setattr(places, "storage", Without(sync_folder=lambda path: None))
            return whole(out, *given)

    patch.setattr(commit, "finish", finish)


class Without:
    """Storage with some functions changed, for one module alone."""

    def __init__(self, **changed: Any) -> None:
        self.__dict__.update(vars(storage) | changed)


def no_fsync_of_new_folders_above(patch: Patch) -> None:
    whole = storage.make_folder
    patch.setattr(storage, "make_folder", lambda path, durable=True: whole(path, durable=False))
    patch.setattr(places, "_above", lambda folder: [folder.parent])


def no_temporary_name(patch: Patch) -> None:
    def create(path: Path, content: Any, again: bool = False) -> tuple[int, str]:
        with open(path, "wb") as file:
            storage.before("write", path)
            storage._writer(content)(file)
            file.flush()
            storage.before("fsync", path)
            os.fsync(file.fileno())
        storage.sync_folder(path.parent)
        return path.stat().st_size, storage.hash_file(path)

    patch.setattr(storage, "create", create)


def rename_in_place_of_link(patch: Patch) -> None:
    patch.setattr(storage, "_link", lambda temporary, path, sha: os.replace(temporary, path))


def note_before_shard(patch: Patch) -> None:
    whole, later = storage.create, []

    def create(path: Path, content: Any, again: bool = False) -> tuple[int, str]:
        if "/notes/" not in str(path) and path.suffix in {".parquet", ".tar"}:
            side = path.with_name(f".tmp-side{len(later)}")
            found = whole(side, content)
            later.append((path, side.read_bytes()))
            side.unlink()
            return found
        found = whole(path, content, again=again)
        while "/notes/" in str(path) and later:
            whole(*later.pop(), again=True)
        return found

    patch.setattr(storage, "create", create)


def manifest_before_the_rest(patch: Patch) -> None:
    whole = commit.finish

    def finish(out: Path, *given: Any) -> Any:
        held: list[Any] = []
        real = storage.create

        def create(path: Path, content: Any, again: bool = False) -> tuple[int, str]:
            if path.name == MANIFEST:
                found = real(path, content, again=again)
                for each in held:
                    real(*each, again=True)
                return found
            held.append((path, content))
            return 0, storage.hashlib.sha256(content).hexdigest()

        with Patch.context() as inner:
            inner.setattr(places, "storage", Without(create=create))
            return whole(out, *given)

    patch.setattr(commit, "finish", finish)


def no_hash_check_when_continuing(patch: Patch) -> None:
    patch.setattr(commit, "damage", lambda out, format, note: [] if (out.folder / note.file).exists() else ["missing"])


def no_hash_check_of_what_is_there(patch: Patch) -> None:
    patch.setattr(storage, "_settled", lambda temporary, path, sha: os.path.lexists(path))


def no_hash_check_in_verify(patch: Patch) -> None:
    patch.setattr(verify, "_differs", lambda path, sha256, root: "" if path.is_file() else "is missing")


def no_sweep(patch: Patch) -> None:
    patch.setattr(storage, "sweep", lambda folder: 0)


def no_lock(patch: Patch) -> None:
    @contextlib.contextmanager
    def lock(folder: Path, name: str = ".lock", *, wait: float = 0.0) -> Iterator[None]:
        yield

    patch.setattr(holding, "lock", lock)


def no_look_at_the_plan(patch: Patch) -> None:
    patch.setattr(commit, "_same", lambda out, old, new: None)


def fsync_tried_again(patch: Patch) -> None:
    def written(path: Path, write: Callable[[Any], None]) -> tuple[int, str]:
        with fresh(path) as file:
            write(file)
            file.flush()
            for last in (False, True):
                try:
                    storage.before("fsync", path)
                    os.fsync(file.fileno())
                    break
                except OSError:
                    if last:
                        raise
            size = file.tell()
        return size, storage.hash_file(path)

    patch.setattr(storage, "_write_synced", written)


def fsync_given_up(patch: Patch) -> None:
    whole = storage.before

    def before(operation: str, path: object) -> None:
        with contextlib.suppress(OSError) if operation == "fsync" else contextlib.nullcontext():
            whole(operation, path)

    patch.setattr(storage, "before", before)


def errors_are_believed(patch: Patch) -> None:
    patch.setattr(storage, "_rename", lambda temporary, path, sha: os.replace(temporary, path))
    patch.setattr(storage, "_link", lambda temporary, path, sha: os.link(temporary, path))


def no_cap_of_deaths(patch: Patch) -> None:
    patch.setattr(local, "DEATHS", 1 << 30)


def no_heartbeat(patch: Patch) -> None:
    patch.setattr(local.Crew, "_late", lambda crew, passed: [])


MUTANTS: list[tuple[Callable[[Patch], None], Callable[[Sweep], list[str]]]] = [
    (no_fsync, power_after_exit_0),
    (no_folder_fsync, power_after_exit_0),
    (no_fsync_of_new_folders_above, power_after_exit_0),
    (no_fsync_of_what_a_killed_run_left, killed_then_power),
    (no_temporary_name, killed),
    (rename_in_place_of_link, nothing_is_overwritten),
    (note_before_shard, killed),
    (manifest_before_the_rest, killed),
    (no_hash_check_when_continuing, rot_before_the_next_run),
    (no_hash_check_of_what_is_there, rot_before_the_next_run),
    (no_hash_check_in_verify, rot_is_named),
    (no_sweep, killed),
    (no_lock, second_writer),
    (no_look_at_the_plan, another_plan),
    (fsync_tried_again, second_fsync),
    (fsync_given_up, second_fsync),
    (errors_are_believed, lost_replies),
    (no_cap_of_deaths, deaths_end),
    (no_heartbeat, hangs_end),
]
QUICK = {power_after_exit_0, rot_before_the_next_run, second_writer, second_fsync}
CASES = [pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] not in QUICK), id=pair[0].__name__) for pair in MUTANTS]
CHECKS = list(dict.fromkeys(check for _, check in MUTANTS))


@pytest.mark.parametrize(("mutant", "check"), CASES)
def test_a_dropped_step_is_noticed(tmp_path: Path, monkeypatch: Patch, mutant: Callable[[Patch], None], check: Callable[[Sweep], list[str]]) -> None:
    """Row W4: a mutant that lives is a hole in the tests."""
    sweep = Sweep(tmp_path, "parquet")
    mutant(monkeypatch)
    assert check(sweep) != []


@pytest.mark.parametrize("check", [pytest.param(check, marks=[pytest.mark.slow] * (check not in QUICK), id=check.__name__) for check in CHECKS])
def test_the_whole_protocol_passes_every_check(tmp_path: Path, check: Callable[[Sweep], list[str]]) -> None:
    """Row W4: so that it is the mutant that is noticed."""
    assert check(Sweep(tmp_path, "parquet")) == []
