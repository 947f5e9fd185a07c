"""Small artefacts of every kind, changes that a hostile hand makes to them, and the seals that make a change look right."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

from datagen import storage
from datagen.contracts import Spec, State
from datagen.errors import ArtefactError
from datagen.reading.manifest import note_name
from datagen.reading.shards import ShardDataset, load
from datagen.records import Recipe
from datagen.synthesis.generator import open_generator
from datagen.synthesis.run import synthesize

FORMATS = ("parquet", "webdataset", "folder")
GOLDEN = Path(__file__).parent / "golden" / "0.1.0" / "cvae"
EACH = 4
NASTY: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**30, 1e308, -0.0, "", "0", "..", "../x", "/etc/passwd", "a\0b", "a\\b", "\ud800", "x" * 5000),
    *([], {}, [[]], [None], {"a": []}, [0] * 3000, "x.py:X", "/tmp/x.py:X", "2024-01-01", [[[[[[[[]]]]]]]], "\u202e", list(range(50))),
)
_PLACE = tempfile.TemporaryDirectory()
SECONDS = 10
"""that one input may take"""


class Hang(BaseException):
    """One input took too long."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Raise Hang where the block takes more than ten seconds."""

    def late(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def peak() -> int:
    """Return the most memory that this process had since `forget`, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget() -> int:
    """Begin anew to count the most memory (Linux, proc(5): clear_refs); returns what it is now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def shards(root: Path, format: str, **more: Any) -> Path:
    """Make a set of five classes in two shards, with class names and indices of a rule of its own; returns its folder."""
    root.mkdir(parents=True, exist_ok=True)
    synthetic.rule(root)
    return Path(shutil.copytree(_made(format, more.get("per_class", EACH), more.get("shard_images", 10)), root / format))


@functools.cache
def _made(format: str, per_class: int, shard_images: int) -> Path:
    """Make such a set once in a process."""
    place = Path(_PLACE.name) / f"{format}-{per_class}-{shard_images}"
    place.mkdir()
    synthesize(synthetic.rule(place), place / "set", per_class=per_class, format=format, shard_images=shard_images, workers=1)
    return place / "set"


def generator(root: Path) -> Path:
    """Copy the generator of the first release (a family by name, 8x8 grey, three classes); returns its folder."""
    return Path(shutil.copytree(GOLDEN, root / "generator"))


def vae(root: Path) -> Path:
    """Write a generator of the default family (8x8 grey, three classes, one of them of few images), with texture and a filter; returns its folder."""
    import torch

    from datagen import registry
    from datagen.recogniser import stored
    from datagen.recogniser.fit import Settings, fit
    from datagen.training import generator as generators

    torch.manual_seed(0)
    family, labels = registry.load("families", "vae")(), torch.arange(3).repeat_interleave(torch.tensor([45, 30, 9]))
    images = torch.rand(len(labels), 1, 8, 8) * 2 - 1
    spec = Spec(3, (1, 8, 8), (45, 30, 9), Recipe(family="vae", device="cpu"))
    spec = Spec(3, spec.shape, spec.counts, spec.recipe.planned(**{**family.plan(spec), "width": 8, "latent": 4, "texture": 8}))
    state = State(spec, trains=False)
    for stage in family.stages(spec):
        stage.build(state)
    for net in state.modules.values():
        net.eval()
    family.finish(state, lambda batch: iter([(images, labels)]))
    pixels = ((images.permute(0, 2, 3, 1).numpy() + 1) * 127.5).astype(np.uint8)
    filter = fit(pixels, labels.numpy(), classes=3, settings=Settings(steps=1, batch=32, learning_rate=0.1, width=stored.WIDTH), seed=0, device="cpu")
    told: dict[str, Any] = {"classes": ("a", "b", "c"), "data": {}, "images_seen": 0, "chosen": {"spread": {"value": 1.1, "why": "tried"}}}
    return generators.write(root / "vae", family, state, **told, filter=stored.pack(filter)).parent


def checkpoint(folder: Path) -> Path:
    """Write one checkpoint of a tiny net and its optimiser; returns the folder of checkpoints."""
    import torch

    from datagen.training import checkpoint as checkpoints

    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)
    state = State(Spec(2, (1, 8, 8), (9, 9), Recipe()), {"net": net}, {"net": torch.optim.Adam(net.parameters())})
    net(torch.ones(1, 4)).sum().backward()
    state.optimizers["net"].step()
    storage.make_folder(folder)
    checkpoints.save(folder, state, {}, stage=0, images=64, total_images=64)
    return folder


def truth() -> dict[tuple[int, bytes], int]:
    """Return how often each (label, pixels) is in a set of `shards`."""
    return {(label, synthetic.drawn(0, name, i).tobytes()): 1 for label, name in enumerate(synthetic.PLAIN) for i in range(EACH)}


def read(out: Path) -> dict[tuple[int, bytes], int]:
    """Return how often each (label, pixels) comes out of a ShardDataset; raises what it raises."""
    data, found = ShardDataset(out), dict[tuple[int, bytes], int]()
    for row in range(len(data)):
        image, label = data[row]
        key = (label, image.permute(1, 2, 0).contiguous().numpy().tobytes())
        found[key] = found.get(key, 0) + 1
    return found


def loaded(out: Path) -> dict[tuple[int, bytes], int]:
    """Return the same from `load`."""
    whole, found = load(out), dict[tuple[int, bytes], int]()
    for image, label in zip(whole.images, whole.labels.tolist(), strict=True):
        found[label, image.tobytes()] = found.get((label, image.tobytes()), 0) + 1
    return found


def drawn(folder: Path) -> bytes:
    """Return some images of a generator."""
    made = open_generator(folder)
    noise = np.random.default_rng(0).standard_normal((3, made.card.noise), dtype=np.float32)
    images = made.images(np.arange(3) % len(made.card.classes), noise)
    return images.tobytes() + (b"" if made.filter is None else made.filter.predict(images).tobytes())


def resumed(folder: Path) -> str:
    """Return the newest checkpoint as text; ArtefactError where it was passed over."""
    from datagen.training import checkpoint as checkpoints

    said: list[str] = []
    found = checkpoints.newest(folder, said.append)
    if found is None:
        assert len(said) == 1 and "damaged and passed over" in said[0], said
        raise ArtefactError(said[0])
    card, weights, state = found
    return json.dumps([card, {name: tensor.tolist() for part in (weights, state) for name, tensor in part.items()}], sort_keys=True)


def flip(raw: bytes, rng: random.Random) -> bytes:
    """Change one bit."""
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :]


def cut(raw: bytes, rng: random.Random) -> bytes:
    """Leave out the end."""
    return raw[: rng.randrange(len(raw))]


def splice(raw: bytes, rng: random.Random) -> bytes:
    """Put one piece in the place of another."""
    a, b, size = rng.randrange(len(raw)), rng.randrange(len(raw)), rng.randrange(1, 64)
    return raw[:a] + raw[b : b + size] + raw[a + size :]


def insert(raw: bytes, rng: random.Random) -> bytes:
    """Put bytes in between."""
    a = rng.randrange(len(raw) + 1)
    return raw[:a] + rng.choice([rng.randbytes(rng.randrange(1, 40)), b"\0" * 600, b"[" * 3000, b"9" * 5000, b"-", b"{"]) + raw[a:]


def large(raw: bytes, rng: random.Random) -> bytes:
    """Put a very large or small number, binary or in digits, somewhere."""
    a = rng.randrange(len(raw))
    number = rng.choice([b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0\0\0\x80", b"\0" * 8, b"9999999999", b"-1", b"1e999"])
    return raw[:a] + number + raw[a + len(number) :]


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, splice, insert, large)


def changed(raw: bytes, rng: random.Random) -> bytes:
    """Change bytes once to four times."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        raw = rng.choice(CHANGES)(raw or b"x", rng)
    return raw


def twisted(value: Any, rng: random.Random) -> Any:
    """Return a JSON value in which one to three places hold something else, are missing, or are there twice."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        here, places = value, list(_places(value))
        if not places:
            return rng.choice(NASTY)
        here, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del here[key]
        elif kind == 1:
            here[key] = copy.deepcopy(rng.choice(places)[0])
        elif kind == 2 and isinstance(here, list):
            here.append(copy.deepcopy(here[key]))
        elif kind == 3 and isinstance(here, dict):
            here[str(rng.choice(NASTY))] = here.pop(key)
        else:
            here[key] = copy.deepcopy(rng.choice(NASTY))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def sealed(path: Path, value: Any) -> None:
    """Write a JSON value with a seal where it can have one."""
    try:
        path.write_bytes(storage.seal(value) if isinstance(value, dict) else json.dumps(value).encode())
    except (ValueError, RecursionError):
        path.write_text(json.dumps(value))


def reseal_set(out: Path) -> None:
    """Write the manifest and notes of a set anew, so that every hash is that of what lies there."""
    manifest = storage.read_sealed(out / "manifest.json")
    for note in manifest["shards"]:
        raw = (out / note["file"]).read_bytes()
        note |= {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
        sealed(out / note_name(note["id"]), note)
    sealed(out / "manifest.json", manifest)


def reseal_generator(folder: Path, value: Any = None) -> None:
    """Write a generator's card anew, with the hashes of what lies beside it."""
    value = storage.read_sealed(folder / "card.json") if value is None else value
    if isinstance(value, dict) and isinstance(value.get("hashes"), dict):
        beside = {name for name in value["hashes"] if isinstance(name, str) and "\0" not in name and len(name) < 200 and (folder / name).is_file()}
        value = value | {"hashes": value["hashes"] | {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in beside}}
    sealed(folder / "card.json", value)


def reseal_checkpoint(path: Path) -> None:
    """Write the card of a checkpoint anew, likewise."""
    value = storage.read_sealed(path / "card.json")
    value["hashes"] = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in value["hashes"]}
    sealed(path / "card.json", value)
