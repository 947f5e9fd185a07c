"""Readers beside a writer, over processes and workers, stopped, killed and moved: each record once, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checker
import pytest
import synthetic
import torch
from torch.utils.data import DataLoader

import datagen
from datagen import storage
from datagen.errors import ArtefactError, DatagenError, UsageError
from datagen.reading.manifest import open_set
from datagen.reading.shards import ShardDataset, Share, load
from datagen.synthesis import stream
from datagen.synthesis.run import synthesize

HARMS = ("missing", "damaged")
HERE = Path(__file__).parent
FORMATS = ("parquet", "webdataset", "folder")
ONE_QUICK = ("parquet", *(pytest.param(format, marks=pytest.mark.slow) for format in FORMATS[1:]))
"""all formats in the slow tier"""
CLASSES = tuple(f"c{i:02d}" for i in range(20))
EACH = 20


def make(folder: Path, shards: int, out: str = "set", format: str = "parquet") -> Path:
    """Make 400 images of twenty classes in so many shards."""
    value = synthesize(synthetic.rule(folder, CLASSES), folder / out, per_class=EACH, shard_images=-(-400 // shards), workers=1, format=format)
    assert value["shards"] == shards
    return folder / out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of seven shards in each format."""
    root = tmp_path_factory.mktemp("made")
    for format in FORMATS:
        make(root, 7, format, format)
    return root


def tried(path: Path, partial: bool) -> Any:
    """Open a set; returns it, or the code of the error."""
    try:
        return open_set(path, allow_partial=partial)
    except DatagenError as error:
        return error.code


@pytest.mark.parametrize("opens", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("format", ONE_QUICK)
def test_read_while_it_is_written(tmp_path: Path, format: str, opens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row M1: refused, or with `allow_partial` what is committed and whole, fixed at opening."""
    turn, seen, before = threading.Semaphore(0), Counter[str](), 0
    watched = ("/notes/", "classes.json", "README.md", "manifest.json", "plan.json")
    monkeypatch.setattr(storage, "hook", lambda kind, path: turn.acquire(timeout=60) if kind == "link" and any(w in path for w in watched) else None)
    writer = threading.Thread(target=make, args=(tmp_path, 20, "set", format))
    writer.start()
    while writer.is_alive():
        whole, part = (tried(tmp_path / "set", partial) for partial in (False, True))
        assert whole == 4 or whole.manifest is not None
        seen["opens"] += 1
        if part != 4:
            seen["partial" if part.manifest is None else "whole"] += 1
            assert checker.uncommitted(tmp_path / "set") == []
            assert before <= part.images <= 400
            before = part.images
            if part.notes and seen["opens"] % 20 == 0:
                data = ShardDataset(tmp_path / "set", allow_partial=True)
                assert part.images <= len(data) == len(data.labels) == sum(1 for _, label in data if 0 <= label < 20)
        if seen["opens"] % (opens // 20) == 0:
            turn.release()
    writer.join()
    assert seen["partial"] > opens / 2
    assert seen["opens"] >= opens
    assert tried(tmp_path / "set", partial=False).images == 400


@pytest.mark.parametrize(
    ("format", "harm"), [("parquet", "missing"), ("folder", "damaged"), *(pytest.param(f, h, marks=pytest.mark.slow) for f in FORMATS for h in HARMS)]
)
def test_a_bad_shard_is_refused_or_left_out(made: Path, tmp_path: Path, format: str, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row M2: 4, or with `on_bad="skip"` the images of each class that are left out."""
    out = tmp_path / "set"
    shutil.copytree(made / format, out)
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))
    notes = open_set(out).notes
    for note in (notes[1], notes[4]):
        path = out / note.file if format != "folder" else next((out / "data/train" / next(iter(note.rows))).iterdir())
        if harm == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtefactError) as caught:
        data = ShardDataset(out)
        [data[row] for row in range(len(data))]
    assert caught.value.code == 4
    with pytest.warns(UserWarning, match="are left out"):
        data = ShardDataset(out, on_bad="skip")
    whole = [note for note in notes if not set(note.rows) & set(data.skipped) or note not in (notes[1], notes[4])]
    left, gone = Counter[str](), Counter(data.skipped)
    for _, label in data:
        left[data.classes[label]] += 1
    assert left + gone == Counter(dict.fromkeys(CLASSES, EACH))
    assert sum(gone.values()) >= min(note.accepted for note in notes)
    assert len(whole) < len(notes)
    assert ShardDataset(made / format, on_bad="skip").skipped == {}
    with pytest.raises(UsageError, match="did you mean 'skip'"):
        ShardDataset(out, on_bad="skp")
    for note in notes:
        (out / note.file).unlink(missing_ok=True)
    with pytest.raises(ArtefactError, match="no shard that is whole"):
        ShardDataset(out, on_bad="skip")


class Numbers:
    """A dataset whose images are their numbers."""

    classes = ("a",)

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[int, int]:
        assert 0 <= row < self.count
        return row, 0


def loaded(share: Any, workers: int, batch: int = 7) -> list[Any]:
    """Return what a DataLoader's workers would ask for, each its batches in turn."""
    batches = [range(first, min(first + batch, len(share))) for first in range(0, len(share), batch)]
    parts = [batches] if workers == 0 else [batches[worker::workers] for worker in range(workers)]
    return [share[place][0] for part in parts for places in part for place in places]


@pytest.mark.parametrize("equal", [False, True])
def test_over_processes_and_workers_each_record_comes_once(equal: bool) -> None:
    """Row M3: ranks 1 to 8 x workers 0 to 4 x 20 sets of other numbers, all 800; `equal` pads less than ranks, and says so."""
    for ranks in range(1, 9):
        for workers in range(5):
            for shards in range(1, 21):
                data: Any = Numbers(shards * 13 + shards % 5)
                parts = [loaded(Share(data, rank, ranks, equal), workers) for rank in range(ranks)]
                seen = Counter(row for part in parts for row in part)
                padded = Share(data, 0, ranks, equal).padded
                assert set(seen) == set(range(len(data)))
                assert sum(seen.values()) == len(data) + padded
                assert padded <= (ranks - 1 if equal else 0)
                assert not equal or len({len(part) for part in parts}) == 1


@pytest.mark.parametrize("shards", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 21) if n != 3)])
def test_sets_over_processes_and_workers(tmp_path: Path, shards: int) -> None:
    """Row M3: a true set and a true DataLoader."""
    data = ShardDataset(make(tmp_path, shards))
    for workers in (0, 2) if shards % 5 == 3 else (0,):
        seen = []
        for rank in range(3):
            loader = DataLoader(data.share(rank, 3, equal=True), batch_size=16, num_workers=workers)
            seen += [image.numpy().tobytes() for images, _ in loader for image in images]
        assert (len(seen), len(set(seen))) == (402, 400)
    with pytest.raises(UsageError, match="process 3 of 3"):
        data.share(3, 3)
    with pytest.raises(IndexError):
        data.share(0, 3)[134]


def test_a_stream_over_processes_and_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row M3: fresh images, none twice, as many as asked for; workers 0 to 4."""
    monkeypatch.setattr(stream.StreamDataset, "_painted", lambda self, tile: (((tile, i), 0) for i in range(64)))
    for ranks in range(1, 9):
        for workers in range(5):
            seen: list[Any] = []
            for rank in range(ranks):
                source = datagen.StreamDataset("rule:shapes", per_epoch=1000 + ranks, rank=rank, shares=ranks)
                for id in range(max(1, workers)):
                    monkeypatch.setattr(stream, "get_worker_info", lambda id=id, n=workers: SimpleNamespace(id=id, num_workers=n) if n else None)
                    seen += [image for image, _ in source]
            assert len(seen) == len(set(seen)) == 1000 + ranks


@pytest.mark.parametrize("positions", [10, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_it_goes_on_at_the_next_record(made: Path, positions: int) -> None:
    """Row M4: start, middle, end; the state loaded twice; another number of workers."""
    rng = random.Random(4)
    source = ShardDataset(made / "parquet", rotate=True, per_epoch=90, seed=2)
    for turn in range(positions):
        epoch = rng.randrange(6)
        seen = {0: 0, 1: 90, 2: 45}.get(turn, rng.randrange(91))
        source.set_epoch(epoch)
        order = [source[place][0].numpy().tobytes() for place in range(90)]
        state = json.loads(json.dumps(source.state_dict(seen=seen)))
        again = ShardDataset(made / "parquet", rotate=True, per_epoch=90, seed=2)
        for _ in range(1 + turn % 2):
            again.load_state_dict(state)
        assert len(again) == 90 - seen
        if turn % 20 == 3:
            loader = DataLoader(again, batch_size=8, num_workers=1 + turn // 20 % 4)
            rest = [image.numpy().tobytes() for images, _ in loader for image in images]
        else:
            rest = [again[place][0].numpy().tobytes() for place in range(len(again))]
        assert rest == order[seen:], (epoch, seen)
        later = again.state_dict(seen=0)
        assert later == state, "a state of what was loaded is the same"


def test_where_the_order_is_the_samplers_no_state_is_claimed(made: Path) -> None:
    """Row M4: without `rotate` a position cannot be gone on from, and is not silently lost."""
    data = ShardDataset(made / "parquet")
    data.load_state_dict(data.state_dict())
    for ask in (lambda: data.state_dict(seen=5), lambda: data.load_state_dict({"epoch": 0, "seen": 5})):
        with pytest.raises(UsageError, match="sampler"):
            ask()


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_reader_leaves_nothing(made: Path, tmp_path: Path, kills: int) -> None:
    """Row M5: the next one opens within two seconds, and no shared memory, held lock or temporary file is left.

    Of torch's own, a worker leaves what it had just made when it was killed and not yet unlinked, about once in a hundred kills;
    and one whose reader is killed before it has looked who that is waits for ever, so that all are killed in the end.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    shared = orphans()
    command = [sys.executable, str(HERE / "reader.py"), str(made), str(tmp_path), str(kills)]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:  # orphans would hold pipes open
        done = subprocess.run(command, env=environment, stdout=said, stderr=errors, check=False, timeout=240)
        texts = [file.seek(0) or file.read() for file in (said, errors)]
    assert done.returncode == 0, texts[1]
    told = json.loads(texts[0])
    assert told["in time"] > kills / 4
    assert sorted(told["seconds"])[len(told["seconds"]) // 2] < 2, "the middle one: a busy machine may make single ones wait"
    assert checker.left_over(tmp_path) == []
    try:
        until = time.monotonic() + 30
        while orphans() - shared and time.monotonic() < until:
            time.sleep(0.2)
        assert len(orphans() - shared) <= max(1, kills // 10)
    finally:
        for group in told["groups"]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        for name in orphans() - shared:
            (Path("/dev/shm") / name).unlink(missing_ok=True)


def orphans() -> set[str]:
    """Return shared memory of torch whose process is no more."""
    found = [(name, name.split("_")[1]) for name in os.listdir("/dev/shm") if name.startswith("torch_")]
    return {name for name, process in found if not Path(f"/proc/{process}").exists()}


def moved(made: Path, to: Path) -> Path:
    shutil.copytree(made, to / "first")
    shutil.move(to / "first", to / "moved")
    return to / "moved"


def copied(made: Path, to: Path) -> Path:
    return Path(shutil.copytree(made, to / "copied"))


def renamed(made: Path, to: Path) -> Path:
    return copied(made, to).rename(to / "ümlaut und Leerzeichen 猫")


def linked(made: Path, to: Path) -> Path:
    (to / "link").symlink_to(copied(made, to))
    return to / "link"


def deep(made: Path, to: Path) -> Path:
    return Path(shutil.copytree(made, to.joinpath(*["deep" * 10] * 8)))


@pytest.mark.parametrize("format", ONE_QUICK)
@pytest.mark.parametrize("place", [moved, copied, renamed, linked, deep], ids=lambda place: place.__name__)
def test_a_set_is_the_same_wherever_it_lies(made: Path, tmp_path: Path, format: str, place: Callable[[Path, Path], Path]) -> None:
    """Row M7: five places, the same ID, every byte verified, the same images; names relative, and distinct on disks that are blind to case."""
    found = place(made / format, tmp_path)
    first, second = (datagen.describe(path, verify=True) for path in (made / format, found))
    assert first["id"] == second["id"] and first["production"] == second["production"]
    one, two = load(made / format), load(found)
    assert (one.images == two.images).all() and one.names == two.names
    assert len(ShardDataset(found)) == 400
    said = (found / "manifest.json").read_text()
    assert str(made) not in said and str(tmp_path) not in said
    names = [path.relative_to(found).as_posix() for path in found.rglob("*")]
    assert len({name.casefold() for name in names}) == len(names)


def held(dataset: Any, start: Any, told: Any) -> None:
    """Read an epoch in a process of its own and tell by how many bytes that made it larger."""
    torch.set_num_threads(1)
    before = private()
    start.wait()
    for place in range(len(dataset)):
        dataset[place]
    told.put(private() - before)


def private() -> int:
    """Return the bytes of memory that are this process's alone."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_sixteen_readers_take_little_memory(tmp_path: Path, context: str) -> None:
    """Row M8: 50 MB each at most, by fork and by spawn, over an epoch of 10,000 images; what travels to them is arrays."""
    synthesize(synthetic.rule(tmp_path, CLASSES), tmp_path / "set", per_class=500, workers=2)
    data = ShardDataset(tmp_path / "set")
    assert len(pickle.dumps(data)) < 40 * len(data) + 5_000
    processes = torch.multiprocessing.get_context(context)
    start, told = processes.Event(), processes.Queue()
    readers = [processes.Process(target=held, args=(data, start, told)) for _ in range(16)]
    for reader in readers:
        reader.start()
    start.set()
    grown = [told.get(timeout=280) for _ in readers]
    for reader in readers:
        reader.join()
    assert max(grown) < 50e6, grown
