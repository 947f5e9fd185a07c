"""A fit is never lost: whatever fails, is cut, flipped or stopped, the same weights come out in the end."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mine
import numpy as np
import pytest
import torch

from datagen import holding, storage
from datagen.contracts import Spec, State
from datagen.errors import OutputError, Stopped
from datagen.progress import Progress
from datagen.records import Recipe
from datagen.training import checkpoint, loop
from datagen.training.batches import Batches
from datagen.training.run import stopping
from datagen.training.watch import Watch

BATCH, STEPS, EVERY = 8, 12, 3
FAULTS = [OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.EINTR)]


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def job(folder: Path, steps: int = STEPS, threads: int = 1) -> loop.Job:
    """Return a fit of a tiny family on made images, checkpoints every few steps."""
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text('{"settings": {"family": "mine"}, "origins": {}, "totals": [96], "sentences": []}')
    rng, family = np.random.default_rng(0), mine.Mine()
    pixels, labels = rng.integers(0, 256, (40, 6, 6, 1), dtype=np.uint8), np.arange(40) % 4
    recipe = Recipe(device="cpu", batch=BATCH, learning_rate=0.05, precision="fp32", layout="contiguous", images=BATCH * steps)
    spec = Spec(4, (1, 6, 6), (10,) * 4, recipe.planned(checkpoint_every=EVERY * BATCH, grid_every=10**9, half_life=64, threads=threads))
    watch = Watch(folder, Progress(quiet=True), tuple("abcd"))
    watch._board = False
    batches = Batches(pixels, labels, np.arange(40), balanced=True, seed=0)
    return loop.Job(family, family.stages(spec), [BATCH * steps], State(spec), batches, folder, "cpu", watch)


def weights(done: loop.Job) -> bytes:
    return checkpoint.pack(checkpoint.named("", done.state.modules))


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    whole = job(tmp_path_factory.mktemp("golden"))
    loop.train(whole)
    return weights(whole)


@pytest.fixture(autouse=True)
def _no_hook() -> Iterator[None]:
    yield
    storage.hook = None


def fail(place: int, error: BaseException, times: int = 1) -> None:
    """Make the storage operations from the n-th on raise an error, so many of them."""
    count = [0]

    def hook(operation: str, path: str) -> None:
        count[0] += 1
        if place < count[0] <= place + times:
            raise error

    storage.hook = hook


def operations(folder: Path) -> int:
    seen: list[str] = []
    storage.hook = lambda operation, path: seen.append(operation)
    loop.train(job(folder))
    storage.hook = None
    return len(seen)


def again(folder: Path) -> bytes:
    """Give the same command again: a fresh job on what lies in the folder."""
    storage.hook = None
    storage.sweep(folder)
    found = job(folder)
    loop.train(found)
    return weights(found)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_operation_loses_nothing(tmp_path: Path, golden: bytes, every: int) -> None:
    """Rows R1 and R3."""
    places = operations(tmp_path / "count")
    assert places > 60
    for place in range(0, places, every):
        run = tmp_path / str(place)
        fail(place, Killed())
        with pytest.raises(Killed):
            loop.train(job(run))
        assert again(run) == golden, f"killed at operation {place}"
        shutil.rmtree(run)


@pytest.mark.parametrize("every", [31, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda error: errno.errorcode[error.errno])
def test_a_fault_at_any_operation_leaves_a_checkpoint_that_loads(tmp_path: Path, golden: bytes, fault: OSError, every: int) -> None:
    """Row R3: a save that fails twice ends with exit 5, one that fails once is done again."""
    places = operations(tmp_path / "count")
    for place in range(FAULTS.index(fault) % every, places, every):
        for times in (1, 10**9):
            run = tmp_path / f"{place} {times}"
            fail(place, fault, times)
            try:
                done = job(run)
                loop.train(done)
                assert times == 1 and weights(done) == golden
            except OutputError as error:
                assert error.code == 5
            storage.hook = None
            assert again(run) == golden, f"{fault} at operation {place}"
            shutil.rmtree(run)


def test_a_full_disk_makes_older_checkpoints_give_way(tmp_path: Path, golden: bytes) -> None:
    kept: list[int] = []

    def hook(operation: str, path: str) -> None:
        there = len(checkpoint.candidates(tmp_path / "run" / "checkpoints"))
        if operation == "write" and "checkpoints" in path and there >= 2:
            kept.append(there)
            raise OSError(errno.ENOSPC, "No space left on device")

    storage.hook = hook
    done = job(tmp_path / "run")
    loop.train(done)
    assert kept and weights(done) == golden


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_signal_ends_the_step_and_saves_a_second_one_ends_at_once(tmp_path: Path, golden: bytes, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R2: SIGTERM and Ctrl-C at random steps; after the first the step is whole and saved, after the second the last save is good."""
    rng, plain = random.Random(times), loop._one_step
    for number in range(times):
        place, kind, twice = BATCH * rng.randrange(STEPS - 1), rng.choice([signal.SIGTERM, signal.SIGINT]), number % 3 == 2

        def one_step(job: loop.Job, index: int, images: int, place: int = place, kind: int = kind, twice: bool = twice) -> None:
            for _ in range(1 + twice if images == place else 0):
                os.kill(os.getpid(), kind)
            plain(job, index, images)

        monkeypatch.setattr(loop, "_one_step", one_step)
        began, folder = time.monotonic(), tmp_path / str(number)
        with pytest.raises(Stopped) as stopped, stopping() as stop:
            broken = job(folder)
            broken.stop = stop
            with stop.gentle():
                loop.train(broken)
        assert stopped.value.code == (130 if kind == signal.SIGINT else 75)
        assert time.monotonic() - began < 10
        saved = [int(path.name) for path in checkpoint.candidates(folder / "checkpoints")]
        assert saved[:1] == [place + BATCH] if not twice else all(images <= place for images in saved)
        monkeypatch.setattr(loop, "_one_step", plain)
        assert again(folder) == golden


@pytest.mark.parametrize("stop_at", range(1, STEPS + 1))
def test_stopped_at_any_step_it_continues_bit_for_bit(tmp_path: Path, golden: bytes, stop_at: int) -> None:
    """Row R8."""
    count, first = [0], job(tmp_path)

    def stop() -> bool:
        count[0] += 1
        return count[0] == stop_at

    first.stop = stop
    if stop_at < STEPS:
        with pytest.raises(Stopped) as error:
            loop.train(first)
        assert error.value.code == 75
    else:
        loop.train(first)
    assert again(tmp_path) == golden


@pytest.mark.parametrize("damages", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, golden: bytes, damages: int) -> None:
    """Row R4."""
    loop.train(job(tmp_path / "whole"))
    rng = random.Random(0)
    for turn in range(damages):
        run = tmp_path / "run"
        shutil.copytree(tmp_path / "whole", run)
        newest, older = checkpoint.candidates(run / "checkpoints")
        file = rng.choice(sorted(newest.iterdir()))
        raw = bytearray(file.read_bytes())
        if rng.random() < 0.5:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        else:
            del raw[rng.randrange(len(raw)) :]
        file.write_bytes(raw)
        said: list[str] = []
        found = checkpoint.newest(run / "checkpoints", said.append)
        assert found is not None
        if file.name != "card.json":
            assert found[0]["total_images"] == int(older.name) and "damaged" in said[0], (turn, file.name)
        assert again(run) == golden, (turn, file.name)
        shutil.rmtree(run)


def test_the_clock_may_jump(tmp_path: Path, golden: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R10: files are named by images, and what is timed is timed by a clock that only runs forwards."""
    jumps = iter([86_400.0, -86_400.0, 3_600.0, -7_200.0] * 1000)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + next(jumps))
    assert again(tmp_path) == golden
    assert [path.name for path in checkpoint.candidates(tmp_path / "checkpoints")] == [f"{BATCH * n:012d}" for n in (STEPS, STEPS - EVERY)]


def test_other_threads_continue_to_nearly_the_same(tmp_path: Path, golden: bytes) -> None:
    """Row R11."""
    first, count = job(tmp_path), [0]

    def stop() -> bool:
        count[0] += 1
        return count[0] == STEPS // 2

    first.stop = stop
    with pytest.raises(Stopped):
        loop.train(first)
    second = job(tmp_path, threads=2)
    loop.train(second)
    torch.set_num_threads(1)
    whole = job(tmp_path / "whole")
    loop.train(whole)
    one, two = (next(iter(each.state.modules["painter"].state_dict().values())) for each in (second, whole))
    assert torch.allclose(one, two, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("races", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_of_two_fits_in_one_folder_one_wins(tmp_path: Path, races: int) -> None:
    """Row R6."""
    for race in range(races):
        folder, begun, refused = storage.make_folder(tmp_path / str(race)), threading.Barrier(2), threading.Event()

        def enter(folder: Path = folder, begun: threading.Barrier = begun, refused: threading.Event = refused) -> str | int:
            begun.wait()
            try:
                with holding.lock(folder):
                    return "won" if refused.wait(60) else "alone"  # held until the other was sent away, however slow it is
            except OutputError as error:
                refused.set()
                return error.code

        with ThreadPoolExecutor(2) as pool:
            ends = [each.result() for each in [pool.submit(enter) for _ in range(2)]]
        assert sorted(ends, key=str) == [5, "won"]


@pytest.mark.slow
def test_ten_thousand_steps_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    """Row R9."""

    def use() -> tuple[int, int, int]:
        held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        return held, len(os.listdir("/proc/self/fd")), threading.active_count()

    first = job(tmp_path / "warm", steps=1000)
    first.state.spec.recipe.__dict__["checkpoint_every"] = 10**9
    loop.train(first)
    before = use()
    long = job(tmp_path / "long", steps=10_000)
    long.state.spec.recipe.__dict__["checkpoint_every"] = 500 * BATCH
    loop.train(long)
    after = use()
    assert after[0] - before[0] < 10 * (1 << 20), "less than a megabyte in a thousand steps"
    assert after[1] <= before[1] + 1 and after[2] <= before[2]
