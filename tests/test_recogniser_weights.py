"""Weights from a file: taken by name and shape but for the head, and everything else refused in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_recogniser import bars

from datagen.errors import ArtefactError, DatagenError, UsageError
from datagen.recogniser import nets, pretrained
from datagen.recogniser.fit import Settings, fit

SHAPE = (1, 12, 10)
NONE = Settings(steps=0, batch=8, width=4)
"""no step at all: what comes out is what training begins with"""


def small(classes: int = 3, seed: int = 7) -> torch.nn.Module:
    torch.manual_seed(seed)
    return nets.Small(4).build(classes, SHAPE)


def stored(file: Path, net: torch.nn.Module | None = None, **changes: torch.Tensor | None) -> str:
    """Write a net's tensors with some added, replaced, or (None) left out."""
    state = {**(net or small()).state_dict(), **changes}
    save_file({k: v.contiguous() for k, v in state.items() if v is not None}, file)
    return str(file)


def begun(path: str, **more: Any) -> dict[str, torch.Tensor]:
    images, labels = bars(9)
    state: dict[str, torch.Tensor] = fit(images, labels, classes=3, settings=dataclasses.replace(NONE, weights=path, **more), seed=0).module.state_dict()
    return state


def refused(kind: type[DatagenError], path: str | Path) -> str:
    with pytest.raises(kind) as caught:
        pretrained.begin(small(), str(path))
    assert caught.value.code == kind.code and "\n" not in caught.value.line() and len(caught.value.line()) <= 300
    return caught.value.line()


def test_every_tensor_is_taken(tmp_path: Path) -> None:
    path = stored(tmp_path / "w.safetensors")
    state, there = begun(path), load_file(path)
    assert set(state) == set(there) and all(torch.equal(state[name], there[name]) for name in there)
    images, labels = bars(9)
    drawn = fit(images, labels, classes=3, settings=NONE, seed=0).module.state_dict()
    assert not torch.equal(drawn["head.weight"], state["head.weight"])


def test_training_goes_on_from_there(tmp_path: Path) -> None:
    images, labels = bars(30)
    settings = Settings(steps=3, batch=8, width=4, weights=stored(tmp_path / "w.safetensors"))
    first, again = (fit(images, labels, classes=3, settings=settings, seed=0).module.state_dict() for _ in range(2))
    other = fit(images, labels, classes=3, settings=dataclasses.replace(settings, weights=None), seed=0).module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("other", ["classes", "missing"])
def test_the_head_alone_may_be_of_other_classes_or_missing(other: str, tmp_path: Path) -> None:
    whole = stored(tmp_path / "a.safetensors")
    missing = stored(tmp_path / "b.safetensors", None, **{"head.weight": None, "head.bias": None})
    path = stored(tmp_path / "c.safetensors", small(classes=11)) if other == "classes" else missing
    state, there = begun(path), load_file(path)
    body = [name for name in state if not name.startswith("head.")]
    assert len(body) > 10 and all(torch.equal(state[name], there[name]) for name in body)
    images, labels = bars(9)
    drawn = fit(images, labels, classes=3, settings=NONE, seed=0).module.state_dict()
    assert torch.equal(state["head.weight"], drawn["head.weight"]), "the head is what it is without a file"
    assert pretrained.begin(small(), whole) == len(body) + 2 == pretrained.begin(small(), path) + 2


def test_another_net_is_refused_by_the_first_difference(tmp_path: Path) -> None:
    assert "matches nothing of the recogniser" in refused(UsageError, stored(tmp_path / "a", torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())))
    torch.manual_seed(0)
    assert "is [8, 1, 3, 3], the net's is [4, 1, 3, 3]" in refused(UsageError, stored(tmp_path / "b", nets.Small(8).build(3, SHAPE)))
    bias = "body.0.1.bias"
    assert bias in small().state_dict()
    assert f"differs in 1 of 36 tensors from the recogniser: {bias} is missing".split(" of ")[0] in refused(
        UsageError, stored(tmp_path / "c", None, **{bias: None})
    )
    assert "extra.weight is no part of the net" in refused(UsageError, stored(tmp_path / "d", None, **{"extra.weight": torch.zeros(1)}))
    assert f"{bias} is [5], the net's is [4]" in refused(UsageError, stored(tmp_path / "e", None, **{bias: torch.zeros(5)}))
    assert "is no file" in refused(UsageError, tmp_path / "nothing.safetensors")
    assert "is no file" in refused(UsageError, tmp_path)


class Harm:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("it was unpickled",))


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps({"head.weight": Harm()}))
    torch.save({"head.weight": Harm()}, tmp_path / "b.safetensors")
    for name in ("a", "b"):
        assert "is a pickle" in refused(ArtefactError, tmp_path / f"{name}.safetensors")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = Path(stored(tmp_path / "w.safetensors"))
    content = path.read_bytes()
    for cut in (0, 3, 8, 100, len(content) - 1):
        path.write_bytes(content[:cut])
        assert "is no whole safetensors file" in refused(ArtefactError, path)
    path.write_bytes(b"\xff" * 8 + content[8:])
    assert "is no whole safetensors file" in refused(ArtefactError, path)
    assert "not finite" in refused(ArtefactError, stored(path, None, **{"head.bias": torch.tensor([0, float("nan"), 0])}))


def test_a_torchvision_model_takes_torchvisions_own_names_and_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *given: pytest.fail("the network was asked"))
    torch.manual_seed(1)
    theirs = nets.torchvision_models().get_model("shufflenet_v2_x0_5", weights=None, num_classes=1000)
    gone = {name: None for name in theirs.state_dict() if name.endswith("num_batches_tracked")}
    path = stored(tmp_path / "w.safetensors", theirs, **gone)
    state, there = begun(path, recogniser="shufflenet_v2_x0_5", width=None), load_file(path)
    assert state["net.fc.weight"].shape == (3, 1024)
    body = [name for name in there if not name.startswith("fc.")]
    assert len(body) > 100 and all(torch.equal(state[f"net.{name}"], there[name]) for name in body)


def test_half_precision_becomes_the_nets(tmp_path: Path) -> None:
    path = stored(tmp_path / "w.safetensors", small().half())
    state = begun(path)
    assert state["head.weight"].dtype == torch.float32
    assert torch.equal(state["head.weight"], load_file(path)["head.weight"].float())


def test_what_decides_an_arm(tmp_path: Path) -> None:
    path = stored(tmp_path / "w.safetensors")
    sha = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert pretrained.decided_by(Settings(weights=path)) == ("", sha)
    assert pretrained.decided_by(Settings()) == ("", "")
    assert pretrained.decided_by(Settings(recogniser=f"{__file__}:Harm"))[0] == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    with pytest.raises(UsageError, match="is no file"):
        pretrained.decided_by(Settings(weights=str(tmp_path / "gone")))
