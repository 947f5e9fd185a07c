"""The same records whatever the way: workers, shard sizes, counts, formats, stops, a full disk, a million of them."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checker
import pytest
import synthetic
from sweeps import FORMATS, Fault, Sweep, hooked

from datagen import storage
from datagen.errors import OutputError
from datagen.synthesis import forecast
from datagen.synthesis.plan import TILE
from datagen.synthesis.run import synthesize

HERE = Path(__file__).parent
WAYS: list[dict[str, Any]] = [
    {"workers": 1, "shard_images": 64},
    {"workers": 2, "shard_images": 64},
    {"workers": 1, "shard_images": 1000, "format": "folder"},
    {"workers": 1, "per_class": 1},
    {"workers": 1, "per_class": 8, "format": "webdataset"},
    {"workers": 1, "per_class": 16, "shard_images": 10},
    {"workers": 1, "per_class": 32},
    {"workers": 1, "per_class": 64},
    {"workers": 1, "per_class": 65},
    {"workers": 3, "per_class": 129, "shard_images": 100},
    {"workers": 4, "per_class": 130, "shard_images": 64, "format": "webdataset"},
    {"workers": 8, "per_class": 130, "shard_images": 1},
    {"workers": 8, "shard_images": 64, "format": "folder"},
    {"workers": 1, "classes": "b"},
    {"workers": 2, "classes": "a,c", "shard_images": 64},
    {"workers": 1, "stop": 1, "shard_images": 64},
    {"workers": 1, "stop": 2, "shard_images": 100, "format": "folder"},
    {"workers": 1, "stop": 3, "shard_images": 64, "format": "webdataset", "then": {"workers": 3}},
    {"workers": 1, "stop": 1, "shard_images": 64, "then": {"workers": 8}},
    {"workers": 2, "per_class": 70, "shard_images": 1000},
]
"""ways that must make the same records; `stop`: the process dies when so many shards are there, `then` another one goes on"""
QUICK = (5, 13, 16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[tuple[str, int], bytes]]:
    """A generator, its family, and the records that one worker makes with everything in one shard."""
    root = tmp_path_factory.mktemp("source")
    run, family = synthetic.generator(root), synthetic.own(root)
    synthesize(run, root / "golden", per_class=130, workers=1, family=family)
    return run, family, {(name, index): content for name, index, content in checker.records(root / "golden")}


@pytest.mark.parametrize("way", [pytest.param(way, marks=[pytest.mark.slow] * (i not in QUICK), id=str(i)) for i, way in enumerate(WAYS)])
def test_the_way_does_not_show(tmp_path: Path, source: tuple[Path, str, dict[tuple[str, int], bytes]], way: dict[str, Any]) -> None:
    """Row W10: 20 ways, a generator with floating point, not one other byte in any record."""
    run, family, golden = source
    settings: dict[str, Any] = {"per_class": 130, "shard_images": 128, **way, "family": family}
    stop, then = settings.pop("stop", 0), settings.pop("then", {})
    if stop:
        die_after(stop, lambda: synthesize(run, tmp_path / "out", **settings))
    synthesize(run, tmp_path / "out", **settings | then)
    found = list(checker.records(tmp_path / "out"))
    chosen = settings.get("classes", "a,b,c").split(",")
    assert sorted((name, index) for name, index, _ in found) == [(name, i) for name in chosen for i in range(settings["per_class"])]
    assert [(name, index) for name, index, content in found if golden[name, index] != content] == []


class Killed(BaseException):
    """Stands for SIGKILL."""


def die_after(shards: int, work: Any) -> None:
    """Let a run die when so many shards are committed."""
    notes = []

    def hook(operation: str, path: str) -> None:
        if operation == "link" and "/notes/" in path and path.endswith(".json"):
            notes.append(path)
        if len(notes) > shards:
            raise Killed

    with hooked(hook), pytest.raises(Killed):
        work()


def test_there_are_twenty_ways() -> None:
    assert len(WAYS) == 20 and TILE == 64


@contextlib.contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Path]:
    """Mount a disk of so many bytes, or skip where that is not allowed."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_fills_and_is_freed(tmp_path: Path, format: str) -> None:
    """Row W14: a disk of 5 MB that somebody else fills in the middle: exit 5, shards so far valid; freed, the same command ends."""
    with tmpfs(tmp_path / "disk", 5 << 20) as disk:
        rule = synthetic.rule(tmp_path, shape=(3, 32, 32))

        def make(out: Path) -> None:
            synthesize(rule, out, per_class=70, shard_images=64, workers=1, format=format)

        make(tmp_path / "golden")
        golden = synthetic.tree(tmp_path / "golden")
        filled: list[str] = []

        def fill(operation: str, path: str) -> None:
            if path.endswith("notes/00001.json") and operation == "link":
                with contextlib.suppress(OSError), open(disk / "others", "wb", buffering=0) as file:
                    while file.write(bytes(1 << 14)):
                        filled.append(path)

        with hooked(fill), pytest.raises(OutputError, match="No space left") as caught:
            make(disk / "out")
        assert filled
        assert caught.value.code == 5 and "free some space" in caught.value.hint
        assert checker.uncommitted(disk / "out") == [] and len(list((disk / "out/.datagen/notes").glob("*.json"))) >= 1
        kept = {path: path.stat().st_mtime_ns for path in (disk / "out/data").rglob("*") if path.is_file()}
        with pytest.raises(OutputError, match="are free"):
            make(disk / "out")
        (disk / "others").unlink()
        make(disk / "out")
        assert synthetic.tree(disk / "out") == golden
        names = {f"train-0000{number}" for number in range(1)} if format != "folder" else set()
        assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if not names or any(name in path.name for name in names))


class Full:
    """Lets files grow until all together have so many bytes, as a disk without room does: the last write is short, the next one fails."""

    def __init__(self, room: int) -> None:
        self.room = room

    def open(self, path: Any, mode: str) -> Any:
        return io.BufferedWriter(_Filling(self, path, mode), 64) if mode == "xb" else open(path, mode)


class _Filling(io.FileIO):
    def __init__(self, disk: Full, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self.disk = disk

    def write(self, content: Any) -> int:
        size = min(len(content), self.disk.room)
        if not size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.disk.room -= size
        return super().write(bytes(content)[:size]) or 0


@pytest.mark.parametrize("format", ["parquet", *(pytest.param(format, marks=pytest.mark.slow) for format in FORMATS[1:])])
def test_a_disk_that_is_full_at_any_byte(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row W14: exit 5 wherever the room ends, in the middle of a write too; more room, and the same command ends."""
    sweep = Sweep(tmp_path, format)
    monkeypatch.setattr(forecast, "require", lambda *given: None)
    whole = sum(len(raw) for raw in sweep.golden.values())
    for room in range(100, whole, whole // 6):
        out = sweep.place()
        with monkeypatch.context() as patch:
            patch.setattr(storage, "open", Full(room).open, raising=False)
            assert sweep.broken(out, Fault(1 << 60)) == "5"
        assert sweep.again(out, f"room for {room} bytes") == []


MILLION = """
import json, re, resource, sys
from datagen.synthesis.run import synthesize
value = synthesize(sys.argv[1], sys.argv[2], per_class=int(sys.argv[3]), workers=2)
most = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
told = {"parent": most, "workers": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}
print(json.dumps(value | told))
"""


def produced(folder: Path, images: int) -> dict[str, Any]:
    """Make so many records below a folder in a process of its own and return what it says, its peaks of memory included."""
    folder.mkdir()
    command = [sys.executable, "-c", MILLION, synthetic.rule(folder), str(folder / "out"), str(images // 5)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("images", [5_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_many_records_take_little_memory(tmp_path: Path, images: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Row W13: a million records: parent and workers at most 500 MB, as much as for 50,000, a manifest of the order of the shards, row groups capped."""
    import pyarrow.parquet as pq

    value, out = produced(tmp_path / "many", images), tmp_path / "many/out"
    assert value["images"] == images
    assert max(value["parent"], value["workers"]) <= 500e6
    manifest = out / "manifest.json"
    assert manifest.stat().st_size < 3000 + 500 * value["shards"]
    seen = {name: bytearray(images // 5) for name in synthetic.PLAIN}
    for path in sorted((out / "data").iterdir()):
        groups = pq.ParquetFile(path).metadata
        assert max(groups.row_group(i).total_byte_size for i in range(groups.num_row_groups)) < 110e6
        table = pq.read_table(path, columns=["class", "index"])
        for name, index in zip(table["class"].to_pylist(), table["index"].to_pylist(), strict=True):
            seen[name][index] += 1
    assert all(set(each) == {1} for each in seen.values())
    if images < 1_000_000:
        return
    fewer = produced(tmp_path / "fewer", 50_000)
    assert value["parent"] <= 1.05 * fewer["parent"] and value["workers"] <= 1.05 * fewer["workers"], (value, fewer)
    with capsys.disabled():
        print(f"\n{images:,} records in {value['seconds']:,.0f} s, parent {value['parent'] / 1e6:,.0f} MB, workers {value['workers'] / 1e6:,.0f} MB")


def test_row_groups_end_at_a_hundred_megabytes() -> None:
    """Row W13."""
    from datagen.formats.parquet import GROUP_BYTES, GROUP_ROWS, groups

    sizes = [30_000_000, 60_000_000, 20_000_000, 200_000_000, 1, 1, *[1] * GROUP_ROWS]
    found = list(groups(sizes))
    assert [first for first, _ in found[1:]] == [end for _, end in found[:-1]] and (found[0][0], found[-1][1]) == (0, len(sizes))
    assert all(end - first == 1 or sum(sizes[first:end]) <= GROUP_BYTES for first, end in found)
    assert all(end - first <= GROUP_ROWS for first, end in found)
