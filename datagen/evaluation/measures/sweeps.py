"""Accuracy against the ratio of synthetic to real images, and against the amount of synthetic ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from datagen.evaluation import statistics
from datagen.evaluation.experiment import AMOUNT, RATIO, Context
from datagen.evaluation.measures.downstream import ends
from datagen.records import Finding


class Sweeps:
    """Accuracy by ratio and by amount of synthetic images; only what the evaluation swept."""

    keys: ClassVar[Mapping[str, str]] = {f"sweep_{what}.points": f"one row a {what}, in the order they were trained; once each" for what in (RATIO, AMOUNT)} | {
        f"sweep_{what}.points.{key}": text
        for what in (RATIO, AMOUNT)
        for key, text in {
            "at": "synthetic images for each real one" if what == RATIO else "synthetic images, trained on alone",
            "mean": "share of unseen real images named right",
            "low": "lower end of its 95 % interval",
            "high": "upper end",
        }.items()
    }

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield one finding for the ratios and one for the amounts, where they were swept."""
        for what, title in {RATIO: "real + synthetic", AMOUNT: "synthetic images only"}.items():
            names = [name for name in context.names() if name.startswith(f"{what} ")]
            found = {float(name.split()[1]): statistics.accuracy(context.correct(name), seed=context.seed, groups=context.groups) for name in names}
            if found:
                best = max(found, key=lambda at: found[at].mean)
                sentence = f"Of {len(found)} {what}s of {title}, {best:g} did best: {100 * found[best].mean:.1f} % (one repeat each; not chosen by this)."
                points = [{"at": at, **ends(value)} for at, value in found.items()]
                yield Finding(f"sweep {what}", found[best].mean, found[best].low, found[best].high, sentence, {"points": points})
