"""run.html: one self-contained page about a fit, rewritten while it trains: samples by class over time, losses, what was chosen and why."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datagen import storage
from datagen.contracts import Family
from datagen.errors import printable
from datagen.pages import template
from datagen.pages.traces import named, trace
from datagen.records import ANY, FIT, NETS, READ, Recipe
from datagen.training import health

GRIDS, WIDEST = 7, 1_400
"""grids that are shown, the first and the last among them, and their greatest width in pixels"""
OWN = set(Recipe().settings(ANY, READ, FIT, NETS))
PATHS = ("test", "family")
"""settings that are shown without their folders"""
KINDS = ("real", "synthetic", "both", "classical")
STATES = {
    "training": "The generator is learning",
    "choosing": "Choosing by usefulness",
    "stopped": "Stopped before the end",
    "finished": "The generator is ready",
}


@dataclass(frozen=True)
class Story:
    """What the page is about: RUN, the family, the names of all classes, and the labels whose samples the grids show, one row each."""

    run: Path
    family: Family
    classes: Sequence[str]
    shown: Sequence[int]

    def write(self, state: str) -> Path:
        """Write RUN/run.html from what lies in RUN; returns its path.

        Args:
            state: a key of STATES; while training or choosing the page asks to be loaded again every 15 seconds.
        """
        lines = list(_lines(self.run / "progress.jsonl"))
        plan = storage.read_json(self.run / "recipe.json")
        card = self.run / "generator" / "card.json"
        chosen = storage.read_json(card)["chosen"] if state == "finished" and card.is_file() else {}
        steps, choice = [line for line in lines if "losses" in line], next((line for line in reversed(lines) if "scores" in line), None)
        seen, total = (steps[-1]["images"] if steps else 0), sum(plan["totals"])
        html = (
            template.environment(Path(__file__).parent)
            .get_template("run.html")
            .render(
                state=state,
                title=STATES[state],
                live=state in {"training", "choosing"},
                family={
                    "name": template.bare(plan["settings"]["family"]),
                    "paper": self.family.paper,
                    "about": (type(self.family).__doc__ or "").strip().splitlines()[:1],
                },
                seen=seen,
                total=total,
                done=min(1.0, seen / max(1, total)),
                rate=steps[-1]["images_per_second"] if steps else None,
                latest=[(name, named(value)) for name, value in steps[-1]["losses"].items() if value is not None] if steps else [],
                grids=_grids(self.run / "samples"),
                rows=[printable(self.classes[label]) for label in self.shown],
                hidden=len(self.classes) - len(self.shown),
                useful=_useful([line for line in lines if line.get("stage") == "proxy"]),
                stages=_stages(steps, getattr(self.family, "explained", {}) or {}),
                chosen=chosen,
                choice=_choice(choice, self.classes),
                sentences=plan["sentences"],
                settings=[
                    (key, template.bare(value) if key in PATHS else value, plan["origins"].get(key, "default"))
                    for key, value in plan["settings"].items()
                    if value is not None and key in OWN
                ],
            )
        )
        path = self.run / "run.html"
        storage.replace(path, html.encode("utf-8"))
        return path


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of progress.jsonl; one that is cut short is left out."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found


def _grids(folder: Path) -> list[dict[str, Any]]:
    """Return the first, the last, and grids at equal distances between them, as images of a page."""
    files = sorted(file for file in folder.glob("*.png") if file.stem.isdigit())
    if len(files) > GRIDS:
        files = [files[round(i * (len(files) - 1) / (GRIDS - 1))] for i in range(GRIDS)]
    found = []
    for file in files:
        with Image.open(file, formats=["PNG"]) as image:
            reduced = image.reduce(-(-image.width // WIDEST)) if image.width > WIDEST else image
            whole = io.BytesIO()
            reduced.save(whole, "PNG", optimize=True)
            width, height = reduced.size
        source = "data:image/png;base64," + base64.b64encode(whole.getvalue()).decode("ascii")
        found.append({"images": int(file.stem), "source": source, "width": width, "height": height})
    return found


def _stages(steps: Sequence[Mapping[str, Any]], explained: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return each stage with the curves of its losses, in the order of training."""
    found: list[dict[str, Any]] = []
    for stage, group in itertools.groupby(_kept(steps), key=lambda line: line["stage"]):
        ordered = list(group)
        curves = []
        for index, name in enumerate(ordered[-1]["losses"]):
            points = [(line["images"], line["losses"][name]) for line in ordered if line["losses"].get(name) is not None]
            now = named(points[-1][1]) if points else "–"
            chart = trace(points, f"{name} over images seen", KINDS[index % len(KINDS)])
            curves.append({"name": name, "now": now, "chart": chart, "about": explained.get(name, "")})
        speed = float(np.median([line["images_per_second"] for line in ordered]))
        found.append({"name": stage, "curves": curves, "speed": speed})
    return found


def _kept(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return lines in order of images seen, without those of a stretch that was lost and gone through again."""
    found: list[Mapping[str, Any]] = []
    for line in lines:
        while found and found[-1]["images"] >= line["images"]:
            found.pop()
        found.append(line)
    return found


def _useful(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how useful the images were by images seen; None where nobody asked."""
    if not lines:
        return None
    points = [(line["images"], 100 * line["synthetic"]) for line in _kept(lines)]
    return {**lines[-1], "chart": trace(points, "usefulness over images seen", "synthetic")}


def _choice(line: Mapping[str, Any] | None, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return what was tried and how each class does, the class that is least like its label first."""
    if line is None:
        return None
    rows = [{**each, "name": printable(classes[each["label"]])} for each in sorted(line["classes"], key=lambda each: (each["heeded"], each["diversity"]))]
    learnt = health.learnt([each["known"] for each in rows], len(classes))
    told = {name: line[key] for name, key in {"scores": "scores", "real": "real", "images": "select", "steps": "steps"}.items()}
    return {**told, "learnt": learnt, "classes": rows[:24], "hidden": len(rows[24:])}
