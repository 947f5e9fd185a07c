"""The parts by name: a row is a name, where the class is, what to install for it, and one line of help."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.errors import DatagenError, ResourceError, UsageError, nearest


@dataclass(frozen=True)
class Row:
    """One part: `target` is "module:Class", `install` the pip argument that it needs, `help` one line."""

    target: str
    help: str
    install: str = ""


KINDS: dict[str, dict[str, Row]] = {
    "families": {
        "vae": Row("datagen.generators.vae:VAE", "autoencoder with a perceptual loss, local Gaussians or a flow over its latents (2023)"),
        "gan": Row("datagen.generators.gan:GAN", "relativistic GAN with R1 + R2 penalties, class by projection (R3GAN, 2024)"),
        "dcgan": Row("datagen.generators.dcgan:DCGAN", "the classic conditional DCGAN (2015), minimax or non-saturating loss (2014)"),
        "cvae": Row("datagen.generators.cvae:CVAE", "conditional variational autoencoder with a class prior fitted over its latents (2013)"),
    },
    "formats": {
        "parquet": Row("datagen.formats.parquet:Parquet", "Parquet as Hugging Face datasets reads it (Image and ClassLabel)"),
        "webdataset": Row("datagen.formats.webdataset:WebDataset", "tar files as webdataset reads them"),
        "folder": Row("datagen.formats.folder:Folder", "one folder a class, as torchvision's ImageFolder reads it"),
    },
    "measures": {
        "downstream": Row("datagen.evaluation.measures.downstream:Downstream", "accuracy and recall of a recogniser trained on each arm"),
        "exchange": Row("datagen.evaluation.measures.exchange:Exchange", "how many real images the synthetic ones equal"),
        "sweeps": Row("datagen.evaluation.measures.sweeps:Sweeps", "accuracy by ratio and amount of synthetic images (--full)"),
        "rare": Row("datagen.evaluation.measures.rare:Rare", "recall of one class at equal false alarms, and its shortcut (--focus)"),
        "agreement": Row("datagen.evaluation.measures.agreement:Agreement", "how far a recogniser trained on real images agrees with the synthetic labels"),
        "fidelity": Row("datagen.evaluation.measures.fidelity:Fidelity", "kernel and Frechet distance beside the real-against-real floor"),
        "coverage": Row("datagen.evaluation.measures.coverage:Coverage", "precision, recall, density and coverage"),
        "separability": Row("datagen.evaluation.measures.separability:Separability", "whether a classifier can tell synthetic from real images"),
        "copies": Row("datagen.evaluation.measures.copies:Copies", "synthetic images that repeat training images, and whether membership shows"),
        "duplicates": Row("datagen.evaluation.measures.duplicates:Duplicates", "synthetic images that repeat each other"),
        "balance": Row("datagen.evaluation.measures.balance:Balance", "how many images each class has"),
        "drift": Row("datagen.evaluation.measures.drift:Drift", "brightness, contrast, colour, sharpness and edges beside real images"),
    },
    "rules": {
        "shapes": Row("datagen.rules.shapes:Shapes", "filled shapes of random place, size and shade on a noisy ground"),
    },
    "filters": {},
    "engines": {
        "local": Row("datagen.synthesis.engines.local:Local", "worker processes on this machine"),
        "ranks": Row("datagen.synthesis.engines.ranks:Ranks", "one of several processes that share the shards (torchrun, a job array)"),
        "ray": Row("datagen.synthesis.engines.ray:Ray", "shards as tasks on a Ray cluster", "'datagen[ray]'"),
    },
    "recognisers": {
        "small": Row("datagen.recogniser.nets:Small", "a small residual net trained from scratch (default)"),
    },
}


def names(kind: str) -> dict[str, Row]:
    """Return every row of a kind by name, those of installed plug-ins (entry points `datagen.KIND`) included."""
    rows = dict(KINDS[kind])
    for point in importlib.metadata.entry_points(group=f"datagen.{kind}"):
        rows.setdefault(point.name, Row(point.value, f"from {point.dist.name if point.dist else 'a plug-in'}"))
    return rows


def singular(kind: str) -> str:
    """Return one of a kind: "families" is "family"; it is the flag's name too."""
    return kind[:-3] + "y" if kind.endswith("ies") else kind[:-1]


def check(kind: str, name: str) -> dict[str, Row]:
    """Return the rows of a kind, importing no part; UsageError with the nearest name where `name` is not among them."""
    if ".py:" in name:
        return KINDS[kind]
    rows = KINDS[kind] if name in KINDS[kind] else names(kind)
    if name not in rows:
        raise UsageError(f"unknown {singular(kind)} {name!r}", hint=nearest(name, rows))
    return rows


def load(kind: str, name: str) -> Any:
    """Return the class behind a name.

    Args:
        kind: a key of `KINDS`.
        name: a row's name, or `PATH.py:Class` for a part in the user's own file.

    Raises:
        UsageError: the name is unknown, or the file has no such class.
        ResourceError: what the part needs is not installed.
    """
    if ".py:" in name:
        return _from_file(kind, name)
    rows = check(kind, name)
    module, _, attribute = rows[name].target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        install = rows[name].install or "'datagen'"
        raise ResourceError(f"{name!r} needs a package that is missing ({error.name or error})", hint=f"pip install {install}") from error


def file_hash(name: str) -> str:
    """Return the SHA-256 of the user's file behind `PATH.py:Class`, or "" for a part by name."""
    return hashlib.sha256(Path(name.rpartition(":")[0]).read_bytes()).hexdigest() if ".py:" in name else ""


def _from_file(kind: str, name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise UsageError("no such file", where=path, hint=f"--{singular(kind)} takes a name or FILE.py:Class")
    module_name = f"datagen_user_{file_hash(name)[:16]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise UsageError("cannot be imported", where=path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[module_name]
            if not isinstance(error, Exception) or isinstance(error, DatagenError):
                raise
            line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
            raise UsageError(f"cannot be imported: {line}{type(error).__name__}: {error}", where=path, hint="--debug shows where") from error
    if not hasattr(sys.modules[module_name], attribute):
        raise UsageError(f"has no class {attribute!r}", where=path)
    return getattr(sys.modules[module_name], attribute)
