"""`datagen evaluate`: how useful synthetic images are, measured on unseen real ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from datagen import storage
from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import columns, quoted, rows
from datagen.errors import FailedUnder, printable
from datagen.records import ANY, JUDGE, READ


def run(
    asked: Asked,
    shards: Annotated[list[str], typer.Argument(metavar="SHARDS...", help="folders of shards, or any labelled folder of synthetic images")],
    real: Annotated[str | None, typer.Option("--real", metavar="FOLDER", help="labelled real images to train on")] = None,
    test: Annotated[str | None, typer.Option("--test", metavar="FOLDER", help="labelled real images nobody has trained on")] = None,
    source: Annotated[str | None, typer.Option("--run", metavar="RUN", help="take the run's own images and its hold-out")] = None,
    out: Annotated[str, typer.Option("--out", metavar="REPORT", help="folder of the report")] = "report",
) -> Outcome:
    """Train the same recogniser on real, synthetic, both and classically augmented images, and compare."""
    from datagen.evaluation.run import evaluate

    try:
        value = evaluate(shards, real=real, test=test, run=source, out=out, recipe=asked.recipe, progress=asked.progress, dry_run=asked.dry_run)
    except FailedUnder:
        report = storage.read_json(Path(out) / "report.json") | {"report": str(Path(out) / "report.html")}
        asked.progress.say(summary(report))
        raise
    if asked.dry_run:
        lists = ("plan", "notes")
        return Outcome(value, "\n".join([rows(value, lists), *(printable(line) for name in lists for line in value[name])]))
    return Outcome(value, summary(value), f"open {quoted(value['report'])} in a browser")


def summary(report: Mapping[str, Any]) -> str:
    """Return what evaluate found in a few lines: accuracy of each arm and set with its interval, differences, verdict, worth, what to try next."""
    table = [("trained on", "images", "right on unseen real images", "95 % interval")]
    for name, arm in report["arms"].items():
        table.append((named(name, arm), f"{arm['images']:,}", percent(arm["accuracy"]["mean"]), interval(arm["accuracy"])))
    for title, each in list(report["sets"].items())[1:]:
        for name, arm in each["arms"].items():
            table.append((named(f"{name} {title}", arm), f"{arm['images']:,}", percent(arm["accuracy"]["mean"]), interval(arm["accuracy"])))
    shown = {f"both-{report['verdict']['base']}", "both-real", "synthetic-real"}
    for name, found in report["differences"].items():
        if name in shown:
            table.append((name, "", f"{signed(found['mean'])} points", f"{signed(found['low'])} to {signed(found['high'])}"))
    worth = [report["measures"][name]["sentence"] for name in ("exchange", "focus_recall", "focus_shortcut", "copies") if name in report["measures"]]
    advice = [f"- {sentence}" for sentence in report.get("next", [])]
    said = [report["verdict"]["sentence"], *([report["caution"]] if report["caution"] else [])]
    return "\n".join([columns(table), "", *said, *worth, *advice, f"report: {report['report']}"])


def named(name: str, arm: Mapping[str, Any]) -> str:
    """Return an arm's name, with its labels where these are soft."""
    return f"{name}, soft labels" if arm.get("labels") == "soft" else name


def signed(fraction: float) -> str:
    """Return 0.012 as "+1.2", and what rounds to nothing as "0.0"."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def percent(fraction: float) -> str:
    """Return 0.955 as "95.5 %"."""
    return f"{100 * fraction:.1f} %"


def interval(found: Mapping[str, Any]) -> str:
    """Return the ends of an interval of fractions in percent, "" where there are none (a single repeat has none everywhere)."""
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


VERB = Verb(
    run,
    "Measure how useful synthetic images are on unseen real ones.",
    (JUDGE, READ, ANY),
    usual=("quick", "full", "focus", "share", "fail_under"),
    example="datagen evaluate shards --run run --out report",
)
