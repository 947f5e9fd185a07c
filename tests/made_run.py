"""A RUN made by hand, as run.html is made from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from datagen import registry, storage
from datagen.training import story, watch

NAMES = ["b", "a <b>" + "x" * 200]


def page(run: Path, state: str) -> str:
    """Write what run.html is made from, and return the page."""
    plan = {"settings": {"family": "cvae"}, "origins": {"family": "flag"}, "totals": [100], "sentences": ["long"]}
    storage.write_json(storage.make_folder(run) / "recipe.json", plan)
    chosen = {"spread": {"value": 1.3, "why": "tried"}, "confidence": {"value": 0.6, "why": "tried"}}
    expected = {"synthetic": 0.8125, "real": 0.975, "images": 160, "steps": 300}
    storage.write_json(storage.make_folder(run / "generator") / "card.json", {"chosen": chosen | {"expected": expected}})
    scores = [{"spread": 1.0, "confidence": 0.0, "synthetic": 0.75, "both": 0.97}, {"spread": 1.3, "confidence": 0.6, "synthetic": 0.8125, "both": 0.98}]
    classes = [{"label": k, "known": 0.9, "heeded": 0.5 + 0.1 * k, "diversity": 0.8} for k in range(2)]
    choice = {"stage": "selection", "images": 100, "steps": 300, "select": 160, "real": 0.975, "scores": scores, "classes": classes}
    losses = [{"stage": "autoencoder", "images": 10 * i, "images_per_second": 100.0, "losses": {"elbo": 100.0 / (i + 1), "own": None}} for i in range(9)]
    lines = [json.dumps(line) for line in [*losses, choice]]
    (run / "progress.jsonl").write_text("\n".join([*lines, '{"cut sho']))
    for i in range(3):
        grid = np.random.default_rng(i).integers(0, 256, (2, 8, 16, 16, 3), dtype=np.uint8)
        storage.replace(storage.make_folder(run / "samples") / f"{50 * i:012d}.png", watch.picture(grid))
    return story.Story(run, registry.load("families", "cvae")(), NAMES, [0, 1]).write(state).read_text(encoding="utf-8")
