"""Reads RUN/generator, checks every byte, and computes images from labels and noise."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import datagen
from datagen import drawing, registry, storage, tensors, untrusted
from datagen import recipe as recipes
from datagen.contracts import Family, Spec, State
from datagen.errors import ArtefactError, ResourceError, SafetyError, UsageError
from datagen.reading.manifest import is_set
from datagen.recogniser import near
from datagen.records import SCHEMA, GeneratorCard, Recipe

if TYPE_CHECKING:
    from datagen.recogniser.fit import Fitted

CARD = "card.json"
WEIGHTS, FILTER = "weights.safetensors", "filter.safetensors"
CARD_LIMIT = 1 << 22
SIDE, CHANNELS, CLASSES = 1024, (1, 3), 100_000
"""largest height and width in pixels, channels, and most classes that a card may say"""
KINDS = {"family": str, "family_hash": str, "version": str, "images_seen": int, "noise": int, "settings": dict, "chosen": dict, "data": dict, "hashes": dict}
BUILD_SEED = 1


FILLS = {"normal_", "uniform_", "trunc_normal_", "zeros_", "ones_", "constant_", "zero_", "fill_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"}
FILLS |= {"xavier_normal_", "orthogonal_"}
"""what gives a tensor its first values"""


def _unfilled() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which tensors get no first values: on the device "meta" they have none, and to pretend takes torch its compiler, seconds."""
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            filled = args[0] if args else (kwargs or {}).get("tensor")
            if getattr(func, "__name__", "") in FILLS and getattr(filled, "is_meta", False):
                return filled
            return func(*args, **(kwargs or {}))

    return Unfilled()


def find(run: str | Path) -> Path:
    """Return the folder that holds card.json: RUN/generator, or the folder itself.

    Raises:
        ArtefactError: there is none.
    """
    for folder in (Path(run) / "generator", Path(run)):
        if (folder / CARD).is_file():
            return folder
    if is_set(run):
        raise ArtefactError("is a set of shards, which synthesize made, and no fitted run", where=run, hint="give the folder that datagen fit wrote")
    begun = (Path(run) / "recipe.json").exists() or (Path(run) / "status.json").exists()
    what = "has no generator yet; its fit has not ended" if begun else "is no fitted run: it has no generator/card.json"
    raise ArtefactError(what, where=run, hint="give the fit command again" if begun else "give the folder that datagen fit wrote, or rule:NAME")


def read_card(folder: Path) -> tuple[GeneratorCard, str]:
    """Return the card and its SHA-256.

    Raises:
        ArtefactError: the card is missing, damaged, or of a newer schema.
    """
    path = folder / CARD
    content = untrusted.content(path, limit=CARD_LIMIT)
    value = storage.parse_json(content, path)
    if not isinstance(value, dict):
        raise ArtefactError("is no card", where=path)
    schema = value.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise ArtefactError(f"needs datagen >= {value.get('version', '?')}, this is {datagen.__version__}", where=path, hint="update datagen")
    if storage.SEAL in value:
        value = storage.read_sealed(path, limit=CARD_LIMIT)
    try:
        card = GeneratorCard(**value)
        card = dataclasses.replace(card, classes=tuple(card.classes), shape=tuple(card.shape), counts=tuple(card.counts))  # type: ignore[arg-type]
        if not _consistent(card):
            raise ArtefactError("is incomplete or contradicts itself", where=path)
    except (TypeError, ValueError) as error:
        raise ArtefactError("is no card of a generator", where=path) from error
    return card, hashlib.sha256(content).hexdigest()


def _consistent(card: GeneratorCard) -> bool:
    """Whether every value of a card has its type and range; a shape or a number of classes that is too large asks for no memory then."""
    if type(card.schema) is not int or any(type(getattr(card, name)) is not kind for name, kind in KINDS.items()):
        return False
    whole = all(type(number) is int and number >= 0 for number in (*card.shape, *card.counts, card.images_seen, card.noise))
    named = all(type(name) is str for name in card.classes) and 0 < len(set(card.classes)) == len(card.classes) == len(card.counts) <= CLASSES
    shaped = whole and len(card.shape) == 3 and card.shape[0] in CHANNELS and all(1 <= side <= SIDE for side in card.shape[1:])
    return named and shaped and WEIGHTS in card.hashes and all(type(each) is str for each in card.hashes.values())


def read_weights(folder: Path, card: GeneratorCard) -> dict[str, dict[str, Any]]:
    """Return the tensors by "MODULE.PARAM" of each file of weights after the SHA-256 of every file beside the card was checked.

    Raises:
        ArtefactError: a file is missing or differs, or the weights are not safetensors or not finite.
    """
    import torch

    raw: dict[str, bytes] = {}
    for name, sha256 in card.hashes.items():
        if not untrusted.plain(name) or "/" in name:
            raise ArtefactError(f"names a file elsewhere ({name!r})", where=folder / CARD)
        content = untrusted.checked(folder / name, sha256)
        raw |= {name: content} if name in {WEIGHTS, FILTER} else {}
    found: dict[str, dict[str, Any]] = {}
    for name, content in raw.items():
        found[name] = tensors.loaded(content, folder / name)
        if any(tensor.is_floating_point() and not torch.isfinite(tensor).all() for tensor in found[name].values()):
            raise ArtefactError("holds weights that are no finite numbers", where=folder / name)
    return found


def is_own(card: GeneratorCard) -> bool:
    """Return whether the generator was fitted with a family from the user's own file."""
    return bool(card.family_hash) or ".py:" in card.family


def family_name(folder: Path, card: GeneratorCard, given: str = "") -> str:
    """Return the family to load: the card's, or the user's own file once its SHA-256 is that of the card.

    Args:
        folder: holds the card; no code is taken from there.
        card: names the family.
        given: what the user named, a registry name or PATH.py:Class; "" where nothing.

    Raises:
        ArtefactError: the family is from a file that the user did not name, or the named file has another hash.
        UsageError: the card names another family or class, or there is no such file.
    """
    fitted = f"was fitted with the family {card.family}"
    if not is_own(card):
        if given not in {"", card.family}:
            raise UsageError(f"{folder} {fitted}", where=f"--family {given}", hint="leave out --family")
        return card.family
    hint = f"name your copy of it: --family PATH/{card.family.rpartition('/')[2]}"
    if ".py:" not in given:
        raise ArtefactError(fitted, where=folder, hint=hint)
    path, _, name = given.rpartition(":")
    file = Path(path)
    if name != card.family.rpartition(":")[2]:
        raise UsageError(f"{folder} {fitted}", where=f"--family {given}", hint=hint)
    if not file.is_file():
        raise UsageError("no such file", where=f"--family {given}", hint="--family takes a name or FILE.py:Class")
    if registry.file_hash(given) != card.family_hash:
        raise ArtefactError("is not the file that the generator was fitted with", where=file, hint="take the version of that day, or fit anew")
    return given


def family_of(folder: Path, card: GeneratorCard, given: str = "") -> Family:
    """Return the family of the card, as `family_name` finds it; ArtefactError too where it is not installed."""
    name = family_name(folder, card, given)
    try:
        found: Family = registry.load("families", name)()
    except UsageError as error:
        raise ArtefactError(f"was made by the family {card.family!r}, which is not here", where=folder / CARD, hint=error.hint) from error
    return found


class Generator:
    """A fitted generator, ready to compute images on one device with one thread.

    Args:
        folder: holds the card and the weights.
        device: cpu, cuda or mps.
        family: what the user named, as for `family_name`.
        precision: "fp32" or "bf16", of the nets that draw and of the filter's.

    Raises:
        ArtefactError: anything is damaged, too new, or does not fit the family.
        UsageError: the user named another family.
    """

    def __init__(self, folder: Path, device: str = "cpu", family: str = "", precision: str = "fp32") -> None:
        self.folder, self.device, self.precision = folder, device, precision
        self.card, self.hash = read_card(folder)
        self.family = family_of(folder, self.card, family)
        spec = Spec(len(self.card.classes), self.card.shape, self.card.counts, _recipe(folder, self.card.settings))
        weights = read_weights(folder, self.card)
        if not is_own(self.card):
            self._fitting(self._outlined(spec), weights[WEIGHTS])
        self.state = self._restored(spec, weights[WEIGHTS])
        self.filter = self._filter(weights[FILTER]) if FILTER in weights else None
        if self.family.noise(spec) != self.card.noise:
            raise ArtefactError("says another size of noise than its family", where=folder / CARD)

    def _built(self, spec: Spec, device: str = "cpu") -> dict[str, Any]:
        """Return the nets that sampling needs, untrained; on the device "meta" they have shapes and no memory."""
        import torch

        state = State(spec, trains=False)
        with torch.random.fork_rng(devices=[]), torch.device(device), _unfilled() if device == "meta" else contextlib.nullcontext():
            torch.manual_seed(BUILD_SEED)
            for stage in self.family.stages(spec):
                stage.build(state)
        return {name: state.modules[name] for name in self.family.kept}

    def _outlined(self, spec: Spec) -> dict[str, Any]:
        """Return nets of shapes alone, so that a card that says too much asks for no memory; ArtefactError where no net can be so large."""
        try:
            return self._built(spec, "meta")
        except (RuntimeError, ArithmeticError, ValueError, TypeError, LookupError, MemoryError) as error:
            raise ArtefactError("says settings that no net can have", where=self.folder / CARD) from error

    def _fitting(self, nets: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
        """Raise ArtefactError where weights have other names or shapes than the nets."""
        wanted = {f"{name}.{key}": tuple(tensor.shape) for name, module in nets.items() for key, tensor in module.state_dict().items()}
        if odd := sorted(wanted.keys() ^ weights.keys()):
            raise ArtefactError(f"holds other tensors than the family {self.card.family!r} ({odd[0]})", where=self.folder / WEIGHTS)
        for name, shape in wanted.items():
            if (found := tuple(weights[name].shape)) != shape:
                raise ArtefactError(f"does not fit the family {self.card.family!r}: {name} is {found}, not {shape}", where=self.folder / WEIGHTS)

    def _restored(self, spec: Spec, weights: dict[str, Any]) -> State:
        kept = self._built(spec)
        self._fitting(kept, weights)
        for name, module in kept.items():
            own = {key: weights[f"{name}.{key}"] for key in module.state_dict()}
            try:
                module.load_state_dict(own, strict=True)
            except RuntimeError as error:
                what = str(error).splitlines()[-1].strip()
                raise ArtefactError(f"does not fit the net {name!r}: {what}", where=self.folder / WEIGHTS) from error
            drawing.laid(module.to(self.device), self.device).eval().requires_grad_(False)
        return State(spec, kept)

    def _filter(self, tensors: dict[str, Any]) -> Fitted:
        from datagen.recogniser import stored

        found = stored.unpack(tensors, len(self.card.classes), self.card.shape, self.device, self.folder / FILTER)
        settings = dataclasses.replace(found.settings, layout=drawing.LAYOUTS.get(self.device, "contiguous"), precision=self.precision)
        return dataclasses.replace(found, module=drawing.laid(found.module, self.device), settings=settings)

    def images(self, labels: np.ndarray, noise: np.ndarray, spread: float = 1.0, guidance: float = 0.0) -> np.ndarray:
        """Return uint8 [N, H, W, C] for labels int64 [N] and noise float32 [N, noise].

        Args:
            labels: index into `card.classes`.
            noise: standard normal numbers.
            spread: scale of the noise, 1 is as trained.
            guidance: class guidance, 0 is none.

        Raises:
            ArtefactError: the family gave another shape, or pixels that are no finite numbers.
            ResourceError: the device is out of memory.
        """
        import torch

        try:
            arguments = (torch.from_numpy(labels).to(self.device), torch.from_numpy(noise).to(self.device))
            found = drawing.drawn(self.family, self.state, arguments, (spread, guidance), self.precision)
            if found.shape != (len(labels), *self.card.shape) or not bool(torch.isfinite(found).all()):
                raise ArtefactError(f"gave images that are no numbers or not of shape {self.card.shape}", where=self.folder)
            return drawing.pixels(found)
        except IndexError as error:
            raise ArtefactError("holds weights that point nowhere", where=self.folder / WEIGHTS) from error
        except torch.OutOfMemoryError as error:
            raise ResourceError("out of memory", where=self.device, hint="end other programs that use it, or take fewer --workers") from error


def _recipe(folder: Path, settings: Mapping[str, Any]) -> Recipe:
    try:
        return recipes.merge((CARD, settings))
    except UsageError as error:
        raise ArtefactError(f"holds settings that cannot be read ({error.what})", where=folder / CARD) from error


def open_generator(run: str | Path, device: str = "cpu", family: str = "", precision: str = "fp32") -> Generator:
    """Open RUN/generator or a generator folder; raises as `find` and `Generator`."""
    return Generator(find(run), device, family, precision)


def reference_of(folder: Path, card: GeneratorCard, given: str | None, *, keep: bool) -> tuple[Path | None, str]:
    """Return the file of the training images as numbers, None where near-copies are not looked for, and why they are not.

    Args:
        folder: holds the card; beside it stands RUN/reference.
        card: says whether there is a reference, and its SHA-256.
        given: another RUN that has it.
        keep: do not look for near-copies.

    Raises:
        SafetyError: the reference is not there.
        ArtefactError: it is another one, or damaged.
        UsageError: it was given, and there can be none.
    """
    sha256 = card.data.get("reference")
    if keep or not sha256:
        if given:
            what = "contradicts --keep-near-copies" if keep else "this generator was fitted without a reference of its training images"
            raise UsageError(what, where=f"--reference {given}", hint="leave it out")
        return None, "as asked for (--keep-near-copies)" if keep else "the generator was fitted without a reference of its training images"
    path = (Path(given) if given else folder.parent) / "reference" / near.FILE
    if not path.is_file():
        hint = "name the RUN that has them with --reference RUN, or take near-copies with --keep-near-copies"
        raise SafetyError("the training images' numbers are not here, so near-copies of them cannot be told", where=path, hint=hint)
    if untrusted.sha256(path) != sha256:
        raise ArtefactError("is not the reference of this generator, or is damaged", where=path, hint="give the RUN that the generator was fitted in")
    return path, ""


def open_reference(path: str | Path, card: GeneratorCard) -> near.Reference:
    """Return the training images as numbers once their SHA-256 is the card's; ArtefactError where it is not."""
    return near.unpack(untrusted.checked(path, str(card.data.get("reference"))), card.shape, path)


def chosen(card: GeneratorCard, name: str, default: float, mode: str = "replace") -> float:
    """Return what `fit` chose for a setting, a number or a mapping with "value" and its reason; the default where it chose none.

    Args:
        card: of the generator.
        name: of the setting.
        default: of a card without it.
        mode: "augment" takes what was chosen for training beside real images, where something was.
    """
    of_mode = card.chosen.get(mode)
    value = of_mode.get(name) if isinstance(of_mode, Mapping) and name in of_mode else card.chosen.get(name)
    value = value.get("value") if isinstance(value, Mapping) else value
    try:
        return float(value) if isinstance(value, int | float) else default
    except OverflowError:
        return default
