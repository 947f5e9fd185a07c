"""G3 and the fuzzing of every reader of artefacts: whatever the bytes, an answer or an error of ours, in ten seconds and 500 MB.

FUZZ_SECONDS in the environment makes the slow tier's ten minutes each longer or shorter.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datagen import storage, tensors
from datagen.errors import ArtefactError, DatagenError
from datagen.formats.webdataset import member as packed
from datagen.formats.webdataset import members
from datagen.reading.manifest import open_set
from datagen.reading.shards import ShardDataset
from datagen.reading.verify import verify

SECONDS = float(os.environ.get("FUZZ_SECONDS", "600"))
INPUTS = 16
"""of the fast tier, each reader"""
MEMORY = 500_000_000
TIERS = ["fast", pytest.param("slow", marks=[pytest.mark.slow, pytest.mark.timeout(0)])]
HEADERS = {"fast": 1_000, "slow": 20_000}
SEED = 2026


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was unpacked before, and no disk is waited for."""
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@dataclass(frozen=True)
class Target:
    """A valid artefact that is changed, sealed anew half of the time, and read in every way there is."""

    make: Callable[[Path], Path]
    change: Callable[[Path, random.Random], None]
    reseal: Callable[[Path], None]
    reads: tuple[Callable[[Path], Any], ...]


def change_any(place: Path, rng: random.Random) -> None:
    """Change the bytes of a file."""
    path = rng.choice(sorted(p for p in place.rglob("*") if p.is_file() and p.name not in {".lock", "status.json"}))
    path.write_bytes(hostile.changed(path.read_bytes(), rng))


def change_json(place: Path, rng: random.Random) -> None:
    """Change the values of a JSON document and seal it."""
    path = rng.choice(sorted(p for p in place.rglob("*.json") if p.name != "status.json"))
    value = hostile.twisted(storage.read_json(path), rng)
    if isinstance(value, dict):
        value.pop(storage.SEAL, None)
    hostile.sealed(path, value)


def change_shard(out: Path, rng: random.Random) -> None:
    """Change what lies inside of a shard, so that its own framing stays right: columns, members, or image files."""
    path = rng.choice(sorted(p for p in [*out.glob("data/**/*.*"), *out.glob(".datagen/notes/*.parquet")] if p.is_file()))
    if path.suffix == ".tar":
        parts = dict(members(path))
        name = rng.choice(list(parts))
        parts[name] = hostile.changed(parts[name], rng)
        path.write_bytes(b"".join(packed(name, content) for name, content in parts.items()) + bytes(1024))
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        name = rng.choice(table.schema.names)
        rows = table.to_pylist()
        row = rng.choice(rows)
        if name == "image" and rng.random() < 0.7:
            row["image"] = {"bytes": hostile.changed(row["image"]["bytes"], rng), "path": "x"}
        elif isinstance(row[name], str):
            row[name] = rng.choice(["", "../x", "a\0b", "x" * 5000, None, "data/train/x", row[name][:-1]])
        else:
            row[name] = rng.choice([None, -1, 2**62, 0]) if name not in {"image", "probabilities"} else None
        with contextlib.suppress(Exception):
            pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    else:
        path.write_bytes(hostile.changed(path.read_bytes(), rng))


def change_set(out: Path, rng: random.Random) -> None:
    """Change a set in one of the ways above."""
    rng.choice([change_any, change_json, change_shard, change_shard])(out, rng)


def reseal_set(out: Path) -> None:
    """Seal a set whose manifest can still be read; in the folder format the lists get the hashes of what lies there."""
    import hashlib

    with contextlib.suppress(Exception):
        for path in out.glob(".datagen/notes/*.parquet"):
            table = pq.read_table(path)
            hashes = [hashlib.sha256((out / name).read_bytes()).hexdigest() for name in table.column("file").to_pylist()]
            pq.write_table(table.set_column(table.schema.get_field_index("sha256"), "sha256", [hashes]), path)
    with contextlib.suppress(Exception):
        hostile.reseal_set(out)


def change_generator(folder: Path, rng: random.Random) -> None:
    """Change bytes of the weights or of the card, or values of the card."""
    rng.choice([change_any, change_json, change_json])(folder, rng)


def reseal_generator(folder: Path) -> None:
    """Seal a card that can still be read."""
    with contextlib.suppress(Exception):
        value = storage.read_json(folder / "card.json")
        value.pop(storage.SEAL, None)
        hostile.reseal_generator(folder, value)


def reseal_checkpoint(folder: Path) -> None:
    """Seal a checkpoint whose card can still be read."""
    with contextlib.suppress(Exception):
        hostile.reseal_checkpoint(folder / "000000000064")


def partly(out: Path) -> None:
    """Read what is committed of a set without its manifest."""
    (out / "manifest.json").unlink(missing_ok=True)
    data = ShardDataset(out, allow_partial=True)
    [data[row] for row in range(len(data))]
    open_set(out, allow_partial=True)


def described(place: Path) -> None:
    """Say what a set or generator is, as the command line does."""
    from datagen.cli.describe import _text, describe

    _text(describe(place))


SETS = (hostile.read, hostile.loaded, verify, described, partly)
TARGETS = {
    **{
        format: Target(lambda root, f=format: hostile.shards(root, f, per_class=2, shard_images=5), change_set, reseal_set, SETS)  # type: ignore[misc]
        for format in hostile.FORMATS
    },
    "generator": Target(hostile.generator, change_generator, reseal_generator, (hostile.drawn, described)),
    "vae": Target(hostile.vae, change_generator, reseal_generator, (hostile.drawn, described)),
    "checkpoint": Target(lambda root: hostile.checkpoint(root / "c"), change_generator, reseal_checkpoint, (hostile.resumed,)),
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", list(TARGETS))
def test_no_reader_falls_over(name: str, tier: str, tmp_path: Path) -> None:
    target, rng = TARGETS[name], random.Random(f"{SEED} {name} {tier}")
    whole, place = target.make(tmp_path / "whole"), tmp_path / "place"
    until, count, taken = time.monotonic() + SECONDS, 0, 0
    base, wrong = hostile.forget(), list[str]()
    while count < INPUTS if tier == "fast" else time.monotonic() < until:
        count += 1
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        shutil.copytree(whole, place)
        target.change(place, rng)
        if count % 2:
            target.reseal(place)
        for read in target.reads:
            taken += survived(read, place, wrong)
        if wrong:
            shutil.copytree(place, Path(os.environ.get("FUZZ_KEEP", tmp_path)) / f"wrong-{name}", dirs_exist_ok=True)
        assert not wrong, f"input {count}: {wrong}"
        assert hostile.peak() - base < MEMORY, f"input {count}"
    assert count >= min(INPUTS, 10) and taken, "some are still right, where the change meets nothing that matters"
    print(f"{name}: {count:,} inputs, {taken:,} readings gave an answer")


def survived(read: Callable[[Path], Any], place: Path, wrong: list[str]) -> bool:
    """Read; whether it gave an answer. What is neither that nor an error of ours is added to `wrong`."""
    try:
        with hostile.in_time(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(place)
    except DatagenError as error:
        if error.code not in {2, 3, 4} or len(error.line()) > 300:
            wrong.append(f"{read.__name__}: {error!r} ({error.code})")
        return False
    except BaseException as error:
        wrong.append(f"{read.__name__}: {type(error).__name__}: {error}")
        return False
    return True


def headers(count: int) -> Iterator[bytes]:
    """Yield changed files of tensors."""
    rng = random.Random(SEED)
    raw = (hostile.GOLDEN / "weights.safetensors").read_bytes()
    size = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(count):
        header = hostile.changed(raw[8:size], rng)
        length = rng.choice([len(header).to_bytes(8, "little"), hostile.changed(raw[:8], rng)[:8]])
        yield length + header + (raw[size:] if rng.random() < 0.8 else hostile.changed(raw[size:], rng))


@pytest.mark.parametrize("tier", TIERS)
def test_files_of_tensors_are_read_or_refused(tier: str) -> None:
    base, read = hostile.forget(), 0
    for raw in headers(HEADERS[tier]):
        with hostile.in_time():
            try:
                assert tensors.loaded(raw, "here").keys() == tensors.shapes(raw, "here").keys()
                read += 1
            except ArtefactError:
                continue
    assert hostile.peak() - base < 100_000_000
    assert read < HEADERS[tier] / 2


TEXTS = st.text(max_size=12)
SINGLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(SINGLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8)
EXAMPLES = {"fast": 12, "slow": 3_000}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("document", ["manifest.json", ".datagen/plan.json", ".datagen/notes/00000.json", "card.json"])
def test_documents_hold_anything(document: str, tier: str, tmp_path: Path) -> None:
    """Any JSON, sealed, in the place of any value of a document that is otherwise right."""
    place = hostile.generator(tmp_path) if document == "card.json" else hostile.shards(tmp_path, "parquet", per_class=1, shard_images=2)
    value = storage.read_sealed(place / document)
    if document.startswith(".datagen"):
        (place / "manifest.json").unlink()
    reads = (hostile.drawn, described) if document == "card.json" else (verify, described, partly)

    @settings(max_examples=EXAMPLES[tier], deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(key=st.sampled_from([*value, "other"]), other=VALUES)
    def check(key: str, other: Any) -> None:
        hostile.sealed(place / document, value | {key: other})
        wrong: list[str] = []
        for read in reads:
            survived(read, place, wrong)
        assert not wrong

    check()
