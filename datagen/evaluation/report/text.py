"""report.md: the findings as Markdown, for a pull request or a mail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datagen.evaluation import statistics
from datagen.evaluation.report import words
from datagen.pages.markdown import cell, plain

__all__ = ["cell", "markdown", "plain", "table"]

EXTREMES = 5
"""classes that gain and that lose most, of each so many"""


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown; class names and all that comes from outside is escaped, in tables for spreadsheets too.

    Args:
        report: as `schema.build` gives it.
    """
    parts = [
        "# How useful are these synthetic images?",
        f"**{words.KINDS[report['verdict']['kind']]}.** {plain(report['verdict']['sentence'])}",
        plain(report["caution"] or ""),
        plain(report["measures"].get("exchange", {}).get("sentence", "")),
        "## Accuracy on unseen real images",
        _arms(report),
        "## Differences in points",
        _differences(report),
        *_sets(report),
        "## Classes",
        _classes(report),
        "## Measures",
        "\n".join(f"- **{plain(key.replace('_', ' '))}**: {plain(value['sentence'])}" for key, value in report["measures"].items() if key != "exchange"),
        "## What to try next",
        "\n".join(f"{place}. {plain(step)}" for place, step in enumerate(report["next"], 1)),
        "## How it was measured",
        "\n".join(f"- {plain(sentence)}" for sentence in [*report["measured"]["saw"], words.tested(report)]),
        f"datagen {report['version']}, torch {report['measured']['torch']}, {report['measured']['device']}, seed {report['measured']['seed']}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are escaped already; all columns but the first are numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ends(value: Mapping[str, Any]) -> str:
    return f"{100 * value['low']:.1f} to {100 * value['high']:.1f}"


def _points(value: Mapping[str, Any]) -> list[str]:
    return [statistics.points(value["mean"]), f"{statistics.points(value['low'])} to {statistics.points(value['high'])}"]


def _arms(report: Mapping[str, Any]) -> str:
    base, rows = words.base(report), []
    for arm, value in report["arms"].items():
        title = words.title(arm, value) + (" (to beat)" if arm == base else "")
        rows.append([cell(title), f"{100 * value['accuracy']['mean']:.1f} %", _ends(value["accuracy"]), f"{value['images']:,}"])
    return table(["trained on", "accuracy", "95 % interval", "images"], rows)


def _differences(report: Mapping[str, Any]) -> str:
    return table(["difference", "points", "95 % interval"], ([cell(words.difference(key)), *_points(value)] for key, value in report["differences"].items()))


def _sets(report: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, each in report["sets"].items():
        difference = each["differences"][f"both-{words.base(each)}"]
        accuracies = [f"{100 * each['arms'][arm]['accuracy']['mean']:.1f} %" if arm in each["arms"] else "–" for arm in ("synthetic", "both")]
        accuracies[0] += " (soft labels)" if each["arms"].get("synthetic", {}).get("labels") == "soft" else ""
        rows.append([cell(name), f"{each['images']:,}", *accuracies, *_points(difference)])
    heads = ["set", "images", "synthetic only", "real + synthetic", "gain over the arm to beat", "95 % interval"]
    return ["## Sets", table(heads, rows)] if rows else []


def _classes(report: Mapping[str, Any]) -> str:
    """Return the classes that gain most and lose most over the arm to beat."""
    rows = [row for row in report["differences"][f"both-{words.base(report)}"]["per_class"] if row["mean"] is not None]
    ordered = sorted(rows, key=lambda row: -row["mean"])
    picked = ordered if len(ordered) <= 2 * EXTREMES else ordered[:EXTREMES] + ordered[-EXTREMES:]
    said = f"{len(picked):,} of {len(report['classes']):,} classes: those that gain and lose most; intervals corrected for the number of classes.\n\n"
    heads = ["class", "points", "95 % interval", "smallest that could be seen"]
    return said + table(heads, ([cell(row["class"]), *_points(row), f"{100 * row['visible']:.0f}"] for row in picked))
