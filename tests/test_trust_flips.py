"""G1: any flipped byte and every cut of a generator, a checkpoint, a manifest, a note or a shard is found before use, exit code 4."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile
import pytest

from datagen import storage
from datagen.cli import app
from datagen.errors import ArtefactError
from datagen.reading.manifest import open_set
from datagen.reading.shards import ShardDataset
from datagen.reading.verify import verify

FLIPS = {"fast": 10, "slow": 300}
CUTS = {"fast": 8, "slow": 10**9}
"""flips and cuts of each of twelve kinds of artefacts; the slow tier's cuts are at every length of every file"""
FOOTER = """
import sys
from pathlib import Path
from datagen.errors import ArtefactError
from datagen.formats.parquet import batches

path, step = Path(sys.argv[1]), int(sys.argv[2])
whole = path.read_bytes()
first = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
for place in range(8 * first, 8 * (len(whole) - 8), step):
    changed = bytearray(whole)
    changed[place // 8] ^= 1 << place % 8
    path.write_bytes(changed)
    print(place // 8, place % 8, file=sys.stderr, flush=True)
    try:
        print(sum(len(batch) for batch in batches(path)))
    except ArtefactError:
        print("refused")
"""
STEPS = {"fast": 13, "slow": 1}
TIERS = ["fast", pytest.param("slow", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


def _verified(out: Path) -> None:
    if problems := verify(out):
        raise ArtefactError(problems[0])


def _partly(out: Path) -> Any:
    return open_set(out, allow_partial=True)


def _unfinished(root: Path) -> Path:
    out = hostile.shards(root, "parquet")
    (out / "manifest.json").unlink()
    return out


@dataclass(frozen=True)
class Kind:
    """An artefact: how it is made, the files that are harmed, and how it is read; what reads it gives, or raises ArtefactError."""

    make: Callable[[Path], Path]
    files: str
    read: Callable[[Path], Any]


KINDS = {
    "generator": Kind(hostile.generator, "*", hostile.drawn),
    "checkpoint": Kind(lambda root: hostile.checkpoint(root / "checkpoints"), "*/*", hostile.resumed),
    "manifest": Kind(lambda root: hostile.shards(root, "parquet"), "manifest.json", hostile.read),
    "plan and notes": Kind(_unfinished, ".datagen/**/*.json", _partly),
    "sidecars, verified": Kind(lambda root: hostile.shards(root, "webdataset", per_class=1), "**/[!t]*.*", _verified),
    "shards, verified": Kind(lambda root: hostile.shards(root, "parquet", per_class=1), "data/*", _verified),
    **{f"{format} read": Kind(lambda root, f=format: hostile.shards(root, f, per_class=1), "data/**/*.*", hostile.read) for format in hostile.FORMATS},
    "folder's list": Kind(lambda root: hostile.shards(root, "folder"), ".datagen/notes/*.parquet", hostile.read),
    **{f"{format} loaded": Kind(lambda root, f=format: hostile.shards(root, f, per_class=1), "data/**/*.*", hostile.loaded) for format in hostile.FORMATS},
}
NOT_READ = {".lock", "status.json"}


@pytest.fixture(autouse=True)
def _cold_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was unpacked before."""
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.mark.parametrize("tier", TIERS)
def test_every_flip_and_every_cut_is_found(kind: Kind, tier: str, tmp_path: Path) -> None:
    place = kind.make(tmp_path)
    files = sorted(p for p in place.glob(kind.files) if p.is_file() and p.name not in NOT_READ)
    whole = {path: path.read_bytes() for path in files}
    rng, missed = random.Random(7), []
    wanted: list[tuple[Path, bytes]] = []
    for _ in range(FLIPS[tier]):
        path = rng.choice(files)
        wanted.append((path, hostile.flip(whole[path], rng)))
    cuts = [(path, length) for path, raw in whole.items() for length in range(len(raw))]
    wanted += [(path, whole[path][:length]) for path, length in rng.sample(cuts, min(len(cuts), CUTS[tier]))]
    for path, raw in wanted:
        path.write_bytes(raw)
        try:
            kind.read(place)
            missed.append((path.name, len(raw)))
        except ArtefactError as error:
            assert error.code == 4 and len(error.line()) <= 300
        path.write_bytes(whole[path])
    assert not missed, f"{len(missed)} of {len(wanted)}"
    kind.read(place)


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
@pytest.mark.parametrize("tier", TIERS)
def test_a_flip_in_the_cache_gives_no_other_image(format: str, tier: str, tmp_path: Path) -> None:
    out, rng = hostile.shards(tmp_path, format), random.Random(3)
    packs = Path(ShardDataset(out)._located.root)
    files = {path: path.read_bytes() for path in sorted(packs.iterdir()) if path.name != ".lock"}
    assert len(files) == 2
    for _ in range(FLIPS[tier]):
        path = rng.choice(list(files))
        path.write_bytes(hostile.flip(files[path], rng))
        try:
            assert hostile.read(out) == hostile.truth()
        except ArtefactError as error:
            assert "damaged" in error.what and str(packs) in error.hint
        path.write_bytes(files[path])
    assert hostile.read(out) == hostile.truth()


@pytest.mark.parametrize("format", ["parquet", "folder"])
@pytest.mark.parametrize("tier", TIERS)
def test_no_bit_of_a_footer_ends_the_process(format: str, tier: str, tmp_path: Path) -> None:
    """Arrow's own objects for a column's metadata do where that is wrong, and who makes a set can give it any hash."""
    out = hostile.shards(tmp_path, format, per_class=2)
    file = next(path for path in sorted(out.rglob("*.parquet")))
    done = subprocess.run([sys.executable, "-c", FOOTER, str(file), str(STEPS[tier])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    found = Counter(done.stdout.split())
    assert found["refused"] > 100 and found.most_common(2)[1][1] > 100, "some bits are of no account, some are"


@pytest.mark.parametrize("format", hostile.FORMATS)
def test_a_damaged_shard_is_never_served_from_what_was_read_before(format: str, tmp_path: Path) -> None:
    """The images that were unpacked before are those that the manifest's hashes stand for: right ones, or an error."""
    out, rng = hostile.shards(tmp_path, format), random.Random(4)
    assert hostile.read(out) == hostile.truth()
    for path in sorted(p for p in out.glob("data/**/*.*") if p.is_file()):
        whole = path.read_bytes()
        path.write_bytes(hostile.flip(whole, rng))
        try:
            assert hostile.read(out) == hostile.truth()
        except ArtefactError as error:
            assert "damaged" in error.what
        path.write_bytes(whole)


def test_the_command_line_says_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, run, sets = random.Random(5), tmp_path / "run", hostile.shards(tmp_path / "sets", "parquet")
    hostile.generator(run)
    commands = {
        run / "generator/weights.safetensors": [["describe", str(run), "--verify"], ["synthesize", str(run), "--per-class", "1", "--out", str(tmp_path / "a")]],
        run / "generator/card.json": [["describe", str(run)], ["synthesize", str(run), "--per-class", "1", "--dry-run", "--out", str(tmp_path / "b")]],
        sets / "manifest.json": [["describe", str(sets)], ["export", str(sets), "--format", "folder", "--out", str(tmp_path / "c")]],
        next(sets.glob("data/*")): [["describe", str(sets), "--verify"], ["export", str(sets), "--format", "folder", "--out", str(tmp_path / "d")]],
    }
    for path, asked in commands.items():
        whole = path.read_bytes()
        path.write_bytes(hostile.flip(whole, rng))
        for words in asked:
            assert app.run([*words, "--quiet"]) == 4, words
            error = capsys.readouterr().err.strip().splitlines()[-1]
            assert error.startswith("error: ") and len(error) <= 300
        path.write_bytes(whole)


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    folder = hostile.checkpoint(tmp_path / "checkpoints")
    shutil.copytree(folder / "000000000064", folder / "000000000128")
    said: list[str] = []
    from datagen.training import checkpoint

    for name in (checkpoint.CARD, checkpoint.WEIGHTS, checkpoint.STATE):
        path = folder / "000000000128" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert checkpoint.newest(folder, said.append) is not None
        assert "000000000128" in said.pop() and not said
        path.write_bytes(whole)


def test_a_card_of_a_checkpoint_without_a_seal_is_read_once_its_keys_are_exactly_known(tmp_path: Path) -> None:
    folder = hostile.checkpoint(tmp_path / "checkpoints")
    path = folder / "000000000064" / "card.json"
    value = storage.read_sealed(path)
    path.write_bytes(storage.to_json(value))
    hostile.resumed(folder)
    for change in ({"sea": "x"}, {"images": -1}, {"images": "64"}, {"hashes": {}}, {"schema": 2}, {"stage": True}, {"hashes": 3}):
        path.write_bytes(storage.to_json(value | change))
        with pytest.raises(ArtefactError):
            hostile.resumed(folder)
