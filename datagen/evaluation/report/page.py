"""report.html: one self-contained page that needs no script, made from report.json and the images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from datagen import seeds
from datagen.errors import printable
from datagen.evaluation import statistics
from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.evaluation.report import charts, pictures
from datagen.progress import span

HERE = Path(__file__).parent
SHOWN = 24
"""classes whose images and recalls are shown; report.json has all"""
EACH, COLUMNS = 12, 6
"""images of a class on each side, and how many in a row"""
THUMBNAIL = 96
"""longest side, in pixels, of an image that is shown; larger ones are reduced"""


def render(report: Mapping[str, Any], context: Context) -> str:
    """Return the page as HTML.

    Args:
        report: as `schema.build` gives it.
        context: the experiment; its images are shown.
    """
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"shown": printable, "percent": charts.percent, "span": span, "points": points}
    shown = chosen(report)
    return environment.get_template("page.html").render(
        report=report,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        arms=charts.arms(report["arms"]),
        names=charts.ARM_NAMES,
        rows=[_row(report, label) for label in shown],
        cards=[_card(context, label) for label in sorted(shown)],
        matrices=_matrices(report),
        distances={name: _distance(value) for name, value in report["distances"].items()},
        neighbours=_neighbours(report, context),
        hidden=len(report["classes"]) - len(shown),
    )


def points(value: float | None) -> str:
    """Return a difference of shares in points with its sign, such as +1.2; a dash for None."""
    return "–" if value is None else statistics.points(value)


def chosen(report: Mapping[str, Any]) -> list[int]:
    """Return the labels of the classes shown, by what real + synthetic gains, greatest first.

    With many classes these are the ones that gain most and, as many, those that lose most.
    """
    order = sorted(range(len(report["classes"])), key=lambda label: (-_gain(report, label), label))
    return order if len(order) <= SHOWN else order[: SHOWN // 2] + order[-SHOWN // 2 :]


def _recall(report: Mapping[str, Any], arm: str, label: int) -> float | None:
    found: float | None = report["arms"][arm]["per_class"][label]["recall"]
    return found


def _gain(report: Mapping[str, Any], label: int) -> float:
    after, before = (_recall(report, arm, label) for arm in ("both", "real"))
    return 0.0 if after is None or before is None else after - before


def _row(report: Mapping[str, Any], label: int) -> dict[str, Any]:
    rows = {arm: value["per_class"][label] for arm, value in report["arms"].items()}
    gain = None if _recall(report, "real", label) is None else _gain(report, label)
    return {"name": report["classes"][label], "rows": rows, "chart": charts.recalls(rows), "gain": gain, "images": rows["real"]["images"]}


def _card(context: Context, label: int) -> dict[str, Any]:
    return {
        "name": context.classes[label],
        "sheets": {"real": _sheet(context.real, label, context.seed), "synthetic": _sheet(context.synthetic, label, context.seed)},
    }


def _sheet(part: Labelled, label: int, seed: int) -> dict[str, Any]:
    """Return one PNG of images of a class, drawn at random, with its size, its count and how it is scaled."""
    members = np.flatnonzero(part.labels == label)
    picked = np.sort(seeds.stream("shown", seed, label).permutation(members)[:EACH])
    source, width, height = pictures.sheet([thumbnail(part.images[row]) for row in picked], COLUMNS)
    return {"source": source, "width": width, "height": height, "count": len(picked), "of": len(members), "enlarged": _small(part.images)}


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return an image uint8 [H, W, C] reduced by a whole factor, by means over blocks, where its longest side is above 96."""
    factor = -(-max(image.shape[:2]) // THUMBNAIL)
    if factor == 1:
        return np.asarray(image)
    height, width = (side // factor * factor for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, -1)
    reduced: np.ndarray = np.round(blocks.mean((1, 3))).astype(np.uint8)
    return reduced


def _small(images: np.ndarray) -> bool:
    return max(images.shape[1:3]) <= 48


def _matrices(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    classes, found = report["classes"], []
    for arm, value in report["arms"].items():
        drawn = charts.confusion(value["confusion"], classes) if value["confusion"] is not None else None
        found.append({"arm": arm, "chart": drawn, "confused": value["confused"][:5]})
    return found


def _distance(value: Mapping[str, Any]) -> dict[str, Any]:
    known = value.get("value") is not None
    return {**value, "chart": charts.pair(value["value"], value["floor"]) if known else None}


def _neighbours(report: Mapping[str, Any], context: Context) -> dict[str, Any] | None:
    found = report["neighbours"]
    if found is None:
        return None
    pairs = [{**pair, "real_image": _one(context.real, pair["real"]), "synthetic_image": _one(context.synthetic, pair["synthetic"])} for pair in found["pairs"]]
    return {**found, "pairs": pairs, "chart": charts.boxes(found["quantiles"]), "enlarged": _small(context.real.images)}


def _one(part: Labelled, place: Mapping[str, Any]) -> str:
    return pictures.png(thumbnail(part.images[place["row"]]))
