"""The experiment on arrays: every arm and repeat, then every measure on what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from datagen import registry, seeds
from datagen.evaluation import arms
from datagen.evaluation.arms import Kept, Labelled, Trial
from datagen.progress import Progress
from datagen.records import ArmResult, Finding

RECOGNISER = "recogniser"
"""name of the encoder that was trained on the real training images"""


@dataclass(frozen=True)
class Context:
    """All that a measure may look at.

    Attributes:
        classes: names by label.
        real: the real training images (train and select parts).
        synthetic: the synthetic images.
        test: the unseen real images.
        arms: every arm and repeat, tested.
        encoders: by name, features float32 [N, F] of images uint8 [N, H, W, C]; "recogniser" is trained on `real` with a seed of its own.
        predict: probabilities float32 [N, classes] of images, by that recogniser; None where there is none.
        seed: decides what is drawn.
        device: where the arms were trained.
    """

    classes: tuple[str, ...]
    real: Labelled
    synthetic: Labelled
    test: Labelled
    arms: tuple[ArmResult, ...]
    encoders: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    predict: Callable[[np.ndarray], np.ndarray] | None = None
    seed: int = 0
    device: str = "cpu"
    _memory: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, part: str, limit: int) -> np.ndarray:
        """Return the rows, ascending, that are looked at where a part (real, synthetic, test) has more than `limit` images."""
        count = len(getattr(self, part))
        if count <= limit:
            return np.arange(count)
        return np.sort(seeds.stream("rows", self.seed, part, limit).permutation(count)[:limit])

    def features(self, part: str, limit: int, encoder: str = RECOGNISER) -> np.ndarray:
        """Return features float32 [rows, F] of the rows of a part; computed once, standardised by one scale.

        The scale makes the mean variance of a feature over the unseen real images 1, so that figures of different
        encoders are of one order; it changes no comparison.
        """
        scale = ("scale", encoder, 0)
        if scale not in self._memory:
            unseen = self.encoders[encoder](self.test.images[self.rows("test", 10_000)])
            centre, deviation = unseen.mean(0), float(np.sqrt(max(unseen.var(0).mean(), 1e-12)))
            self._memory[scale] = np.concatenate([centre, [deviation]]).astype(np.float32)
        if (part, encoder, limit) not in self._memory:
            found = self.encoders[encoder](getattr(self, part).images[self.rows(part, limit)])
            standard = self._memory[scale]
            self._memory[part, encoder, limit] = (found - standard[:-1]) / standard[-1]
        return self._memory[part, encoder, limit]

    def probabilities(self, part: str, limit: int) -> np.ndarray | None:
        """Return probabilities float32 [rows, classes] of the rows of a part, computed once; None where no recogniser predicts."""
        if self.predict is None:
            return None
        if ("predict " + part, "", limit) not in self._memory:
            self._memory["predict " + part, "", limit] = self.predict(getattr(self, part).images[self.rows(part, limit)])
        return self._memory["predict " + part, "", limit]

    def correct(self, arm: str) -> np.ndarray:
        """Return bool [repeats, test images] of an arm, in the order of the repeats."""
        return np.stack([result.correct for result in sorted(self.arms, key=lambda r: r.repeat) if result.arm == arm])

    def predicted(self, arm: str) -> np.ndarray:
        """Return int64 [repeats, test images] of an arm, in the order of the repeats."""
        return np.stack([result.predicted for result in sorted(self.arms, key=lambda r: r.repeat) if result.arm == arm])


def compare(trial: Trial, repeats: int, *, kept: Kept | None = None, progress: Progress | None = None) -> Context:
    """Train every arm `repeats` times, and once the recogniser that gives features.

    Args:
        trial: the images (all of one shape [H, W, C], labels by place in its classes) and how to train.
        repeats: of every arm.
        kept: finished arms; they are not trained again.
        progress: shows one stage an arm and repeat.

    Returns:
        what the measures look at.
    """
    kept, progress = kept or Kept(None), progress or Progress(quiet=True)
    results = []
    for repeat in range(repeats):
        for arm in arms.ARMS:
            found = kept.get(trial, arm, repeat)
            if found is None:
                with progress.stage(f"{arm}, repeat {repeat + 1} of {repeats}", trial.settings.steps):
                    found = arms.run(trial, arm, repeat, progress)
                kept.put(trial, found)
            progress.say(f"{arm}, repeat {repeat + 1} of {repeats}: {100 * found.correct.mean():.1f} % of {len(found.correct):,} unseen real images right")
            results.append(found)
    with progress.stage("recogniser for the measures", trial.settings.steps):
        encoder = arms.judge(trial, progress)
    parts, encoders = trial.parts, {RECOGNISER: encoder.features}
    shown = parts["real"], parts["synthetic"], parts["test"]
    return Context(trial.classes, *shown, tuple(results), encoders, encoder.predict, trial.seed, trial.device)


def measure(context: Context, names: Iterable[str] | None = None, progress: Progress | None = None) -> list[Finding]:
    """Return the findings of every measure of the registry, or of those named, in its order."""
    chosen = list(registry.names("measures") if names is None else names)
    findings: list[Finding] = []
    progress = progress or Progress(quiet=True)
    with progress.stage("measures", len(chosen)):
        for name in chosen:
            found = registry.load("measures", name)().measure(context)
            findings += [found] if isinstance(found, Finding) else list(found)
            progress.advance(1, name)
    return findings
