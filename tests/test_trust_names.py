"""G4 to G6: names, links, newer and mixed sets, and hostile archives and images are refused with exit code 4; nothing is unpacked to a disk."""

from __future__ import annotations

import functools
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import hostile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from PIL import Image

from datagen import storage
from datagen.errors import ArtefactError, DatagenError
from datagen.formats.webdataset import WebDataset, member
from datagen.reading.shards import ShardDataset, load
from datagen.reading.verify import verify
from datagen.synthesis.generator import open_generator
from datagen.synthesis.run import synthesize


@pytest.fixture(autouse=True)
def _cold_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was unpacked before."""
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))


NAMES = ("../x", "..", ".", "", "/etc/passwd", "a\0b", "a\\b", "a/../b", "./a", "a//b", "data/../../x", "/", "~/x", "data/x.parquet/", "C:\\x", "//host/x")
NAMES += ("data/train-00000-of-00002.parquet\0.png", "data", ".datagen/plan.json", "data/train-00009-of-00002.parquet", "x" * 5000, "\udcff")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format", ["parquet", "folder"])
def test_a_manifest_that_names_anything_else_is_refused(name: str, format: str, tmp_path: Path) -> None:
    """G4: note files of a set; a manifest, and notes of an unfinished one."""
    out = hostile.shards(tmp_path, format, per_class=1)
    manifest = storage.read_sealed(out / "manifest.json")
    note = manifest["shards"][0] | {"file": name}
    hostile.sealed(out / "manifest.json", manifest | {"shards": [note]})
    for read in (ShardDataset, load):
        with pytest.raises(ArtefactError, match="wrong name"):
            read(out)
    assert len(verify(out)) == 1
    (out / "manifest.json").unlink()
    hostile.sealed(out / ".datagen/notes/00000.json", note)
    with pytest.raises(ArtefactError, match="wrong name"):
        ShardDataset(out, allow_partial=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_list_or_card_that_names_anything_else_is_refused(name: str, tmp_path: Path) -> None:
    out = hostile.shards(tmp_path, "folder", per_class=1)
    list_of = out / ".datagen/notes/00000.parquet"
    table = pq.read_table(list_of)
    spelled = name if name.isprintable() or "\0" in name else "\x1b"
    pq.write_table(table.set_column(0, "file", pa.array([spelled, *table.column("file").to_pylist()[1:]])), list_of)
    hostile.reseal_set(out)
    for read in (ShardDataset, load):
        with pytest.raises(ArtefactError):
            read(out)
    folder = hostile.generator(tmp_path)
    card = storage.read_sealed(folder / "card.json")
    hostile.sealed(folder / "card.json", card | {"hashes": card["hashes"] | {name: "0" * 64}})
    with pytest.raises(ArtefactError):
        open_generator(folder)


def as_link(path: Path, aside: Path) -> None:
    path.rename(aside)
    path.symlink_to(aside)


def as_folder_link(path: Path, aside: Path) -> None:
    path.parent.rename(aside)
    path.parent.symlink_to(aside)


def as_pipe(path: Path, aside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_device(path: Path, aside: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def as_folder(path: Path, aside: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS = [as_link, as_folder_link, as_pipe, as_device, as_folder]


@pytest.mark.parametrize("harm", HARMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("format", hostile.FORMATS)
def test_links_pipes_and_devices_are_never_read(harm: Callable[[Path, Path], None], format: str, tmp_path: Path) -> None:
    """G4: files of a set that are something else; nothing waits for a pipe or reads a device to its end."""
    for pattern in ("manifest.json", "data/**/*.*", ".datagen/notes/*.parquet"):
        out = hostile.shards(tmp_path / pattern.split("/")[0], format, per_class=1)
        found = sorted(p for p in out.glob(pattern) if p.is_file())
        if not found or (pattern == "manifest.json" and harm is as_folder_link):
            continue
        harm(found[0], tmp_path / f"aside {pattern.split('/')[0]}")
        with hostile.in_time():
            for read in (hostile.read, hostile.loaded):
                with pytest.raises(ArtefactError):
                    read(out)
            assert verify(out)


@pytest.mark.parametrize("harm", [harm for harm in HARMS if harm is not as_folder_link], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_files_of_a_generator_and_a_checkpoint_are_plain(harm: Callable[[Path, Path], None], name: str, tmp_path: Path) -> None:
    folder, checkpoints = hostile.generator(tmp_path), hostile.checkpoint(tmp_path / "checkpoints")
    harm(folder / name, tmp_path / "aside")
    with hostile.in_time(), pytest.raises(ArtefactError):
        open_generator(folder)
    harm(checkpoints / "000000000064" / name, tmp_path / "aside too")
    from datagen.training import checkpoint

    with hostile.in_time():
        assert checkpoint.newest(checkpoints, lambda text: None) is None


@pytest.mark.parametrize("allow", [False, True])
def test_a_newer_set_or_checkpoint_says_what_it_needs(allow: bool, tmp_path: Path) -> None:
    """G5: newer ones are refused, whatever else changed in them; older ones are in tests/golden."""
    out = hostile.shards(tmp_path, "parquet")
    for path in (out / "manifest.json", out / ".datagen/plan.json"):
        value = storage.read_sealed(path)
        hostile.sealed(path, {"schema": 2, "version": "9.8.7", "shards": value["shards"], "other": [1]})
        with pytest.raises(ArtefactError, match=r"needs datagen >= 9\.8\.7"):
            ShardDataset(out, allow_partial=allow)
        path.unlink()
    folder = hostile.checkpoint(tmp_path / "checkpoints")
    hostile.sealed(folder / "000000000064" / "card.json", {"schema": 2, "other": 1})
    with pytest.raises(ArtefactError, match="newer datagen"):
        hostile.resumed(folder)


def test_shards_of_two_generators_are_not_mixed(tmp_path: Path) -> None:
    """G5: a whole shard with its note from another production is refused, whether the set is finished or not, and made anew by a resume."""
    out = hostile.shards(tmp_path, "parquet")
    other = tmp_path / "other"
    (tmp_path / "hashed.py").write_text((tmp_path / "hashed.py").read_text() + "\n# another one\n")
    rule = f"rule:{tmp_path / 'hashed.py'}:Hashed"
    synthesize(rule, other, per_class=hostile.EACH, shard_images=10, workers=1)
    file = "data/train-00001-of-00002.parquet"
    for name in (file, ".datagen/notes/00001.json"):
        (out / name).write_bytes((other / name).read_bytes())
    manifest = storage.read_sealed(out / "manifest.json")
    stranger = storage.read_sealed(out / ".datagen/notes/00001.json")
    hostile.sealed(out / "manifest.json", manifest | {"shards": [manifest["shards"][0], stranger]})
    with pytest.raises(ArtefactError, match="another production"):
        load(out)
    (out / "manifest.json").unlink()
    with pytest.raises(ArtefactError, match="another production"):
        ShardDataset(out, allow_partial=True)
    kept = (out / "data/train-00000-of-00002.parquet").read_bytes()
    (out / "data/train-00000-of-00002.parquet").write_bytes(kept[:-1])
    first = synthesize(synthetic.rule(tmp_path), out, per_class=hostile.EACH, shard_images=10, workers=1)
    assert first["continued"] and not verify(out) and hostile.loaded(out) == hostile.truth()


def archive(path: Path, *members: tarfile.TarInfo, content: bytes = b"") -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for each in members:
            tar.addfile(each, io.BytesIO(content) if each.isreg() else None)


def info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.size, found.linkname, found.uname, found.gname = kind, size, link, "datagen", "datagen"
    return found


def lying(size: int) -> bytes:
    """Return a header of ours that says a size, with its own checksum right, and nothing behind it."""
    from datagen.formats.webdataset import header

    return header("0000-00000000.png", size)


def sparse(path: Path, begin: bytes, size: int) -> None:
    """Write some bytes and a hole of many gigabytes behind them."""
    with open(path, "wb") as file:
        file.write(begin)
        file.truncate(size)


ARCHIVES: dict[str, Callable[[Path], object]] = {
    "a name outside": lambda path: archive(path, info("../x.png", size=1), content=b"x"),
    "an absolute name": lambda path: archive(path, info("/tmp/x.png", size=1), content=b"x"),
    "a link": lambda path: archive(path, info("0.png", tarfile.SYMTYPE, link="/etc/passwd")),
    "a hard link": lambda path: archive(path, info("0.png", tarfile.LNKTYPE, link="../../x")),
    "a device": lambda path: archive(path, info("0.png", tarfile.CHRTYPE)),
    "a pipe": lambda path: archive(path, info("0.png", tarfile.FIFOTYPE)),
    "a folder": lambda path: archive(path, info("a", tarfile.DIRTYPE)),
    "a size beyond the file": lambda path: path.write_bytes(lying(1 << 27) + b"x" * 1024),
    "a size beyond any image": lambda path: path.write_bytes(lying(1 << 30) + b"x" * 1024),
    "a long member in a hole": lambda path: sparse(path, lying((1 << 33) - 1), 1 << 33),
    "an end of many gigabytes": lambda path: sparse(path, b"", 1 << 36),
    "a long description": lambda path: path.write_bytes(member("0.png", b"x") + member("0.cls", b"0") + member("0.json", b" " * (5 << 20)) + bytes(1024)),
    "a deep description": lambda path: path.write_bytes(member("0.png", b"x") + member("0.cls", b"0") + member("0.json", b"[" * 10**6) + bytes(1024)),
    "a label of many digits": lambda path: path.write_bytes(member("0.png", b"x") + member("0.cls", b"9" * 10**5) + member("0.json", b"{}") + bytes(1024)),
    "a label beyond any class": lambda path: path.write_bytes(member("0.png", b"x") + member("0.cls", b"9" * 15) + member("0.json", b"{}") + bytes(1024)),
    "many members": lambda path: path.write_bytes(member("0.png", b"") * 20_000 + bytes(1024)),
    "a million members": lambda path: sparse(path, member("0.png", b"") * 1_000_000 + bytes(1024), 512 * 1_000_000 + 1024),
    "compressed": lambda path: tarfile.open(path, "w:gz").close(),
    "no tar": lambda path: path.write_bytes(b"PK\x03\x04" * 500),
}


@pytest.mark.parametrize("name", [name if name != "a million members" else pytest.param(name, marks=pytest.mark.slow) for name in ARCHIVES])
def test_a_hostile_tar_is_refused_as_a_stream(name: str, tmp_path: Path) -> None:
    """G6: exit code 4, nothing is unpacked beside it or anywhere else, little memory."""
    out = hostile.shards(tmp_path, "webdataset", per_class=1)
    file = next(out.glob("data/*"))
    ARCHIVES[name](file)
    before, base = sorted(tmp_path.rglob("*")), hostile.forget()
    with hostile.in_time(), pytest.raises(ArtefactError):
        list(WebDataset().read(file))
    with hostile.in_time(), pytest.raises(ArtefactError):
        WebDataset().count(file)
    assert sorted(tmp_path.rglob("*")) == before and hostile.peak() - base < 100_000_000 + 2 * (name == "a size beyond the file") * (1 << 27)
    if file.stat().st_size < 1 << 30:
        hostile.reseal_set(out)
        for read in (hostile.read, hostile.loaded):
            with hostile.in_time(), pytest.raises(ArtefactError):
                read(out)


@functools.cache
def huge_image() -> bytes:
    """Return 81 million pixels in some kilobytes: few enough that Pillow alone would unpack them without a word."""
    file = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("format", hostile.FORMATS)
def test_an_image_that_unpacks_to_gigabytes_is_refused_from_its_header(format: str, tmp_path: Path) -> None:
    from dataclasses import replace

    from datagen import registry
    from datagen.reading.manifest import open_set

    out = hostile.shards(tmp_path, format, per_class=1, shard_images=1000)
    found = open_set(out)
    part, image = next(iter(found.format.read(out / found.notes[0].file))), huge_image()
    bad = replace(part, images=[image] * len(part.images), classes=found.classes)
    writer = registry.load("formats", format)()
    for name, content in writer.files(bad):
        (out / name).write_bytes(content)
    with open(out / found.notes[0].file, "wb") as file:
        writer.write(file, bad)
    hostile.reseal_set(out)
    base = hostile.forget()
    for read in (hostile.read, hostile.loaded):
        with hostile.in_time(), pytest.raises(DatagenError) as caught:
            read(out)
        assert caught.value.code == 4
    assert hostile.peak() - base < 200_000_000
