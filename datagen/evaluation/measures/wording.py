"""Shares in words with their intervals, and findings that could not be measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from datagen.evaluation import statistics
from datagen.records import Finding


def counted(count: int, total: int) -> str:
    """Return a count in words with its interval: "12 of 5,000 (0.24 %, 95 % interval 0.14 to 0.42)", "0 of 5,000 (at most 0.06 %)".

    The bound of a zero is 3 / n (rule of three: Hanley & Lippman-Hand 1983, JAMA 249, p. 1743), that of an interval Wilson's.
    """
    if count == 0:
        return f"0 of {total:,} (at most {_percent(min(1.0, 3 / max(total, 1)))} %)"
    found = statistics.wilson(count / total, total)
    return f"{count:,} of {total:,} ({_percent(found.mean)} %, 95 % interval {_percent(found.low)} to {_percent(found.high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.1f}"


def unmeasured(name: str, why: str, **details: Any) -> Finding:
    """Return the finding of a measure that cannot be computed; `why` ends the sentence."""
    return Finding(name, math.nan, math.nan, math.nan, f"{name.capitalize()} was not measured: {why}.", details)


def number(value: float) -> float | None:
    """Return a JSON number of six significant digits, None for NaN."""
    return None if math.isnan(value) else float(f"{value:.6g}")


def around(value: float, error: float) -> dict[str, float | None]:
    """Return a value, its standard error and its 95 % interval by the normal distribution as JSON: value, error, low, high."""
    reach = statistics.Z * error
    return {"value": number(value), "error": number(error), "low": number(value - reach), "high": number(value + reach)}


def documented(prefix: str, keys: Mapping[str, str]) -> dict[str, str]:
    """Return keys with the name of a finding, or of a part of it, before each."""
    return {f"{prefix}.{key}": text for key, text in keys.items()}


def share_keys(of: str) -> dict[str, str]:
    """Return the keys of a share with its interval."""
    return {"mean": f"{of}, fraction", "low": "lower end of Wilson's 95 % interval", "high": "upper end"}
