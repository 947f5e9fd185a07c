"""One class in focus: its recall at the real arm's false alarms, and whether the recogniser takes blur for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from datagen.evaluation import focus, statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures.downstream import NAMES, ends
from datagen.records import Finding


class Rare:
    """Recall of the class in focus at equal false alarms, and its shortcut; nothing without --focus."""

    keys: ClassVar[Mapping[str, str]] = {
        "focus_recall.class": "the class in focus",
        "focus_recall.images": "unseen real images of it",
        "focus_recall.false_alarms": "share of other unseen images that the real arm names as it; every arm's threshold lets as many through",
        "focus_recall.arms": "recall by arm at those false alarms",
        "focus_recall.arms.*.mean": "fraction",
        "focus_recall.arms.*.low": "lower end of the 95 % interval",
        "focus_recall.arms.*.high": "upper end",
        "focus_recall.gain": "recall of both minus the arm to beat",
        "focus_recall.gain.mean": "fraction",
        "focus_recall.gain.low": "lower end of its 95 % interval",
        "focus_recall.gain.high": "upper end",
        "focus_recall.gains": "recall of both minus that of each other arm",
        "focus_recall.gains.*.mean": "fraction",
        "focus_recall.gains.*.low": "lower end of its 95 % interval",
        "focus_recall.gains.*.high": "upper end",
        "focus_shortcut.turned": "share of unseen images of other classes that blur turns into the class, by arm",
        "focus_shortcut.turned.*": "fraction",
        "focus_shortcut.suspected": "whether synthetic images taught the recogniser to take blur for the class",
    }

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield recall and shortcut of the class in focus."""
        label, labels = context.focus, context.test.labels
        if label is None or not (labels == label).any():
            return
        name, real = context.classes[label], context.results("real")
        found = {arm: focus.recalls(real, context.results(arm), labels, label) for arm in NAMES if arm in context.names() and arm != "native"}
        base = context.choice.base if context.choice.base in found else "real"
        groups = None if context.groups is None else context.groups[labels == label]
        found = {arm: context.by_replicate(values) for arm, values in found.items()}
        gains = {arm: statistics.paired(found["both"], values, seed=context.seed, groups=groups) for arm, values in found.items() if arm != "both"}
        gain, images = gains[base], int((labels == label).sum())
        rate = float(np.mean([focus.alarms(result, labels, label) for result in real]))
        sentence = (
            f"At the real arm's false alarms ({100 * rate:.1f} %) the recall of {name!r} changes by {statistics.points(gain.mean)} points from "
            f"{NAMES[base]} to real + synthetic (95 % interval {statistics.points(gain.low)} to {statistics.points(gain.high)}, {images} unseen images)."
        )
        rows = {arm: ends(statistics.accuracy(values, seed=context.seed, groups=groups)) for arm, values in found.items()}
        details = {"class": name, "images": images, "false_alarms": rate, "arms": rows, "gain": ends(gain)}
        details |= {"gains": {arm: ends(value) for arm, value in gains.items()}}
        yield Finding("focus recall", gain.mean, gain.low, gain.high, sentence, details)
        yield self._shortcut(context, name, label)

    def _shortcut(self, context: Context, name: str, label: int) -> Finding:
        labels, arms = context.test.labels, {arm: context.results(arm) for arm in ("real", "both")}
        excess, suspected = focus.shortcut(arms["real"], arms["both"], labels, label, seed=context.seed)
        shares = {arm: float(focus.turned(results, labels, label).mean()) for arm, results in arms.items()}
        word = "A shortcut is suspected" if suspected else "No shortcut was seen"
        sentence = (
            f"{word}: blurred, {100 * shares['both']:.1f} % of the unseen images of other classes turn into {name!r} with synthetic images, "
            f"{100 * shares['real']:.1f} % without."
        )
        return Finding("focus shortcut", excess.mean, excess.low, excess.high, sentence, {"turned": shares, "suspected": suspected})
