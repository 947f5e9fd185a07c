"""The experiment on arrays: what is chosen on validation, every arm and repeat, the learning curve, then every measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from datagen import registry, seeds
from datagen.evaluation import arms, choose, curve, plan
from datagen.evaluation.arms import Arm, Labelled, Part, Trial
from datagen.evaluation.choose import Choice
from datagen.evaluation.kept import Kept
from datagen.evaluation.plan import Plan
from datagen.evaluation.runner import Runner
from datagen.progress import Progress
from datagen.records import ArmResult, Finding

RECOGNISER, RANDOM, GIVEN = "recogniser", "random", "given"
"""names of encoders: trained on the real training images, a fixed net of random convolutions, and the user's own"""
CURVE, RATIO, AMOUNT = "curve", "ratio", "amount"
Encoder = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Context:
    """All that a measure may look at, of one synthetic set.

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
        choice: what was chosen on validation, with the labels that this set's images alone are learnt by.
        focus: label of the class in focus, or None.
        replicates: synthetic sets that count as one, of which each repeat took the next.
    """

    classes: tuple[str, ...]
    real: Labelled
    synthetic: Labelled
    test: Labelled
    arms: tuple[ArmResult, ...]
    encoders: Mapping[str, Encoder]
    predict: Encoder | None = None
    seed: int = 0
    device: str = "cpu"
    choice: Choice = field(default_factory=lambda: Choice(0.0))
    focus: int | None = None
    replicates: int = 1
    _memory: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def labelled(self, arm: str) -> str:
        """Return by which labels an arm learns its synthetic images, "hard" or "soft"; "hard" for arms without any."""
        alone = arm == "synthetic" and self.choice.labels == choose.SOFT
        return choose.SOFT if alone or (arm in {"synthetic", "both"} and self.synthetic.soft is not None) else choose.HARD

    @property
    def groups(self) -> np.ndarray | None:
        """The group of each unseen real image, whose images are resampled together, or None."""
        return np.array(self.test.groups) if self.test.groups else None

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

    def names(self) -> list[str]:
        """Return the names of the arms there are, in the order they were trained."""
        return list(dict.fromkeys(result.arm for result in self.arms))

    def results(self, arm: str) -> list[ArmResult]:
        """Return the results of an arm in the order of the repeats."""
        return sorted((result for result in self.arms if result.arm == arm), key=lambda result: result.repeat)

    def correct(self, arm: str) -> np.ndarray:
        """Return bool [repeats, test images] of an arm, in the order of the repeats."""
        return np.stack([result.correct for result in self.results(arm)])

    def by_replicate(self, values: np.ndarray) -> np.ndarray:
        """Return values [repeats, ...] as means over each replicate [replicates, ...]: repeats of one fit do not show what another would differ."""
        return values if self.replicates == 1 else np.stack([values[first :: self.replicates].mean(axis=0) for first in range(self.replicates)])

    def predicted(self, arm: str) -> np.ndarray:
        """Return int64 [repeats, test images] of an arm, in the order of the repeats."""
        return np.stack([result.predicted for result in self.results(arm)])


def conduct(trial: Trial, planned: Plan, *, kept: Kept | None = None, progress: Progress | None = None, given: Encoder | None = None) -> dict[str, Context]:
    """Choose on validation, train every arm as planned, and the recogniser that gives features.

    Args:
        trial: the images (all of one shape [H, W, C], labels by place in its classes) and how to train.
        planned: repeats and which parts are wanted.
        kept: finished arms; they are not trained again.
        progress: shows one stage an arm and repeat.
        given: the user's own features.

    Returns:
        what the measures look at, by synthetic set; one set under "" where several are replicates.
    """
    progress = progress or Progress(quiet=True)
    runner = Runner(trial, kept or Kept(None), progress, 1 if trial.command else planned.lanes)
    sets = trial.sets if trial.apart else ("",)
    largest = max((trial.parts[name] for name in trial.sets), key=len)
    copies = len(largest), arms.shares(largest, trial.parts["real"])
    choice = Choice(trial.settings.learning_rate, labels=choose.HARD if largest.soft is None else choose.SOFT)
    scores: dict[str, dict[str, float]] = {}
    if planned.chooses and f"{choose.SELECT} 0" in trial.parts:
        found = choose.choose(trial, copies, runner.all, given_rate=planned.given_rate, unbalanced=planned.unbalanced)
        choice = dataclasses.replace(found, labels=choice.labels)
        trial = dataclasses.replace(trial, settings=dataclasses.replace(trial.settings, learning_rate=choice.learning_rate, augment=choice.augment))
        runner = dataclasses.replace(runner, trial=trial)
        scores = choose.labels(trial, sets, runner.all)
    choices = {name: choice.labelled(scores[name], len(trial.parts[choose.WHOLE])) if name in scores else choice for name in sets}
    real = trial.parts["real"]
    labels = {name: choices[name].labels if name in scores else choose.HARD for name in sets}
    own = {name: arms.with_synthetic(name, trial.parts, name or trial.sets[0], real, labels[name]) for name in sets}
    shared = [arms.real(), arms.rival(choice.policy, *copies), *_balanced(planned)]
    results = runner.all([*shared, *(arm for each in own.values() for arm in each)], planned.repeats)
    if planned.native:
        results.append(runner.one(Arm("native", (Part("native"),), tested="native test")))
    results += _curve(runner, planned, own)
    if planned.sweeps:
        results += [result for name, each in own.items() for result in runner.all(_sweeps(trial, name, each), 1)]
    with progress.stage("recogniser for the measures", trial.settings.steps):
        encoder = arms.judge(trial, progress)
    encoders = {RECOGNISER: encoder.features, RANDOM: random_encoder(trial)} | ({GIVEN: given} if given is not None else {})
    return {
        name: Context(
            classes=trial.classes,
            real=trial.parts["real"],
            synthetic=trial.parts[name or trial.sets[0]],
            test=trial.parts["test"],
            arms=tuple(result for result in results if result.set in {"", name}),
            encoders=encoders,
            predict=encoder.predict,
            seed=trial.seed,
            device=trial.device,
            choice=choices[name],
            focus=trial.focus,
            replicates=1 if trial.apart else len(trial.sets),
        )
        for name in sets
    }


def random_encoder(trial: Trial) -> Encoder:
    """Return features by a recogniser's net whose weights were drawn and never trained: blind to what a trained one ignores."""
    untrained = dataclasses.replace(trial.settings, steps=0, recogniser="small", weights=None)
    part = trial.parts["real"]
    return arms.fit(
        [part.images], [part.labels], classes=len(trial.classes), settings=untrained, seed=seeds.integer(RANDOM, trial.seed), device=trial.device
    ).features


def _balanced(planned: Plan) -> list[Arm]:
    return [arms.balanced(balance) for balance in ("weighted", "oversampled")] if planned.unbalanced else []


def _curve(runner: Runner, planned: Plan, own: Mapping[str, tuple[Arm, ...]]) -> list[ArmResult]:
    """Train on subsamples of the real images, on all of them and on each synthetic set, for half the steps."""
    if not planned.curve:
        return []
    trial, half = runner.trial, max(1, runner.trial.settings.steps // 2)
    whole = trial.parts["real"]
    points = [*curve.sizes(len(whole), len(trial.classes)), len(whole)]
    listed = [arms.real(name=f"{CURVE} {count}", steps=half, parts=(Part("real", count),)) for count in points]
    listed += [dataclasses.replace(arm, name=f"{CURVE} {arm.name}", steps=half) for each in own.values() for arm in each if arm.name == "synthetic"]
    return runner.all(listed, planned.curve)


def _sweeps(trial: Trial, name: str, own: Sequence[Arm]) -> list[Arm]:
    """Return the arms of a set by ratio of synthetic to real images, and by amount of synthetic images, labelled as in its own arms.

    Ratios and amounts that it lacks are left out, and all amounts of a set that lacks classes.
    """
    part = next((arm.parts[0] for arm in own if arm.name == "synthetic"), Part("synthetic"))
    made, real = len(trial.parts[name or trial.sets[0]]), len(trial.parts["real"])
    ratios = [ratio for ratio in plan.RATIOS if round(ratio * real) <= made]
    mixed = [Arm(f"{RATIO} {r:g}", (Part("real"), Part("synthetic", round(r * real), share=r)), name) for r in ratios]
    alone = plan.AMOUNTS if any(arm.name == "synthetic" for arm in own) else ()
    counts = [count for f in alone if (count := round(made * f)) >= len(trial.classes)]
    amounts = [Arm(f"{AMOUNT} {count}", (dataclasses.replace(part, count=count),), name) for count in counts]
    return [*mixed, *amounts]


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
