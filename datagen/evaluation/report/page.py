"""report.html: one self-contained page that needs no script, made from report.json and the images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from datagen.errors import printable
from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.report import charts, curves, matrices, scatter, shown, words
from datagen.evaluation.report.text import markdown
from datagen.pages import template

__all__ = ["markdown", "render"]

HERE = Path(__file__).parent
SHOWN = 24
"""classes whose images and recalls are shown; report.json has all"""
DRAWN = ("exchange", "sweep_ratio", "sweep_amount", "focus_recall", "focus_shortcut", "copies")
"""measures with a place of their own on the page"""
CONFUSED = 5
OPTION = re.compile(r"(--[a-z][a-z-]*)")


def render(report: Mapping[str, Any], context: Context, *, share: bool = False) -> str:
    """Return the page as HTML.

    Args:
        report: as `schema.build` gives it; measures that it lacks are left out.
        context: the experiment that it is about; its images are shown.
        share: not one real pixel is shown, nothing that stands for a single real image, and no synthetic image that repeats one.
    """
    environment = template.environment(HERE)
    environment.filters |= {"points": points, "number": number, "flags": flags}
    picked = chosen(report)
    images = shown.prepare(report, context, len(picked), share=share)
    measures = report["measures"]
    return environment.get_template("page.html").render(
        report=report,
        measures=measures,
        share=share,
        words=words,
        base=words.base(report),
        arms=charts.intervals(_arms(report), "accuracy of each arm with its interval"),
        sets=_sets(report),
        learning=curves.learning(measures.get("exchange", {})),
        sweeps=_sweeps(report),
        focus=_focus(report),
        rows=_rows(report, picked),
        hidden=len(report["classes"]) - len(picked),
        cards=images.cards(sorted(picked)),
        matrices=_matrices(report),
        map=None if share else scatter.features(context),
        copies=_copies(report, images),
        others=_others(report),
    )


def points(value: float | None) -> str:
    """Return a difference of shares in points with its sign, such as +1.2; a dash for None."""
    return "–" if value is None else statistics.points(value)


def number(value: float | None) -> str:
    """Return a measure's number with three digits; a dash for None."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}".replace("-", "−")


def flags(text: str) -> Markup:
    """Return a sentence, escaped, in which options such as --per-class are not broken at the end of a line."""
    return Markup(OPTION.sub(r"<code>\1</code>", str(escape(printable(text)))))


def chosen(report: Mapping[str, Any]) -> list[int]:
    """Return the labels of the classes shown, by what real + synthetic gains over the arm to beat, greatest first.

    With many classes these are the ones that gain most and, as many, those that lose most.
    """
    order = sorted(range(len(report["classes"])), key=lambda label: (-(_difference(report, label)["mean"] or 0.0), label))
    return order if len(order) <= SHOWN else order[: SHOWN // 2] + order[-SHOWN // 2 :]


def _difference(report: Mapping[str, Any], label: int) -> dict[str, Any]:
    found: dict[str, Any] = report["differences"][f"both-{words.base(report)}"]["per_class"][label]
    return found


def _arms(report: Mapping[str, Any]) -> list[charts.Row]:
    base, rows = words.base(report), []
    for arm, value in report["arms"].items():
        spread = value["accuracy"]["mean"], value["accuracy"]["low"], value["accuracy"]["high"]
        rows.append(charts.Row(arm, words.title(arm, value), *spread, repeats=value["repeats"], base=arm == base))
    return rows


def _sets(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a set: its name, images, accuracies, difference from its arm to beat, and what it is worth."""
    rows = []
    for name, each in report["sets"].items():
        exchange = each["measures"].get("exchange", {})
        accuracy = {arm: value["accuracy"]["mean"] for arm, value in each["arms"].items()}
        difference = each["differences"][f"both-{words.base(each)}"]
        soft = each["arms"].get("synthetic", {}).get("labels") == "soft"
        rows.append({"name": name, "set": each, "soft": soft, "accuracy": accuracy, "difference": difference, "worth": words.worth(exchange)})
    return rows


def _sweeps(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the drawing and the sentence of every sweep there is."""
    base, arms = words.base(report), report["arms"]
    asked = {"sweep_ratio": ("both", "synthetic images for each real one", base), "sweep_amount": ("synthetic", "synthetic images, trained on alone", "real")}
    found = []
    for key, (kind, below, level) in asked.items():
        swept = report["measures"].get(key, {})
        if swept.get("points"):
            line = (words.ARMS.get(level, level), arms[level]["accuracy"]["mean"])
            found.append({"chart": curves.sweep(swept["points"], kind, below, line), "sentence": swept["sentence"]})
    return found


def _focus(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the drawing and the sentences of the class in focus, None where there is none."""
    found = report["measures"].get("focus_recall", {})
    if not found.get("arms"):
        return None
    base = words.base(report)
    rows = [charts.Row(arm, words.ARMS.get(arm, arm), v["mean"], v["low"], v["high"], base=arm == base) for arm, v in found["arms"].items()]
    sentences = [report["measures"][key]["sentence"] for key in ("focus_recall", "focus_shortcut") if key in report["measures"]]
    return {"class": found["class"], "chart": charts.intervals(rows, "recall of the class in focus by arm"), "sentences": sentences}


def _rows(report: Mapping[str, Any], picked: list[int]) -> dict[str, Any]:
    """Return the classes shown with recalls, difference, its drawing and what could have been seen, and the drawing's scale."""
    base, arms = words.base(report), report["arms"]
    differences = {label: _difference(report, label) for label in picked}
    ends = [abs(row[end]) for row in differences.values() if row["mean"] is not None for end in ("low", "high")]
    around = charts.Around(max(ends, default=1.0))
    rows = []
    for label, row in differences.items():
        known = row["mean"] is not None
        kind = "even" if not known else "gain" if row["low"] > 0 else "loss" if row["high"] < 0 else "even"
        before, after = (arms[arm]["per_class"][label] for arm in (base, "both"))
        chart = around.draw(row["mean"], row["low"], row["high"], kind) if known else ""
        rows.append({**row, "kind": kind, "chart": chart, "images": before["images"], "before": before["recall"], "after": after["recall"]})
    return {"scale": around.scale(), "base": words.ARMS.get(base, base), "each": rows}


def _matrices(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a matrix, or only the most frequent confusions, of the arms that the page is about."""
    wanted = {"real", words.base(report), "synthetic", "both"}
    found = []
    for arm, value in report["arms"].items():
        if arm in wanted:
            drawn = matrices.confusion(value["confusion"], report["classes"]) if value["confusion"] is not None else None
            found.append({"arm": arm, "title": words.title(arm, value), "chart": drawn, "confused": value["confused"][:CONFUSED]})
    return found


def _copies(report: Mapping[str, Any], images: shown.Shown) -> dict[str, Any] | None:
    """Return the drawing of the distances, the closest pairs and the named copies; None where copies were not looked for."""
    found = report["measures"].get("copies", {})
    if not found.get("quantiles"):
        return None
    return {"sentence": found["sentence"], "chart": charts.boxes(found["quantiles"]), "count": found.get("named", 0), **images.copies(found)}


def _title(key: str) -> str:
    first, _, rest = key.partition("_")
    return f"{first}: {rest.replace('_', ' ')}" if rest else first


def _others(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the measures without a place of their own: title, number, interval, sentence, and a drawing where there is a floor beside the number."""
    found = []
    for key, value in report["measures"].items():
        if key in DRAWN and (key != "copies" or value.get("quantiles")):
            continue
        both = [value.get(name) for name in ("estimate", "floor")]
        bars = charts.pair(*both) if all(isinstance(x, int | float) for x in both) and max(both) > 0 else None
        found.append({"title": _title(key), "chart": bars, **{name: value[name] for name in ("estimate", "low", "high", "sentence")}})
    return found
