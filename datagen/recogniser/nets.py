"""The judge's nets: a small residual net from scratch, any torchvision model by name, or the user's own class or function."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from datagen import registry, storage
from datagen.errors import ResourceError, UsageError, nearest

WORKING_SIDE = 16
"""the first stage works on images of at most about this side"""
ENLARGED = (0, 32, 64, 96, 128, 224, 299)
"""sides tried, in order, for a torchvision model that cannot work on the images as they are"""


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); float [N, width, H, W] to the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)
        last = self.second[1]
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.zeros_(last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def _convolution(before: int, after: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after))


class Residual(nn.Module):
    """Convolutions and pooling down to a working size, two residual stages, mean and maximum over the image, one linear layer.

    A convolution widens each stage before the pooling, as in fast recipes for CIFAR-10 (Jordan 2024, arXiv 2404.00498).
    Takes float32 [N, C, H, W] of any size from 8 to 256 and returns logits [N, classes].
    """

    def __init__(self, classes: int, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, width_pixels = shape
        side = max(height, width_pixels)
        layers: list[nn.Module] = []
        while side > 2.5 * WORKING_SIDE:
            layers += [_convolution(channels, width, 2, 5 if not layers else 3), nn.ReLU()]
            channels, side = width, -(-side // 2)
        if not layers:
            layers += [_convolution(channels, width), nn.ReLU()]
        if side > 1.25 * WORKING_SIDE:
            layers.insert(-1, nn.MaxPool2d(2, ceil_mode=True))
        for wider in (2 * width, 4 * width):
            layers += [_convolution(wider // 2, wider), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU(), Block(wider)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))


class Small:
    """A small residual net trained from scratch.

    Args:
        width: channels of the first stage; the last has four times as many. None plans it from the images.
    """

    def __init__(self, width: int | None = None) -> None:
        self.width = width

    def build(self, classes: int, shape: tuple[int, int, int]) -> nn.Module:
        """Return a net for float32 [N, C, H, W] of this shape (C, H, W), its weights drawn by torch's global generator."""
        return Residual(classes, shape, self.width or (16 if max(shape[1:]) <= WORKING_SIDE else 24))


class Torchvision:
    """A torchvision model by name, from scratch: no weights are ever downloaded.

    Args:
        name: as `torchvision.models.list_models()` has it, of those that classify images.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, classes: int, shape: tuple[int, int, int]) -> nn.Module:
        """Return the model for float32 [N, C, H, W]; grey becomes three equal channels, too small images are enlarged.

        Raises:
            UsageError: it cannot work on images of this shape.
        """
        models = torchvision_models()
        extra = {"aux_logits": False, "init_weights": True} if self.name in {"googlenet", "inception_v3"} else {}
        net = models.get_model(self.name, weights=None, num_classes=classes, **extra)
        for side in ENLARGED:
            adapted = Adapted(net, side).eval()
            try:
                with torch.no_grad():
                    adapted(torch.zeros(2, *shape))
            except (RuntimeError, ValueError, AssertionError):
                continue
            return adapted.train()
        raise UsageError(f"{self.name!r} cannot work on images of {shape[1]}x{shape[2]}", where="--recogniser", hint="small is the default")


class Adapted(nn.Module):
    """A model for three channels behind what brings images there: float32 [N, C, H, W] to logits [N, classes]."""

    def __init__(self, net: nn.Module, side: int) -> None:
        super().__init__()
        self.net, self.side = net, side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        logits: torch.Tensor = self.net(x)
        return logits


def torchvision_models() -> Any:
    """Return `torchvision.models`; ResourceError with the remedy where torchvision is missing or does not fit torch."""
    try:
        from torchvision import models
    except Exception as error:
        hint = f"pip install torch torchvision together ({str(error)[:80]})"
        raise ResourceError("torchvision cannot be imported", where="--recogniser", hint=hint) from error
    return models


class Own:
    """The user's own net: a class with `build(classes, shape)`, or a function (or class) called with classes and shape itself.

    Args:
        part: the class or function.
        name: what the user called it, for errors.
        width: handed to a class with `build` where it is given.
    """

    def __init__(self, part: Any, name: str, width: int | None = None) -> None:
        self.name = name
        with_build = isinstance(part, type) and hasattr(part, "build")
        self.make: Callable[[int, tuple[int, int, int]], Any] = (part() if width is None else part(width=width)).build if with_build else part

    def build(self, classes: int, shape: tuple[int, int, int]) -> nn.Module:
        """Return the net for float32 [N, C, H, W] of this shape (C, H, W), tried once on two empty images.

        Raises:
            UsageError: it fails, is no net, or does not give logits [N, classes].
        """
        try:
            with _current_folder():
                net = self.make(classes, shape)
            if not isinstance(net, nn.Module):
                raise UsageError(f"gives {type(net).__name__}, not a torch.nn.Module", where=self.name)
            with torch.no_grad():
                logits = net.eval()(torch.zeros(2, *shape))
        except UsageError:
            raise
        except Exception as error:
            hint = "it is called with the number of classes and (channels, height, width); --debug shows where"
            raise UsageError(f"fails ({type(error).__name__}: {str(error)[:80]})", where=self.name, hint=hint) from error
        if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
            got = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise UsageError(f"gives {got} for 2 images, not logits [2, {classes}]", where=self.name)
        return net.train()


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules be imported from the current folder too, after all others."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


def _from_module(name: str) -> Any:
    """Return what MODULE:FUNCTION names; UsageError where the module or the function is not there."""
    module, _, attribute = name.partition(":")
    hint = "--recogniser takes a name, FILE.py:Class, or MODULE:FUNCTION of an installed module or one in the current folder"
    try:
        with _current_folder():
            found = importlib.import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name is not None and f"{module}.".startswith(f"{error.name}.")
        what = "there is no such module" if missing else f"cannot be imported ({type(error).__name__}: {str(error)[:80]})"
        raise UsageError(what, where=name, hint=hint) from error
    if not callable(getattr(found, attribute, None)):
        raise UsageError(f"has no function {attribute!r}", where=module, hint=nearest(attribute, [k for k, v in vars(found).items() if callable(v)]))
    return getattr(found, attribute)


def function(name: str) -> Any:
    """Return the function behind FILE.py:FUNCTION or MODULE:FUNCTION; UsageError where it is not there."""
    return registry.load("recognisers", name) if ".py:" in name else _from_module(name)


def code_hash(name: str) -> str:
    """Return the SHA-256 of the file behind FILE.py:Class or MODULE:FUNCTION, "" for nets by name and modules without a file."""
    if ".py:" in name or ":" not in name:
        return registry.file_hash(name)
    try:
        with _current_folder():
            spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return ""
    return storage.hash_file(spec.origin) if spec is not None and spec.origin is not None and os.path.isfile(spec.origin) else ""


def find(name: str, width: int | None = None) -> Any:
    """Return a recogniser (contracts.Recogniser) by name.

    Args:
        name: a row of the registry, the name of a torchvision model that classifies, FILE.py:Class, or MODULE:FUNCTION.
        width: handed to the class where it is given.

    Raises:
        UsageError: the name is unknown.
        ResourceError: torchvision is needed and cannot be imported.
    """
    if ".py:" in name:
        return Own(registry.load("recognisers", name), name, width)
    if name in registry.names("recognisers"):
        part = registry.load("recognisers", name)
        return part() if width is None else part(width=width)
    if ":" in name:
        return Own(_from_module(name), name, width)
    models = torchvision_models()
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"unknown recogniser {name!r}", where="--recogniser", hint=nearest(name, [*registry.names("recognisers"), *known]))
    return Torchvision(name)


def last_linear(net: nn.Module) -> nn.Linear:
    """Return the linear layer that gives the logits: what goes into it are the net's features; UsageError where there is none."""
    found = [part for part in net.modules() if isinstance(part, nn.Linear)]
    if not found:
        raise UsageError("the recogniser has no linear layer whose input could be its features", where="--recogniser", hint="small has one")
    return found[-1]
