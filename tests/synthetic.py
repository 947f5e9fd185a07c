"""Made rules, generators and sets of shards for the tests of formats, reading and synthesis."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PLAIN = ("0123", "a b", "no", "v1.0", "猫")
NASTY = (
    *("NaN", "None", "no", "null", "0123", "1e5", "True", "~", "\U0001f642", "[a]", "{b}", "- c", "# d", "e: f", "'g", '"h', "%i", "&j", "*k", "!l"),
    *("|m", ">n", "@o", "`p", "..", ".x", "a/b", " a", "a.", "CON", "con.txt", "Cat", "cat", "\u00e9", "e\u0301", "<script>", "\\q", "test", "train"),
    *("x" * 255, "new\nline", "esc\x1b[0m", "rtl\u202eabc", "byte\udcff", "__macosx", "tab\there"),
)

RULE = '''
import hashlib, os, signal, time
import numpy as np
from datagen.contracts import Drawn

class Hashed:
    """Pixels are the hash of seed and label."""
    classes = {classes!r}
    shape = {shape!r}

    def draw(self, seed, label, sources=()):
        """Draw."""
        time.sleep(float(os.environ.get("RULE_SLEEP", "0")))
        dead = os.environ.get("RULE_DIES_AT", "")
        if dead and int(dead) == label and not os.path.exists(os.environ["RULE_DIED"]):
            if os.environ.get("RULE_DIES_ONCE"):
                open(os.environ["RULE_DIED"], "w").close()
                open(os.environ.get("RULE_LEAVES", os.devnull), "w").close()
            time.sleep(3600 if os.environ.get("RULE_HANGS") else 0)
            os.kill(os.getpid(), signal.SIGKILL)
        channels, height, width = self.shape
        raw = hashlib.shake_128(f"{{seed}}/{{label}}".encode()).digest(channels * height * width)
        return Drawn(np.frombuffer(raw, np.uint8).reshape(height, width, channels))
'''

FAMILY = '''
import torch
from torch import nn
from datagen.contracts import Stage

class Mine:
    """A linear map of noise and class."""
    paper = "none, 2026"
    kept = ("net",)

    def plan(self, spec):
        return {}

    def noise(self, spec):
        return 5

    def stages(self, spec):
        return [Stage("only", lambda state: state.modules.update(self.nets(spec)), None)]

    def nets(self, spec):
        c, h, w = spec.shape
        return {"net": nn.Linear(5 + spec.classes, c * h * w), "critic": nn.Linear(c * h * w, 1)}

    def finish(self, state, images):
        pass

    def sample(self, state, labels, noise, spread, guidance):
        hot = nn.functional.one_hot(labels, state.spec.classes).float()
        flat = state.modules["net"](torch.cat([noise * spread, hot * (1 + guidance)], dim=1))
        return torch.tanh(flat).view(len(labels), *state.spec.shape)
'''


def rule(folder: Path, classes: Sequence[str] = PLAIN, shape: tuple[int, int, int] = (3, 8, 8)) -> str:
    """Write a rule into a file and return it as `rule:FILE.py:Hashed`."""
    path = folder / "hashed.py"
    path.write_text(RULE.format(classes=tuple(classes), shape=shape), encoding="utf-8")
    return f"rule:{path}:Hashed"


def drawn(seed: int, name: str, index: int, classes: Sequence[str] = PLAIN, shape: tuple[int, int, int] = (3, 8, 8)) -> np.ndarray:
    """Return what the rule draws for one image, uint8 [H, W, C], by code of its own."""
    parts = b""
    for kind, text in (("s", "image"), ("i", str(seed)), ("s", name), ("i", str(index)), ("i", "0")):
        raw = text.encode("utf-8", "surrogatepass")
        parts += kind.encode() + len(raw).to_bytes(8, "big") + raw
    number = int.from_bytes(hashlib.sha256(parts).digest()[:8], "little") >> 1
    size = shape[0] * shape[1] * shape[2]
    raw = hashlib.shake_128(f"{number}/{list(classes).index(name)}".encode()).digest(size)
    return np.frombuffer(raw, np.uint8).reshape(shape[1], shape[2], shape[0])


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a set but what tells one run from another."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in {"status.json", ".lock"})
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def images(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    """Return every image of a set by (label, index), read by code of its own; fails where one is there twice."""
    import pyarrow.parquet as pq

    found: list[tuple[int, int, bytes]] = []
    for path in sorted(folder.glob("data/*.parquet")):
        found += [(row["label"], row["index"], row["image"]["bytes"]) for row in pq.read_table(path).to_pylist()]
    for path in sorted(folder.glob("data/*.tar")):
        with tarfile.open(path, "r:") as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
        for key in {name.split(".")[0] for name in members}:
            found.append((int(members[f"{key}.cls"]), json.loads(members[f"{key}.json"])["index"], members[f"{key}.png"]))
    for label, inner in enumerate(sorted(folder.glob("data/train/*"))):
        found += [(label, int(path.stem), path.read_bytes()) for path in inner.iterdir()]
    assert len({(label, index) for label, index, _ in found}) == len(found)
    return {(label, index): np.array(Image.open(io.BytesIO(raw))) for label, index, raw in found}


def own(folder: Path) -> str:
    """Return the family of `generator` as the user names it."""
    return f"{folder / 'mine.py'}:Mine"


def generator(folder: Path, classes: Sequence[str] = ("a", "b", "c"), shape: tuple[int, int, int] = (3, 8, 8), card: dict[str, Any] | None = None) -> Path:
    """Write RUN/generator of an untrained family from a file of its own, with changes to its card, and return RUN."""
    import torch
    from safetensors.torch import save

    from datagen import registry
    from datagen.contracts import Spec, State
    from datagen.records import Recipe

    (folder / "mine.py").write_text(FAMILY)
    name = own(folder)
    family = registry.load("families", name)()
    state = State(Spec(len(classes), shape, (9,) * len(classes), Recipe()))
    torch.manual_seed(3)
    for stage in family.stages(state.spec):
        stage.build(state)
    weights = save({f"net.{key}": tensor for key, tensor in state.modules["net"].state_dict().items()})
    inner = folder / "run" / "generator"
    inner.mkdir(parents=True)
    (inner / "weights.safetensors").write_bytes(weights)
    value = {
        "family": "mine.py:Mine",
        "family_hash": registry.file_hash(name),
        "classes": list(classes),
        "shape": list(shape),
        "counts": [9] * len(classes),
        "images_seen": 64,
        "settings": {"family": "mine.py:Mine", "batch": 8},
        "chosen": {"spread": 0.5},
        "data": {},
        "hashes": {"weights.safetensors": hashlib.sha256(weights).hexdigest()},
        "noise": 5,
        "schema": 1,
        "version": "0.1.0",
    } | (card or {})
    write_card(inner, value)
    return folder / "run"


def write_card(folder: Path, value: dict[str, Any]) -> None:
    """Write a sealed card."""
    from datagen import storage

    (folder / "card.json").write_bytes(storage.seal(value))
