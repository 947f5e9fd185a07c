"""What every measure must do: look at a small context and say in a sentence what it found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from datagen.records import Finding


def check(measure_class: Any, context: Any) -> None:
    """Measure one small experiment twice."""
    first, second = (findings(measure_class().measure(context)) for _ in range(2))
    assert first
    assert len({finding.measure for finding in first}) == len(first), "every finding has its own name"
    for finding in first:
        assert finding.sentence.strip(), "a finding says what it means"
        assert "\n" not in finding.sentence
        if not (math.isnan(finding.low) or math.isnan(finding.high)):
            assert finding.low <= finding.estimate <= finding.high
        json.dumps(dict(finding.details))
    assert [f.sentence for f in first] == [f.sentence for f in second], "equal contexts, equal findings"


def findings(found: Finding | Iterable[Finding]) -> list[Finding]:
    return [found] if isinstance(found, Finding) else list(found)
