"""G2 and G3: pickles, hostile headers of tensors and cards that lie are refused with exit code 4, and nothing in them ever runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datagen import storage, tensors
from datagen.errors import ArtefactError
from datagen.formats.webdataset import member
from datagen.reading.shards import ShardDataset, load
from datagen.reading.verify import verify
from datagen.synthesis.generator import open_generator, open_reference, read_card

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _cold_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was unpacked before."""
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))


class Canary:
    """Sings, by making a file, where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def pickled(path: Path) -> bytes:
    return pickle.dumps(Canary(path))


def as_pt(path: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(path))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def as_npy(path: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Canary(path)], dtype=object), allow_pickle=True)
    return file.getvalue()


def as_npz(path: Path) -> bytes:
    file = io.BytesIO()
    np.savez(file, net=np.array([Canary(path)], dtype=object))
    return file.getvalue()


def as_metadata(path: Path) -> bytes:
    header = json.dumps({"__metadata__": {"pickle": pickled(path).hex()}, "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


@pytest.mark.parametrize("made", [pickled, as_pt, as_npy, as_npz, as_metadata], ids=lambda f: f.__name__)
@pytest.mark.parametrize("part", ["weights.safetensors", "filter.safetensors"])
def test_a_pickle_in_a_generator_never_runs(made: Callable[[Path], bytes], part: str, tmp_path: Path) -> None:
    folder, canary = hostile.generator(tmp_path), tmp_path / "canary"
    (folder / part).write_bytes(made(canary))
    card = storage.read_sealed(folder / "card.json")
    hostile.reseal_generator(folder, card | {"hashes": card["hashes"] | {part: ""}})
    with pytest.raises(ArtefactError):
        open_generator(folder)
    assert not canary.exists()


@pytest.mark.parametrize("made", [pickled, as_pt, as_npy, as_metadata], ids=lambda f: f.__name__)
@pytest.mark.parametrize("part", ["weights.safetensors", "state.safetensors", "card.json"])
def test_a_pickle_in_a_checkpoint_never_runs(made: Callable[[Path], bytes], part: str, tmp_path: Path) -> None:
    import torch

    from datagen.contracts import Spec, State
    from datagen.records import Recipe
    from datagen.training import checkpoint

    folder, canary = hostile.checkpoint(tmp_path / "checkpoints"), tmp_path / "canary"
    path = folder / "000000000064"
    (path / part).write_bytes(made(canary))
    if part != "card.json":
        hostile.reseal_checkpoint(path)
    net = torch.nn.Linear(4, 3)
    state = State(Spec(2, (1, 8, 8), (9, 9), Recipe()), {"net": net}, {"net": torch.optim.Adam(net.parameters())})
    with pytest.raises(ArtefactError):
        hostile.resumed(folder)
        found = checkpoint.newest(folder, print)
        assert found is not None
        checkpoint.load_nets(found[1], "net/", state.modules)
        checkpoint.load_optimizers(found[2], state)
    assert not canary.exists()


def test_a_pickle_in_a_reference_never_runs(tmp_path: Path) -> None:
    card, _ = read_card(hostile.generator(tmp_path))
    for made in (pickled, as_pt, as_npz, as_metadata):
        path = tmp_path / "reference.safetensors"
        path.write_bytes(made(tmp_path / "canary"))
        card.data["reference"] = hashlib.sha256(path.read_bytes()).hexdigest()  # type: ignore[index]
        with pytest.raises(ArtefactError):
            open_reference(path, card)
    assert not (tmp_path / "canary").exists()


def in_key_value(file: Path, canary: Path) -> None:
    table = pq.read_table(file)
    said = {**(table.schema.metadata or {}), b"pandas": pickled(canary), b"__pickle__": pickled(canary)}
    pq.write_table(table.replace_schema_metadata(said), file, use_dictionary=False)


def in_own_metadata(file: Path, canary: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), b"datagen": pickled(canary)}), file)


def in_an_extension_type(file: Path, canary: Path) -> None:
    table = pq.read_table(file)
    said = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled(canary)}
    fields = [field.with_metadata(said) if field.name == "seed" else field for field in table.schema]
    pq.write_table(pa.table(table.columns, schema=pa.schema(fields, metadata=table.schema.metadata)), file, use_dictionary=False)


def in_the_images(file: Path, canary: Path) -> None:
    table = pq.read_table(file)
    image = pa.array([{"bytes": pickled(canary), "path": "x.pkl"}] * len(table), table.schema.field("image").type)
    pq.write_table(table.set_column(0, table.schema.field("image"), image), file)


@pytest.mark.parametrize("put", [in_key_value, in_own_metadata, in_an_extension_type, in_the_images], ids=lambda f: f.__name__)
def test_a_pickle_in_parquet_never_runs(put: Callable[[Path, Path], None], tmp_path: Path) -> None:
    out, canary = hostile.shards(tmp_path, "parquet"), tmp_path / "canary"
    put(next(out.glob("data/*")), canary)
    hostile.reseal_set(out)
    for read in (hostile.read, hostile.loaded):
        if put is in_key_value or put is in_an_extension_type:
            assert read(out) == hostile.truth(), "what nobody reads harms nobody"
        else:
            with pytest.raises(ArtefactError):
                read(out)
    assert not canary.exists()


@pytest.mark.parametrize("suffix", ["pyd", "pickle", "pkl", "pth", "npy", "npz", "ten", "cls", "json", "png"])
def test_a_pickle_in_a_tar_never_runs(suffix: str, tmp_path: Path) -> None:
    out, canary = hostile.shards(tmp_path, "webdataset"), tmp_path / "canary"
    file, raw = next(out.glob("data/*")), as_npy(canary) if suffix == "npy" else pickled(canary)
    parts = {"png": b"x", "cls": b"0", "json": b"{}"}
    kept = [member(f"0000-00000000.{name}", raw if name == suffix else content) for name, content in parts.items()]
    file.write_bytes(b"".join(kept) + (b"" if suffix in parts else member(f"0000-00000000.{suffix}", raw)) + file.read_bytes())
    hostile.reseal_set(out)
    for read in (hostile.read, hostile.loaded):
        with pytest.raises(ArtefactError):
            read(out)
    assert not canary.exists()


@pytest.mark.parametrize("where", ["manifest", "plan"])
def test_a_format_that_names_code_is_refused(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = hostile.shards(tmp_path, "parquet")
    code = out / "mine.py"
    code.write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\nfrom datagen.formats.parquet import Parquet as Mine\n")
    (out / "manifest.json").rename(tmp_path / "kept") if where == "plan" else None
    path = out / ("manifest.json" if where == "manifest" else ".datagen/plan.json")
    value = storage.read_sealed(path)
    monkeypatch.chdir(out)
    for named in (f"{code}:Mine", "mine.py:Mine", "./mine.py:Mine", "datagen.formats.parquet:Parquet", "os:system"):
        hostile.sealed(path, value | {"format": named})
        with pytest.raises(ArtefactError, match="format"):
            ShardDataset(out, allow_partial=True)
        with pytest.raises(ArtefactError):
            load(out)
        assert verify(out)
    assert not (tmp_path / "canary").exists()


def safetensors(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def one(shape: list[Any], begin: Any, end: Any, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x08\0\0",
    "2^63": (1 << 63).to_bytes(8, "little") + b"{}",
    "2^64 - 1": b"\xff" * 8 + b"{}",
    "beyond the file": (1 << 20).to_bytes(8, "little") + b"{}",
    "overlap": safetensors({"a": one([2], 0, 8), "b": one([2], 4, 12)}, bytes(12)),
    "a hole": safetensors({"a": one([1], 0, 4), "b": one([1], 8, 12)}, bytes(12)),
    "a rest": safetensors({"a": one([1], 0, 4)}, bytes(8)),
    "beyond the data": safetensors({"a": one([2], 0, 8)}, bytes(4)),
    "backwards": safetensors({"a": one([1], 4, 0)}, bytes(4)),
    "negative": safetensors({"a": one([1], -4, 0)}, bytes(4)),
    "negative shape": safetensors({"a": one([-1, -1], 0, 4)}, bytes(4)),
    "twice": safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "twice inside": safetensors(b'{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "deep": safetensors(b'{"a":' * 100_000 + b"0" + b"}" * 100_000),
    "deep lists": safetensors(b"[" * 1_000_000),
    "a product that wraps": safetensors({"a": one([2**32, 2**32], 0, 0)}),
    "too many dimensions": safetensors({"a": one([1] * 60, 0, 4)}, bytes(4)),
    "a large dimension of nothing": safetensors({"a": one([2**62, 0], 0, 0), "b": one([2**63], 0, 0)}),
    "true": safetensors({"a": one([True], 0, 4)}, bytes(4)),
    "a fraction": safetensors({"a": one([1.0], 0, 4)}, bytes(4)),
    "text": safetensors({"a": one(["1"], 0, 4)}, bytes(4)),
    "many digits": safetensors(b'{"a":{"dtype":"F32","shape":[' + b"9" * 10_000 + b'],"data_offsets":[0,4]}}', bytes(4)),
    "unknown type": safetensors({"a": one([1], 0, 4, "F31")}, bytes(4)),
    "a type that is none of ours": safetensors({"a": one([4], 0, 4, "F8_E4M3")}, bytes(4)),
    "no shape": safetensors({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "more": safetensors({"a": one([1], 0, 4) | {"code": "x"}}, bytes(4)),
    "a list": safetensors([1, 2]),
    "null": safetensors(None),
    "metadata that is no text": safetensors({"__metadata__": {"a": [1]}, "a": one([1], 0, 4)}, bytes(4)),
    "no UTF-8": safetensors(b'{"\xff":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "a million tensors": safetensors(b"{" + b",".join(b'"%d":{}' % i for i in range(1_000_000)) + b"}"),
}


@pytest.mark.parametrize("name", list(HEADERS))
def test_a_hostile_header_is_refused(name: str) -> None:
    """G3; every reader of tensors begins with this check."""
    for read in (tensors.shapes, tensors.loaded):
        with pytest.raises(ArtefactError, match=r"safetensors|cut"):
            read(HEADERS[name], "here")


def test_a_header_may_have_sixteen_megabytes() -> None:
    said = {"a": one([1], 0, 4), "__metadata__": {"text": ""}}
    for size, fits in ((1 << 24, True), ((1 << 24) + 1, False)):
        said["__metadata__"] = {"text": ""}
        said["__metadata__"]["text"] = "x" * (size - len(json.dumps(said)))
        raw = safetensors(said, bytes(4))
        assert int.from_bytes(raw[:8], "little") == size
        if fits:
            assert tensors.shapes(raw, "here") == {"a": (1,)}
        else:
            with pytest.raises(ArtefactError, match="too large a header"):
                tensors.shapes(raw, "here")


MEASURED = """
import sys
sys.path.insert(0, "tests")
import hostile, test_trust_hostile as these
from datagen import tensors
from datagen.errors import ArtefactError
tensors.loaded(these.safetensors({"a": these.one([1], 0, 4)}, bytes(4)), "x")
huge = [b"[" * 16_000_000, b'{"a":' + b"9" * 16_000_000, b"[" + b"1," * 8_000_000 + b"1]", b"[" + b"{}," * 399_999 + b"{}]"]
huge += [b'{"' + b"x" * 16_000_000 + b'":1}']
base = hostile.forget()
for raw in [*these.HEADERS.values(), *map(these.safetensors, huge)]:
    try:
        tensors.loaded(raw, "x")
        raise SystemExit("taken")
    except ArtefactError:
        pass
print(hostile.peak() - base)
"""


@pytest.mark.slow
def test_hostile_headers_take_less_than_a_hundred_megabytes() -> None:
    made = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert made.returncode == 0, made.stderr
    assert int(made.stdout) < 100_000_000


CARDS: dict[str, dict[str, Any]] = {
    "a shape that its net has not": {"shape": [1, 8, 16]},
    "a large shape": {"shape": [3, 1024, 1024]},
    "a larger shape": {"shape": [3, 100_000, 100_000]},
    "a shape of no pixels": {"shape": [1, 0, 0]},
    "channels that no image has": {"shape": [2, 8, 8]},
    "a wide net": {"settings": {"family": "vae", "width": 2048, "latent": 4096}, "family": "vae"},
    "many training images": {"counts": [10**18, 10**18, 10**18], "family": "vae"},
    "many classes": {"classes": [f"{i:07d}" for i in range(110_000)], "counts": [1] * 110_000},
    "no classes": {"classes": [], "counts": []},
    "classes that are no text": {"classes": [1, 2, 3]},
    "a class twice": {"classes": ["a", "a", "b"]},
    "a negative count": {"counts": [-1, 1, 1]},
    "another family": {"family": "gan"},
    "an unknown family": {"family": "os:system"},
    "hashes that are none": {"hashes": {"weights.safetensors": None}},
    "a list of hashes": {"hashes": ["weights.safetensors"]},
    "noise that is none": {"noise": "4"},
    "much noise": {"noise": 10**12},
    "settings of no net": {"settings": {"width": 10**12}},
    "chosen that is none": {"chosen": [1]},
    "more": {"code": "x"},
}


@pytest.mark.parametrize("name", list(CARDS))
def test_a_card_that_lies_is_refused_and_asks_for_no_memory(name: str, tmp_path: Path) -> None:
    folder = hostile.generator(tmp_path)
    hostile.sealed(folder / "card.json", storage.read_sealed(folder / "card.json") | CARDS[name])
    base = hostile.forget()
    with hostile.in_time(), pytest.raises(ArtefactError):
        open_generator(folder)
    assert hostile.peak() - base < 100_000_000


@pytest.mark.parametrize("settings", [{}, {"latent": 0}, {"latent": None, "texture": 8}, {"latent": 4, "width": 0, "texture": 8}])
def test_settings_that_give_the_default_family_no_net_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = hostile.vae(tmp_path)
    hostile.drawn(folder)
    hostile.sealed(folder / "card.json", storage.read_sealed(folder / "card.json") | {"settings": settings})
    with pytest.raises(ArtefactError):
        open_generator(folder)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load as loaded
    from safetensors.numpy import save

    folder = hostile.generator(tmp_path)
    weights = loaded((folder / "weights.safetensors").read_bytes())
    for bad in (np.nan, np.inf, -np.inf):
        name, tensor = next((name, tensor.copy()) for name, tensor in weights.items() if tensor.dtype == np.float32 and tensor.size)
        tensor.reshape(-1)[0] = bad
        (folder / "weights.safetensors").write_bytes(save(weights | {name: tensor}))
        hostile.reseal_generator(folder)
        with pytest.raises(ArtefactError, match="no finite numbers"):
            open_generator(folder)
