"""Rot, cuts, swaps and forgeries: `describe --verify` names them, and the same command makes anew what is damaged and nothing else."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import synthetic

import datagen
from datagen import places, registry, storage
from datagen.cli.app import run
from datagen.contracts import Rows
from datagen.errors import ArtefactError, OutputError, UsageError
from datagen.formats.parquet import Parquet
from datagen.reading.manifest import open_set
from datagen.reading.verify import verify
from datagen.records import ShardTask
from datagen.synthesis import commit
from datagen.synthesis.run import synthesize

FORMATS = ("parquet", "webdataset", "folder")
ONE_QUICK = ("parquet", *(pytest.param(format, marks=pytest.mark.slow) for format in FORMATS[1:]))
"""all formats in the slow tier"""
EACH = 9


def make(root: Path, format: str, out: str | None = None, **more: Any) -> dict[str, Any]:
    return synthesize(synthetic.rule(root), root / (out or format), per_class=EACH, format=format, shard_images=9, workers=1, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in each format, five shards each, below one folder."""
    root = tmp_path_factory.mktemp("made")
    for format in FORMATS:
        make(root, format)
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies the set of a format."""
    return lambda format: shutil.copytree(made / format, tmp_path / "copy" / format)


@pytest.mark.parametrize("flips", [20, pytest.param(700, marks=pytest.mark.slow)])
@pytest.mark.parametrize("format", FORMATS)
def test_every_flipped_bit_is_named(copy: Callable[[str], Path], format: str, flips: int) -> None:
    """Row W8: 2,100 flips in all files of a set, by size; 100 % named."""
    out, rng = copy(format), random.Random(flips)
    golden = synthetic.tree(out)
    names = sorted(golden)
    for name in rng.choices(names, [len(golden[name]) for name in names], k=flips):
        raw = bytearray(golden[name])
        place = rng.randrange(len(raw))
        raw[place] ^= 1 << rng.randrange(8)
        (out / name).write_bytes(raw)
        assert any(problem.startswith(f"{name}: ") for problem in verify(out)), (name, place)
        (out / name).write_bytes(golden[name])
    assert verify(out) == []


@pytest.mark.parametrize("flips", [60, pytest.param(1200, marks=pytest.mark.slow)])
def test_page_checksums_find_what_no_hash_was_asked_about(copy: Callable[[str], Path], flips: int) -> None:
    """Row W8: a Parquet reader that knows nothing of our hashes gives no wrong image, label or class either."""
    path, rng = sorted(copy("parquet").glob("data/*.parquet"))[0], random.Random(1)
    raw = path.read_bytes()
    whole = content(path)
    refused = 0
    for _ in range(flips):
        flipped = bytearray(raw)
        flipped[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert content(path) == whole
        except ArtefactError:
            refused += 1
    assert refused > flips / 4


def content(path: Path) -> list[tuple[Any, ...]]:
    return [(part.labels.tolist(), part.indices.tolist(), list(part.images)) for part in Parquet().read(path)]


def flip(out: Path, files: list[Path]) -> set[str]:
    raw = bytearray(files[0].read_bytes())
    raw[len(raw) // 3] ^= 8
    files[0].write_bytes(raw)
    return {files[0].name}


def cut(out: Path, files: list[Path]) -> set[str]:
    files[1].write_bytes(files[1].read_bytes()[:-1])
    return {files[1].name}


def delete(out: Path, files: list[Path]) -> set[str]:
    files[1].unlink()
    return {files[1].name}


def swap(out: Path, files: list[Path]) -> set[str]:
    first, second = files[0].read_bytes(), files[-1].read_bytes()
    files[0].write_bytes(second)
    files[-1].write_bytes(first)
    return {files[0].name, files[-1].name}


def edit_a_label(out: Path, files: list[Path]) -> set[str]:
    """Give a record another class, as an editor of the format would, checksums of the format made anew."""
    path = files[0]
    if path.suffix == ".parquet":
        (rows,) = Parquet().read(path)
        with open(path, "wb") as file:
            Parquet().write(file, dataclasses.replace(rows, labels=(rows.labels + 1) % 5))
        return {path.name}
    if path.suffix == ".tar":
        raw = path.read_bytes()
        place = raw.index(b".cls\0")
        start = place - place % 512 + 512
        path.write_bytes(raw[:start] + (b"3" if raw[start : start + 1] != b"3" else b"4") + raw[start + 1 :])
        return {path.name}
    other = files[-1].with_name(path.name)
    shutil.copy(path, other)
    return {other.name}


def flip_the_plan(out: Path, files: list[Path]) -> set[str]:
    return flip(out, [out / ".datagen/plan.json"])


def flip_a_note(out: Path, files: list[Path]) -> set[str]:
    return flip(out, [out / ".datagen/notes/00003.json"])


def flip_the_manifest(out: Path, files: list[Path]) -> set[str]:
    return flip(out, [out / "manifest.json"])


HARMS = [flip, cut, delete, swap, edit_a_label, flip_the_plan, flip_a_note, flip_the_manifest]


@pytest.mark.parametrize("format", ONE_QUICK)
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_what_is_damaged_is_named_and_made_anew_and_nothing_else(copy: Callable[[str], Path], made: Path, format: str, harm: Any) -> None:
    """Row W8."""
    out = copy(format)
    golden = synthetic.tree(out)
    hurt = harm(out, sorted(path for path in out.rglob("data/**/*") if path.is_file()))
    named = {Path(problem.split(": ")[0]).name for problem in verify(out)}
    assert hurt <= named
    times = {name: (out / name).stat().st_mtime_ns for name in golden if (out / name).exists()}
    synthesize(f"rule:{made / 'hashed.py'}:Hashed", out, per_class=EACH, format=format, shard_images=9, workers=1)
    assert synthetic.tree(out) == golden
    assert verify(out) == []
    changed = {Path(name).name for name, time in times.items() if (out / name).stat().st_mtime_ns != time}
    assert changed <= hurt


def test_a_damaged_plan_of_an_unfinished_set_is_refused(copy: Callable[[str], Path], made: Path) -> None:
    """Row W8: nothing tells any more what it was begun with."""
    out = copy("parquet")
    flip(out, [out / ".datagen/plan.json"])
    (out / "manifest.json").unlink()
    with pytest.raises(ArtefactError, match=r"plan\.json") as caught:
        synthesize(f"rule:{made / 'hashed.py'}:Hashed", out, per_class=EACH, format="parquet", shard_images=9, workers=1)
    assert caught.value.code == 4


def test_a_damaged_plan_is_not_taken_for_another_one(copy: Callable[[str], Path], made: Path) -> None:
    out = copy("parquet")
    flip(out, [out / ".datagen/plan.json"])
    before = synthetic.tree(out)
    with pytest.raises((UsageError, OutputError), match="seed: 0, now 1"):
        synthesize(f"rule:{made / 'hashed.py'}:Hashed", out, per_class=EACH, format="parquet", shard_images=9, workers=1, seed=1)
    assert synthetic.tree(out) == before


@pytest.mark.slow
def test_the_speed_of_verify_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row W8: 300 MB/s a core, printed."""
    rule = synthetic.rule(tmp_path, shape=(3, 512, 512))
    synthesize(rule, tmp_path / "out", per_class=60, workers=1)
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    begun = time.process_time()
    assert verify(tmp_path / "out") == []
    with capsys.disabled():
        print(f"\nverify: {size / 1e6 / (time.process_time() - begun):,.0f} MB/s a core, of {size / 1e6:,.0f} MB")


Change = Callable[[Rows], Rows]


def forged(source: Path, out: Path, change: Change = lambda rows: rows, plan: Mapping[str, Any] | None = None) -> None:
    """Write a set again with other rows or another plan, every hash and seal made anew as whoever has the tool can."""
    found = open_set(source)
    told = storage.read_sealed(source / ".datagen/plan.json") | dict(plan or {})
    format = registry.load("formats", told["format"])()
    storage.make_folder(out)
    place = places.Folder(out)
    commit.claim(place, told)
    notes = []
    for note in found.notes:
        (rows,) = found.format.read(source / note.file)
        notes.append(commit.commit(place, format, ShardTask(note.id, note.file, ()), change(dataclasses.replace(rows, classes=tuple(told["classes"])))))
    commit.finish(place, told, notes)


def taken(rows: Rows, places: list[int]) -> Rows:
    columns = {name: getattr(rows, name)[places] for name in ("labels", "seeds", "indices", "attempts")}
    return dataclasses.replace(rows, images=[rows.images[place] for place in places], **columns)


def repainted(rows: Rows) -> Rows:
    from datagen.formats import encode

    pixels = encode.decode(rows.images[0]).copy()
    pixels[0, 0, 0] ^= 1
    return dataclasses.replace(rows, images=[*encode.encode(pixels[None], "png", "algorithmicMedia"), *rows.images[1:]])


def unmarked(rows: Rows) -> Rows:
    from datagen.formats import encode

    return dataclasses.replace(rows, images=[encode.encode(encode.decode(image)[None], "png")[0] for image in rows.images])


FORGERIES: dict[str, tuple[Change, dict[str, Any]]] = {
    "labels changed": (lambda rows: dataclasses.replace(rows, labels=(rows.labels + 1) % 5), {}),
    "images exchanged": (lambda rows: dataclasses.replace(rows, images=[*rows.images[1:], rows.images[0]]), {}),
    "one bit of a pixel": (repainted, {}),
    "marks taken off": (unmarked, {}),
    "a record left out": (lambda rows: taken(rows, list(range(1, len(rows.labels)))), {}),
    "a record in the place of another": (lambda rows: taken(rows, [0, 0, *range(2, len(rows.labels))]), {}),
    "rows in another order": (lambda rows: taken(rows, list(range(len(rows.labels)))[::-1]), {}),
    "said to be real": (lambda rows: dataclasses.replace(rows, source="real"), {"source": "real"}),
    "another production": (lambda rows: rows, {"production": "0" * 64}),
    "classes renamed": (lambda rows: rows, {"classes": ["a", "b", "c", "d", "e"], "counts": dict.fromkeys("abcde", EACH)}),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (i > 1)) for i, name in enumerate(FORGERIES)])
def test_a_forgery_is_known_by_its_id(made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Row W9: ten forgeries, all hashes made anew: --verify alone says yes, --expect ID says no."""
    true = made / "webdataset"
    assert run(["describe", str(true), "--json"]) == 0
    id = json.loads(capsys.readouterr().out)["id"]
    change, plan = FORGERIES[name]
    forged(true, tmp_path / "forged", change, plan)
    assert verify(tmp_path / "forged") == []
    assert run(["describe", str(true), "--verify", "--expect", id]) == 0
    assert run(["describe", str(tmp_path / "forged"), "--verify"]) == 0
    capsys.readouterr()
    assert run(["describe", str(tmp_path / "forged"), "--verify", "--expect", id]) == 4
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "is another set" in said and id in said


def test_the_id_is_said_and_is_that_of_the_set_alone(made: Path, tmp_path: Path) -> None:
    """Row W9."""
    value = make(tmp_path, "webdataset")
    assert value["id"] == storage.hash_file(made / "webdataset/manifest.json") == datagen.describe(made / "webdataset")["id"]
    forged(tmp_path / "webdataset", tmp_path / "again")
    assert datagen.describe(tmp_path / "again", verify=True, expect=value["id"].upper())["verified"]
    for path, more in ((made / "webdataset", {}), (made / "folder/data/train", {"verify": False})):
        with pytest.raises(UsageError, match="--verify"):
            datagen.describe(path, expect=value["id"], **more)
