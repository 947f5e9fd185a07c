"""Checks of what is read, switched off one by one: each must be missed by the test that is there for it (G1 to G6, P4, P6)."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import audit
import hostile
import numpy as np
import pytest
from PIL import Image

from datagen import storage, tensors, untrusted
from datagen.errors import ArtefactError
from datagen.formats import encode
from datagen.pages import markdown, template
from datagen.reading import located, manifest
from datagen.reading.shards import ShardDataset, picture
from datagen.synthesis import generator
from datagen.synthesis.generator import open_generator
from datagen.training import board

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _cold_cache(tmp_path: Path, monkeypatch: Patch) -> None:
    """Nothing was unpacked before."""
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))


def check_weights_are_compared_with_their_hash(root: Path) -> None:
    """Bits of the numbers themselves, which nothing but a hash can tell."""
    folder, rng = hostile.generator(root), random.Random(1)
    whole = (folder / "weights.safetensors").read_bytes()
    for _ in range(5):
        place = len(whole) - rng.randrange(1, 100)
        (folder / "weights.safetensors").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ArtefactError):
            open_generator(folder)


def check_documents_are_compared_with_their_seal(root: Path) -> None:
    """A digit of a card and of a manifest."""
    folder, out = hostile.generator(root), hostile.shards(root, "parquet", per_class=1)
    for path, old, new, read in (
        (folder / "card.json", b'"images_seen": 6', b'"images_seen": 7', open_generator),
        (out / "manifest.json", b'"accepted": 5', b'"accepted": 4', manifest.open_set),
    ):
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))
        with pytest.raises(ArtefactError):
            read(path.parent)


def check_checkpoints_are_compared_with_their_seal(root: Path) -> None:
    """The number of images seen, and a bit of the optimiser."""
    path = hostile.checkpoint(root / "c") / "000000000064"
    for name in ("card.json", "state.safetensors"):
        raw = (path / name).read_bytes()
        place = raw.index(b'"images": 64') + 10 if name == "card.json" else len(raw) - 3
        (path / name).write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(ArtefactError):
            hostile.resumed(path.parent)
        (path / name).write_bytes(raw)


def check_shards_are_compared_with_their_hash(root: Path) -> None:
    """A tar whose label was changed: its own framing is right."""
    out = hostile.shards(root, "webdataset", per_class=1, shard_images=1000)
    file = next(out.glob("data/*"))
    raw = bytearray(file.read_bytes())
    place = next(found.start() for found in re.finditer(rb"\d{4}-\d{8}\.cls", bytes(raw)))
    raw[place + 512] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ArtefactError):
        ShardDataset(out)


def check_images_are_compared_with_their_hash(root: Path) -> None:
    """Another image in the place of one, in the folder format and in what was unpacked before."""
    for format in ("folder", "parquet"):
        out = hostile.shards(root / format, format)
        data = ShardDataset(out)
        if format == "folder":
            first, second = sorted(out.glob("data/**/*.png"))[:2]
            first.write_bytes(second.read_bytes())
        else:
            path = Path(data._located.root) / located.IMAGES
            raw = bytearray(path.read_bytes())
            start, size = data._located.places[0, 1:].tolist()
            other = encode.encode(np.zeros((1, 8, 8, 3), np.uint8), "png")[0]
            raw[start : start + min(size, len(other))] = other[:size]
            path.write_bytes(raw)
        with pytest.raises(ArtefactError, match="damaged"):
            [data[row] for row in range(len(data))]


def check_links_are_not_followed(root: Path) -> None:
    """A shard that is a link to a right file elsewhere."""
    out = hostile.shards(root, "parquet", per_class=1, shard_images=1000)
    file = next(out.glob("data/*"))
    file.rename(root / "elsewhere")
    file.symlink_to(root / "elsewhere")
    with pytest.raises(ArtefactError, match="link"):
        ShardDataset(out)


def check_formats_are_names(root: Path) -> None:
    """A manifest whose format is code."""
    out = hostile.shards(root, "parquet", per_class=1)
    (root / "mine.py").write_text("from datagen.formats.parquet import Parquet as Mine\n")
    value = storage.read_sealed(out / "manifest.json")
    hostile.sealed(out / "manifest.json", value | {"format": f"{root / 'mine.py'}:Mine"})
    with pytest.raises(ArtefactError):
        manifest.open_set(out)


def check_productions_are_not_mixed(root: Path) -> None:
    """A note of another production in a manifest."""
    out = hostile.shards(root, "parquet", per_class=1)
    value = storage.read_sealed(out / "manifest.json")
    value["shards"][0]["production"] = "0" * 64
    hostile.sealed(out / "manifest.json", value)
    with pytest.raises(ArtefactError, match="another production"):
        manifest.open_set(out)


def check_large_headers_are_refused(root: Path) -> None:
    """A header of 20 MB that is right but for its size."""
    header = json.dumps({"__metadata__": {"text": "x" * 20_000_000}, "a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode()
    with pytest.raises(ArtefactError):
        tensors.shapes(len(header).to_bytes(8, "little") + header, "here")


def check_cards_ask_for_no_memory(root: Path) -> None:
    """A card that says large nets is refused by the shapes of its weights before the nets are built."""
    folder = hostile.generator(root)
    open_generator(folder)
    value = storage.read_sealed(folder / "card.json")
    hostile.sealed(folder / "card.json", value | {"settings": value["settings"] | {"latent": 4096, "width": 256}})
    base = hostile.forget()
    with pytest.raises(ArtefactError):
        open_generator(folder)
    assert hostile.peak() - base < 60_000_000


def check_weights_are_numbers(root: Path) -> None:
    """One weight that is infinite, sealed."""
    from safetensors.numpy import load, save

    folder = hostile.generator(root)
    weights = load((folder / "weights.safetensors").read_bytes())
    name = next(name for name, tensor in weights.items() if tensor.dtype == np.float32 and tensor.size)
    tensor = weights[name].copy()
    tensor.reshape(-1)[0] = np.inf
    (folder / "weights.safetensors").write_bytes(save(weights | {name: tensor}))
    hostile.reseal_generator(folder)
    with pytest.raises(ArtefactError):
        open_generator(folder)


def check_large_images_are_refused(root: Path) -> None:
    """81 million pixels in a small file."""
    import io

    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    with pytest.raises(ArtefactError):
        picture(file.getvalue(), "here")


def check_names_are_escaped(root: Path) -> None:
    """A name in a page, in Markdown, and in a cell."""
    html = template.environment(Path(__file__).parent).from_string("<p>{{ name | shown }}</p>").render(name="<script>\x1b")
    assert "<script" not in html and "\x1b" not in html
    assert "<" not in markdown.plain("<b>") and markdown.cell("=1").startswith("'")


def check_the_machine_is_not_named(root: Path) -> None:
    """What TensorBoard reads."""
    assert os.uname().nodename not in board.Board(root / "tb").path.name


def no_hash_of_files(patch: Patch) -> None:
    patch.setattr(untrusted, "checked", lambda path, wanted, root=None, of="card": untrusted.content(path, root))


def no_seal(patch: Patch) -> None:
    def unsealed(path: Path, *, limit: int = 0) -> dict[str, Any]:
        value = dict(storage.read_json(path))
        value.pop(storage.SEAL, None)
        return value

    patch.setattr(storage, "read_sealed", unsealed)


def no_hash_of_shards(patch: Patch) -> None:
    patch.setattr(located, "_whole", lambda root, note: root / note.file)


def no_hash_of_images(patch: Patch) -> None:
    whole = located.Located.content
    patch.setattr(located.Located, "content", lambda self, row: whole(located.Located(**{**vars(self), "hashes": None}), row))


def links_followed(patch: Patch) -> None:
    patch.setattr(untrusted, "opened", lambda path, root=None: os.fdopen(os.open(path, os.O_RDONLY), "rb"))


def code_by_name(patch: Patch) -> None:
    whole = manifest.checked

    def trusting(value: dict[str, Any], where: Path) -> dict[str, Any]:
        return whole(value, where) if ".py:" not in value["format"] else value

    patch.setattr(manifest, "checked", trusting)


def any_production(patch: Patch) -> None:
    patch.setattr(manifest, "_matching", lambda found, count: found)


def any_header(patch: Patch) -> None:
    patch.setattr(tensors, "HEADER", 1 << 60)


def built_first(patch: Patch) -> None:
    patch.setattr(generator.Generator, "_outlined", lambda self, spec: self._built(spec))


def any_number(patch: Patch) -> None:
    import torch

    patch.setattr(torch, "isfinite", lambda tensor: torch.ones_like(tensor, dtype=torch.bool))


def any_size(patch: Patch) -> None:
    patch.setattr(encode, "PIXELS", 1 << 60)


def nothing_escaped(patch: Patch) -> None:
    whole = template.environment

    def plain(folder: Path) -> Any:
        found = whole(folder)
        found.autoescape = False
        return found

    patch.setattr(template, "environment", plain)


def no_marks_escaped(patch: Patch) -> None:
    patch.setattr(markdown, "plain", str)


def named_after_the_machine(patch: Patch) -> None:
    import time

    patch.setattr(board, "int", lambda seconds: Named(time.time()), raising=False)


class Named(int):
    """A number that is written with the machine's name, as TensorBoard's own writer does."""

    def __format__(self, spec: str) -> str:
        return f"{int(self)}.{os.uname().nodename}"


CASES: list[tuple[Callable[[Patch], None], Callable[[Path], None]]] = [
    (no_hash_of_files, check_weights_are_compared_with_their_hash),
    (no_hash_of_files, check_checkpoints_are_compared_with_their_seal),
    (no_seal, check_documents_are_compared_with_their_seal),
    (no_seal, check_checkpoints_are_compared_with_their_seal),
    (no_hash_of_shards, check_shards_are_compared_with_their_hash),
    (no_hash_of_images, check_images_are_compared_with_their_hash),
    (links_followed, check_links_are_not_followed),
    (code_by_name, check_formats_are_names),
    (any_production, check_productions_are_not_mixed),
    (any_header, check_large_headers_are_refused),
    (built_first, check_cards_ask_for_no_memory),
    (any_number, check_weights_are_numbers),
    (any_size, check_large_images_are_refused),
    (nothing_escaped, check_names_are_escaped),
    (no_marks_escaped, check_names_are_escaped),
    (named_after_the_machine, check_the_machine_is_not_named),
]


@pytest.mark.parametrize("check", dict.fromkeys(check for _, check in CASES), ids=lambda check: check.__name__)
def test_our_own_code_passes_its_checks(check: Callable[[Path], None], tmp_path: Path) -> None:
    check(tmp_path)


@pytest.mark.parametrize(("mutant", "check"), CASES, ids=[f"{mutant.__name__}-{check.__name__}" for mutant, check in CASES])
def test_every_check_that_is_switched_off_is_missed(mutant: Callable[[Patch], None], check: Callable[[Path], None], tmp_path: Path, monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(tmp_path)
    audit.taken()
