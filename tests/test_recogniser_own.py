"""Nets of the user's own: a function or class of an importable module or of a file, tried before it is trained."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from datagen.errors import DatagenError, UsageError
from datagen.recogniser import nets
from datagen.recogniser.fit import Settings, fit

OWN = """
from torch import nn
import torch

def flat(classes, shape):
    from own_part import SIZE
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], SIZE), nn.Linear(SIZE, classes))

class Flat:
    def __init__(self, width=3):
        self.width = width
    def build(self, classes, shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], self.width), nn.Linear(self.width, classes))

def none(classes, shape):
    return None

def wide(classes, shape):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes + 1))

def broken(classes, shape):
    raise KeyError("inside")

number = 3
"""
SHAPE = (1, 8, 9)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder that no other test has imported."""
    name = f"own_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / "own_part.py").write_text("SIZE = 5")
    (tmp_path / f"{name}_bad.py").write_text("import no_such_package_at_all")
    monkeypatch.chdir(tmp_path)
    return name


def refused(name: str, classes: int = 4) -> DatagenError:
    with pytest.raises(UsageError) as caught:
        nets.find(name).build(classes, SHAPE)
    assert caught.value.code == 2 and "\n" not in caught.value.line() and len(caught.value.line()) <= 300
    return caught.value


def test_a_function_of_a_module_in_the_current_folder(module: str) -> None:
    before = list(sys.path)
    net = nets.find(f"{module}:flat").build(4, SHAPE)
    assert net(torch.zeros(3, *SHAPE)).shape == (3, 4) and net.training
    assert nets.last_linear(net).in_features == 5
    assert sys.path == before


def test_a_function_of_a_file_and_a_class_of_a_module(module: str) -> None:
    assert nets.find(f"./{module}.py:flat").build(2, SHAPE)(torch.zeros(1, *SHAPE)).shape == (1, 2)
    assert nets.last_linear(nets.find(f"{module}:Flat").build(2, SHAPE)).in_features == 3
    assert nets.last_linear(nets.find(f"{module}:Flat", 7).build(2, SHAPE)).in_features == 7


def test_a_module_on_the_path_wins_over_the_current_folder(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{module}_twice.py").write_text(OWN)
    (tmp_path / f"{module}_twice.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    assert nets.find(f"{module}_twice:flat").build(2, SHAPE)
    assert nets.code_hash(f"{module}_twice:flat") == hashlib.sha256(OWN.encode()).hexdigest()


def test_what_is_wrong_is_said_in_one_line(module: str) -> None:
    assert "no such module" in refused("no_such_module_at_all:net").line()
    assert "no_such_package_at_all" in refused(f"{module}_bad:net").line()
    assert "did you mean 'flat'" in refused(f"{module}:flatt").line()
    assert "has no function 'number'" in refused(f"{module}:number").line()
    assert "gives NoneType" in refused(f"{module}:none").line()
    assert "gives [2, 5] for 2 images, not logits [2, 4]" in refused(f"{module}:wide").line()
    assert "fails (KeyError: 'inside')" in refused(f"{module}:broken").line()


def test_the_code_decides_the_hash(module: str, tmp_path: Path) -> None:
    own = hashlib.sha256(OWN.encode()).hexdigest()
    assert nets.code_hash(f"{module}:flat") == nets.code_hash(f"./{module}.py:flat") == own
    assert nets.code_hash("small") == nets.code_hash("resnet18") == nets.code_hash("no_such_module_at_all:net") == ""
    (tmp_path / f"{module}.py").write_text(OWN + "# changed")
    assert nets.code_hash(f"{module}:flat") != own


def test_it_is_trained_like_any_other(module: str) -> None:
    from test_recogniser import bars

    images, labels = bars(60)
    fitted = fit(images, labels, classes=3, settings=Settings(recogniser=f"{module}:flat", steps=60, batch=16, learning_rate=0.05), seed=0)
    assert (fitted.predict(images).argmax(1) == labels).mean() > 0.8
    assert fitted.features(images).shape == (60, 5)
