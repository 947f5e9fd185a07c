"""From labelled folders to labelled synthetic images, and an honest figure of how useful they are."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "fit": "datagen.training.run",
    "synthesize": "datagen.synthesis.run",
    "evaluate": "datagen.evaluation.run",
    "describe": "datagen.cli.describe",
    "export": "datagen.synthesis.export",
    "ShardDataset": "datagen.reading.shards",
    "StreamDataset": "datagen.synthesis.stream",
    "mix": "datagen.reading.mix",
    "Recipe": "datagen.records",
    "DatagenError": "datagen.errors",
}

__all__ = ["DatagenError", "Recipe", "ShardDataset", "StreamDataset", "__version__", "describe", "evaluate", "export", "fit", "mix", "synthesize"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'datagen' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
