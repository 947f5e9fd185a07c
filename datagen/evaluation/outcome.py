"""What an evaluation leaves beside its report: every prediction, how often the unseen images were scored on, and whether it passed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datagen import seeds, storage
from datagen.errors import FailedUnder, UsageError, nearest
from datagen.evaluation.arms import Trial
from datagen.evaluation.measures.downstream import NAMES
from datagen.records import ArmResult

PREDICTIONS, SCORED = "predictions.parquet", "scored.json"


def predictions(results: Iterable[ArmResult], trial: Trial) -> bytes:
    """Return a Parquet file with one row an unseen image, arm and repeat: image (32 hex digits of its pixels), group, set, arm, repeat, label, predicted.

    Groups are numbers in place of their names, which may be those of people.
    """
    import pyarrow as pa
    from pyarrow import parquet

    test, names = trial.parts["test"], pa.array(list(map(_text, trial.classes)))
    images = pa.array([seeds.digest(image.tobytes()).hex()[:32] for image in test.images])
    codes = np.unique(np.array(test.groups), return_inverse=True)[1].tolist() if test.groups else []
    groups = pa.array([f"{code:07d}" for code in codes]) if test.groups else pa.nulls(len(test), pa.string())
    labels = names.take(pa.array(test.labels))
    tables = []
    for result in results:
        same = {key: pa.repeat(value, len(test)) for key, value in {"set": _text(result.set), "arm": result.arm, "repeat": result.repeat}.items()}
        predicted = names.take(pa.array(result.predicted))
        tables.append(pa.table({"image": images, "group": groups, **same, "label": labels, "predicted": predicted}))
    file = io.BytesIO()
    parquet.write_table(pa.concat_tables(tables), file, compression="zstd")
    return file.getvalue()


def _text(name: str) -> str:
    """Return a name as text that every file takes: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def times(folder: Path, *, again: bool) -> int:
    """Return how many evaluations in this folder scored on the unseen images; with `again` one more is counted and written down."""
    file = folder / SCORED
    known = storage.read_json(file).get("times", 0) if file.is_file() else 0
    if again:
        storage.write_json(file, {"times": known + 1})
    return int(known) + again


def bar(text: str | None) -> tuple[str, float] | None:
    """Return what --fail-under says: an arm or a difference of two, and a fraction; UsageError where it says nothing, or names no arm."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*([a-z]+(?:-[a-z]+)?)\s*>=\s*([-+]?\d+(?:\.\d+)?)\s*", text)
    if found is None:
        raise UsageError(f"cannot be understood: {text!r}", where="--fail-under", hint="such as 'both-real>=0' or 'synthetic>=0.9' (fractions)")
    for arm in found[1].split("-"):
        if arm not in NAMES:
            raise UsageError(f"no report has an arm {arm!r}", where="--fail-under", hint=nearest(arm, NAMES))
    return found[1], float(found[2])


def check(text: str | None, report: Mapping[str, Any]) -> None:
    """Raise FailedUnder where the lower end of the interval is below what --fail-under asks; UsageError where the report has no such arm."""
    asked = bar(text)
    if asked is None:
        return
    name, least = asked
    known = {arm: value["accuracy"] for arm, value in report["arms"].items()} | report["differences"]
    if name not in known:
        raise UsageError(f"the report has no {name!r}", where="--fail-under", hint=f"one of {', '.join(known)}")
    if known[name]["low"] < least:
        soft = any(report["arms"].get(arm, {}).get("labels") == "soft" for arm in name.split("-"))
        by = " (synthetic images learnt by soft labels)" if soft else ""
        raise FailedUnder(f"the lower end of the interval of {name}{by} is {known[name]['low']:+.4f}, below {least:+g}", where="--fail-under")
