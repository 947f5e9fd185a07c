"""The report's sentences: names of arms, which recogniser saw which images, and what a set is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datagen.evaluation.choose import HARD, SHORTER, SOFT
from datagen.evaluation.experiment import CURVE, Context
from datagen.evaluation.inputs import Inputs
from datagen.evaluation.plan import Plan
from datagen.evaluation.report.advice import caution, next_steps
from datagen.pages.template import bare, bare_command

__all__ = ["ARMS", "KINDS", "base", "caution", "difference", "next_steps", "saw", "tested", "title", "worth"]

ARMS: Mapping[str, str] = {
    "real": "real",
    "classical": "real + classical copies",
    "weighted": "real, class weights",
    "oversampled": "real, oversampled",
    "synthetic": "synthetic only",
    "both": "real + synthetic",
    "native": "real at its own size (once)",
}
"""arms as they are named in drawings and tables"""
KINDS: Mapping[str, str] = {"helps": "They help", "none_seen": "No difference seen", "harms": "They harm", "unclear": "Not to be told yet"}
SOFT_LABELS = "half the class, half the probabilities that the generator's filter gave"
POLICIES: Mapping[str, str] = {
    "none": "repeated as they are",
    "geometric": "shifted, scaled and turned a little",
    "colour": "changed in brightness and colour",
    "flips": "mirrored at random, shifted, scaled and turned a little",
}


def base(report: Mapping[str, Any]) -> str:
    """Return the arm to beat, of a report or one of its sets; real where there is no difference from the one chosen."""
    chosen: str = report["verdict"]["base"]
    return chosen if f"both-{chosen}" in report["differences"] else "real"


def title(arm: str, value: Mapping[str, Any]) -> str:
    """Return the name of an arm of a report in words, with its labels where these are soft."""
    return ARMS.get(arm, arm) + (" (soft labels)" if value.get("labels") == "soft" else "")


def difference(key: str) -> str:
    """Return the name of a difference such as both-real in words."""
    better, _, other = key.partition("-")
    return f"{ARMS.get(better, better)} minus {ARMS.get(other, other)}"


def worth(exchange: Mapping[str, Any]) -> str:
    """Return in a few words how many real images a set equals, from report.json's `measures.exchange`; a dash where that is unknown."""
    points = exchange.get("points")
    if not points or exchange["synthetic"] is None:
        return "–"
    if exchange["bound"] == "flat":
        return "cannot be told"
    if exchange["bound"]:
        return f"{points[-1]['images']:,} or more" if exchange["bound"] == "above" else f"fewer than {points[0]['images']:,}"
    return "–" if exchange["images"] is None else f"about {exchange['images']:,.0f}"


def tested(report: Mapping[str, Any]) -> str:
    """Return how often the unseen images were scored on in this folder, and why that matters."""
    times = report["tested"]["times"]
    if times == 1:
        return "This is the first evaluation of this folder that scored on these unseen images."
    return (
        f"{times:,} evaluations of this folder scored on these unseen images, this one included. "
        "Whoever chooses among sets by their results has chosen by the test, and should confirm the choice on fresh images."
    )


def saw(contexts: Mapping[str, Context], found: Inputs, planned: Plan) -> list[str]:
    """Return sentences that a reviewer can check: what was trained on what, what was chosen by which images, and who saw the unseen ones.

    Args:
        contexts: the experiment that was done, by synthetic set.
        found: where the images came from.
        planned: how the arms were trained.
    """
    context = next(iter(contexts.values()))
    channels, height, width = found.shape
    resized = (
        f"Real images were brought to the shape of the synthetic ones, {height}x{width} {'grey' if channels == 1 else 'RGB'} ({found.described['resize']})"
    )
    native = (
        "; real at its own size is the same recogniser, trained once, on the real images as large as they are, at most four times the pixels"
        if planned.native
        else ""
    )
    return [
        _recogniser(context, found, planned),
        *_arms(context, found, planned),
        _validation(context, planned),
        *(sentence for name, each in contexts.items() for sentence in _labels(each, planned, name if len(contexts) > 1 else "", apart=_apart(found, name))),
        *_curve(context),
        f"All are tested on the same {len(context.test):,} unseen real images, after the last step. No step, setting or checkpoint was chosen by them.",
        f"{resized}{native}.",
        "No unseen image has exactly the pixels of a training image or of a synthetic one; that was checked before training.",
        "The measures use the features and probabilities of one more recogniser of the same kind, trained on the real training images with a seed of its own; "
        "it filtered and chose nothing.",
        _generator(found),
    ]


def _recogniser(context: Context, found: Inputs, planned: Plan) -> str:
    s, many = planned.settings, f"{planned.repeats} {'repeat' if planned.repeats == 1 else 'repeats'} an arm"
    if planned.command:
        return f"Every arm trains by the user's own command ({bare_command(planned.command)}); {many}."
    way = context.choice.augment or s.augment
    mirrored = "" if "mirror" in way else ", never mirrored"
    augmented = f"changed at random by {way.replace(',', ' and ')}{mirrored}" if way != "none" else "not augmented"
    begin = "begins with the same file of weights" if s.weights else "from scratch"
    rate, net = context.choice.learning_rate or s.learning_rate, bare(s.recogniser)
    return (
        f"Every arm trains the same recogniser ({net}) {begin} for {s.steps:,} steps of {s.batch} images at a learning rate of {rate:g}, {augmented}. "
        f"Equal repeats of all arms begin with the same weights; {many}."
    )


def _arms(context: Context, found: Inputs, planned: Plan) -> list[str]:
    names, real, made = context.names(), len(context.real), len(context.synthetic)
    parts = [f"Real trains on {real:,} real images"]
    if "classical" in names:
        copies = context.results("classical")[0].images - real
        policy = context.choice.policy
        parts.append(f"real + classical copies also on {copies:,} copies of them, {POLICIES.get(policy, policy)} (policy {policy})")
    if "weighted" in names:
        parts.append("real with class weights counts rarer classes more in the loss")
    if "oversampled" in names:
        parts.append("real oversampled shows them more often")
    if "synthetic" in names:
        half = "half of every batch from each, so that it sees each real image half as often in the same number of steps"
        half = "all of them handed to the command" if planned.command else half
        parts += [f"synthetic only on {made:,} synthetic ones", f"real + synthetic on both, {half}"]
    else:
        parts.append(f"real + synthetic also on {made:,} synthetic ones, each image counting alike, since they lack classes")
    sentences = ["; ".join(parts) + "."]
    if len(found.sets) > 1 and context.arms and not any(result.set for result in context.arms):
        sentences.append(
            f"The {len(found.sets)} synthetic sets are replicates of one recipe: each repeat takes the next ({', '.join(found.sets)}). "
            f"Intervals are over the sets; the learning curve, the pictures and what is measured of the images themselves show {found.sets[0]} alone."
        )
    return sentences


def _validation(context: Context, planned: Plan) -> str:
    """Return what was chosen on the validation part, with the figures."""
    choice = context.choice
    if not choice.images:
        return (
            "Nothing was chosen on validation: learning rate and policy of the copies are the usual or given ones, and real + synthetic is compared with "
            f"{ARMS.get(choice.base, choice.base)}."
        )
    titles = {"learning_rate": "the learning rate", "augment": "the augmentation", "policy": "the policy of the classical copies", "base": "the arm to beat"}
    won = {"learning_rate": f"{choice.learning_rate:g}", "augment": choice.augment, "policy": choice.policy, "base": choice.base}
    said = []
    for what, title in titles.items():
        scores = choice.scores.get(what, {})
        others = [f"{ARMS.get(name, name)} gave {100 * score:.1f} %" for name, score in scores.items() if name != won[what]]
        own = f"{100 * scores[won[what]]:.1f} %; " if won[what] in scores else ""
        name = ARMS.get(won[what], won[what]) if what == "base" else won[what]
        said.append(f"{title} {name} ({own}{', '.join(others) or 'nothing else was tried'})")
    steps = max(1, planned.settings.steps // SHORTER)
    return (
        f"{_parts(choice.parts)} {choice.images:,} of the real training images decided, before any unseen image was scored on, {'; '.join(said)}. "
        f"Candidates train on the other real images for {steps:,} steps, a third; the arms then train on all of them."
    )


def _labels(context: Context, planned: Plan, name: str, *, apart: bool) -> list[str]:
    """Return by which labels a set's images are learnt, with the figures where validation decided; `apart` where the filter learnt from none of it."""
    choice, made = context.choice, f"Synthetic images{f' of {name}' if name else ''}"
    if context.synthetic.soft is not None:
        return [f"{made} are learnt by soft labels ({SOFT_LABELS}; --labels soft), real ones by their labels."]
    scores = choice.scores.get("labels")
    if not scores:
        return []
    soft, steps = choice.labels == SOFT, max(1, planned.settings.steps // SHORTER)
    hint = " datagen.ShardDataset(SHARDS).soft() gives them." if soft else ""
    unsure = (
        ""
        if apart
        else (
            " Only with --run RUN, for the sets that it made, does this report know that the filter learnt from none of the validation part; "
            "where it did, its probabilities look better there than they are."
        )
    )
    return [
        f"{made} alone are learnt by {'soft labels' if soft else 'their class labels'}: after {steps:,} steps "
        f"{100 * scores[HARD]:.1f} % of the {choice.validated:,} images of the validation part were named right by class labels, {100 * scores[SOFT]:.1f} % by "
        f"soft ones ({SOFT_LABELS}), which are taken unless class labels are better by more than a standard error. "
        f"The filter is a recogniser trained on real training images.{unsure} "
        f"Beside real images synthetic ones are learnt by their class labels (--labels).{hint}"
    ]


def _apart(found: Inputs, name: str) -> bool:
    """Whether a set, or each of those that count as one, is known to come from the run that the real images are those of."""
    made = {name} if name in found.sets else set(found.sets)
    return found.described["run"] is not None and not made.intersection(found.described["others"])


def _parts(count: int) -> str:
    return "A validation part of" if count <= 1 else f"{count} disjoint validation parts, together"


def _curve(context: Context) -> list[str]:
    points = sorted(int(name.split()[1]) for name in context.names() if name.startswith(f"{CURVE} ") and name.split()[1].isdigit())
    if not points:
        return []
    results = context.results(f"{CURVE} {points[0]}")
    compared = "; for the comparison with it the synthetic images train for as many" if f"{CURVE} synthetic" in context.names() else ""
    return [
        f"The learning curve trains on {', '.join(f'{count:,}' for count in points)} real images, every point for {results[0].steps:,} steps, "
        f"half of an arm's, {'once' if len(results) == 1 else f'{len(results)} times'}{compared}."
    ]


def _generator(found: Inputs) -> str:
    data = found.described
    if data["run"] is not None:
        own = "a folder that was given after the fit, and none of them is among its images" if data["later"] else "the run's own test images"
        kept = "held out by the run's own key" if data["test"]["held_out"] else own
        others = f" Whether the generator behind {', '.join(data['others'])} was, this report cannot know." if data["others"] else ""
        return f"The unseen images are {kept}: the generator of {data['run']} was not fitted to them.{others}"
    if data["test"]["held_out"]:
        return "The unseen images were held out here. Only with --run RUN does this report know that the generator was fitted without them."
    return "The unseen images are a folder of their own. Whether the generator was fitted without them, this report cannot know."
