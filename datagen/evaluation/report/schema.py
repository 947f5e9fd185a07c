"""What report.json holds, key by key, and how it is made from an experiment's findings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import datagen
from datagen import registry
from datagen.evaluation.experiment import Context
from datagen.evaluation.inputs import Inputs
from datagen.evaluation.plan import Plan
from datagen.evaluation.report import words
from datagen.pages.template import bare, bare_command
from datagen.records import Finding

SCHEMA = 2

KEYS: Mapping[str, str] = {
    "schema": "number of this layout; it grows when a key changes its meaning",
    "version": "of datagen that wrote it",
    "verdict": "what the comparison of real + synthetic with the best arm without synthetic images says",
    "verdict.kind": "helps: the whole interval of the difference lies above zero; harms: below; none_seen: neither; unclear: each arm trained once",
    "verdict.sentence": "the same in one sentence with its interval",
    "verdict.base": "the arm that real + synthetic was compared with, chosen on validation (chosen.base)",
    "verdict.set": "name of the synthetic set that verdict, arms, differences and measures are about",
    "caution": "sentence to read before the verdict is believed: the recogniser learnt nothing, or was still learning; else null",
    "next": "sentences: what to try next, in order",
    "arms": "by arm: real, classical (real + augmented copies), weighted, oversampled (of unbalanced sets), synthetic (only), both, native (real at its size)",
    "arms.*.accuracy": "share of unseen real images named right: mean over the repeats, ends of the 95 % interval",
    "arms.*.accuracy.mean": "fraction, 0 to 1",
    "arms.*.accuracy.low": "lower end, as low as the bootstrap over images and repeats, Student's t over repeats, or a normal interval with two more images",
    "arms.*.accuracy.high": "upper end",
    "arms.*.repeats": "accuracy of each repeat, fraction",
    "arms.*.steps": "optimisation steps, equal for all arms",
    "arms.*.images": "training images of the arm",
    "arms.*.labels": "by which its synthetic images are learnt: hard, their class labels, or soft, half the shards' probabilities; hard for arms without any",
    "arms.*.seconds": "wall time of all repeats",
    "arms.*.per_class": "one row a class, in the order of the labels",
    "arms.*.per_class.class": "name",
    "arms.*.per_class.images": "unseen real images of this class",
    "arms.*.per_class.recall": "share of them named right, mean over the repeats; null where there are none",
    "arms.*.per_class.low": "lower end of Wilson's 95 % interval for that number of images",
    "arms.*.per_class.high": "upper end",
    "arms.*.confusion": "counts [true class][predicted class], summed over the repeats; null with more than 100 classes",
    "arms.*.confused": "the pairs of classes most often taken one for the other, at most 20",
    "arms.*.confused.class": "true class",
    "arms.*.confused.taken_for": "predicted class",
    "arms.*.confused.share": "share of the true class's images, fraction",
    "differences": "accuracy of one arm minus another, image by image and repeat by repeat: both minus each arm without synthetic images, and others",
    "differences.*.mean": "fraction; 0.01 is one point",
    "differences.*.low": "lower end of the 95 % interval, as for accuracy; one more image gained and one lost (Bonett and Price 2012)",
    "differences.*.high": "upper end",
    "differences.*.per_class": "difference of recalls by class, in the order of the labels; intervals corrected for the number of classes (Bonferroni)",
    "differences.*.per_class.class": "name",
    "differences.*.per_class.mean": "fraction; null where the class has no unseen image",
    "differences.*.per_class.low": "lower end, likewise",
    "differences.*.per_class.high": "upper end",
    "differences.*.per_class.visible": "smallest difference that so many images could show, before correction",
    "measures": "by finding: what each measure saw; further keys are those of the measure",
    "measures.*.estimate": "the number; null where it could not be measured",
    "measures.*.low": "lower end of its 95 % interval, or null",
    "measures.*.high": "upper end, or null",
    "measures.*.sentence": "what it means",
    "sets": "by name where several sets were compared: verdict, arms (synthetic, both), differences, measures as above, for each; empty else",
    "sets.*.images": "synthetic images of the set",
    "sets.*.labels": "accuracy on the validation part after the set alone, by hard and soft labels; empty where nothing was tried",
    "sets.*.labels.*": "fraction, after a third of the steps",
    "chosen": "what was chosen on the validation part of the real images; no test label was read for it",
    "chosen.learning_rate": "of every arm, at its peak",
    "chosen.augment": "of the recogniser, equal for all arms: with mirror where that is plainly better; empty where nothing was chosen",
    "chosen.parts": "validation parts; candidates are trained once for each",
    "chosen.policy": "of the classically augmented copies: none, geometric, colour or flips",
    "chosen.base": "the arm without synthetic images that real + synthetic is compared with in the verdict",
    "chosen.images": "of the validation part; 0 where nothing was chosen",
    "chosen.labels": "by which synthetic images alone are learnt, hard or soft; real + synthetic is by hard ones unless --labels soft",
    "chosen.validated": "images of the validation part that the labels were chosen on: the part as it is, never the fifths; 0 where they were not",
    "chosen.scores": "accuracy on the validation part, by what was chosen (learning_rate, augment, policy, base, labels) and by candidate",
    "chosen.scores.*.*": "fraction, after a third of the steps",
    "tested": "how the unseen real images were used",
    "tested.sha256": "decided by their pixels and labels",
    "tested.times": "evaluations in this folder that trained and scored on them, this one included",
    "classes": "names in the order of the labels",
    "data": "which images were compared",
    "data.real": "the training images: train and select parts",
    "data.test": "the unseen real images",
    "data.synthetic": "the synthetic sets by name",
    "data.*.folder": "name of the folder or file, without its path",
    "data.*.images": "how many",
    "data.*.counts": "images by class",
    "data.*.sha256": "decided by pixels and labels",
    "data.synthetic.*.folder": "name of the folder or file, without its path",
    "data.synthetic.*.images": "how many",
    "data.synthetic.*.counts": "images by class",
    "data.synthetic.*.sha256": "decided by pixels and labels",
    "data.test.held_out": "whether they were held out of the same folder as the training images",
    "data.synthetic.*.production": "production id of the shards",
    "data.synthetic.*.format": "of the shards",
    "data.synthetic.*.seed": "of the shards",
    "data.synthetic.*.source": "what made them",
    "data.fingerprint": "of the real images, decided by pixels, labels and classes",
    "data.resize": "how real images were brought to the shape of the synthetic ones",
    "data.run": "name of the run whose images and hold-out were taken, or null",
    "data.later": "whether that run held no image out and the test images were given after it",
    "data.others": "synthetic sets that no manifest says to be of that run's generator",
    "measured": "how it was measured",
    "measured.shape": "channels, height, width in pixels",
    "measured.repeats": "of every arm",
    "measured.seed": "everything random follows from it",
    "measured.device": "cpu, cuda or mps",
    "measured.threads": "for computing, of each training",
    "measured.lanes": "trainings side by side",
    "measured.torch": "version of torch",
    "measured.settings": "of the recogniser, equal for all arms",
    "measured.settings.*": "see datagen.recogniser.fit.Settings",
    "measured.rate": "training images a second, forecast by a short timing",
    "measured.rates": "the same by precision, layout and threads",
    "measured.rates.*": "images a second",
    "measured.runs": "trainings of an arm's length that everything came to, as planned",
    "measured.command": "the user's own training where there was one (train_command), without its folders, or null",
    "measured.limited": "whether this machine's speed, not the images, decided the steps",
    "measured.saw": "sentences: which recogniser saw which images",
    "seconds": "wall time of the evaluation; of the last start where it was stopped in between",
}
"""every key of report.json; a star stands for any name, lists are left out of the path"""


def keys() -> dict[str, str]:
    """Return every key of report.json with its meaning: the report's own and those of every measure."""
    found = dict(KEYS)
    for name in registry.names("measures"):
        found |= {f"measures.{key}": text for key, text in registry.load("measures", name).keys.items()}
    return found


def documentation() -> str:
    """Return the keys of report.json as a Markdown list."""
    return "\n".join(f"- `{key}`: {text}" for key, text in keys().items())


@dataclass(frozen=True)
class Measured:
    """One synthetic set's experiment and the findings of every measure."""

    context: Context
    findings: Sequence[Finding]


def build(measured: Mapping[str, Measured], found: Inputs, planned: Plan, *, hashes: Mapping[str, str], times: int, seconds: float) -> dict[str, Any]:
    """Return the report: JSON values only, every key as in `keys`.

    Args:
        measured: by synthetic set, the first one being what the report is about; one under "" for a single set or replicates.
        found: where the images came from.
        planned: how the arms were trained.
        hashes: SHA-256 of real, test and each synthetic set.
        times: evaluations in this folder that scored on the unseen images, this one included.
        seconds: wall time.
    """
    name, first = next(iter(measured.items()))
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "version": datagen.__version__,
        **_about(name or found.sets[0], first),
        "caution": None,
        "next": [],
        "sets": {key: _set(key, each) for key, each in measured.items()} if len(measured) > 1 else {},
        "chosen": dataclasses.asdict(first.context.choice),
        "classes": list(first.context.classes),
        "data": _data(found, hashes),
        "tested": {"sha256": hashes["test"], "times": times},
        "measured": _measured({key: each.context for key, each in measured.items()}, found, planned),
        "seconds": round(seconds, 1),
    }
    report["caution"] = words.caution(report)
    report["next"] = words.next_steps(report)
    return report


def _about(name: str, measured: Measured, *, own: bool = False) -> dict[str, Any]:
    """Return verdict, arms, differences and measures of one set; with `own` only the arms that are its own."""
    by_name = {finding.measure: finding for finding in measured.findings}
    base = measured.context.choice.base
    compared = by_name.get(f"downstream both-{base}", by_name["downstream both-real"])
    arms = {key.split()[1]: dict(f.details) for key, f in by_name.items() if key.startswith("downstream ") and "-" not in key}
    return {
        "verdict": {"kind": compared.details["kind"], "sentence": compared.details["verdict"], "base": base, "set": name},
        "arms": {arm: value for arm, value in arms.items() if not own or arm in {"synthetic", "both"}},
        "differences": {key.split()[1]: _difference(f) for key, f in by_name.items() if key.startswith("downstream ") and "-" in key},
        "measures": {key.replace(" ", "_"): _finding(f) for key, f in by_name.items() if not key.startswith("downstream ")},
    }


def _difference(finding: Finding) -> dict[str, Any]:
    return {key: finding.details[key] for key in ("mean", "low", "high", "per_class")}


def _finding(finding: Finding) -> dict[str, Any]:
    ends = {"estimate": _number(finding.estimate), "low": _number(finding.low), "high": _number(finding.high)}
    return {**finding.details, **ends, "sentence": finding.sentence}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _data(found: Inputs, hashes: Mapping[str, str]) -> dict[str, Any]:
    described = {key: {**value, "sha256": hashes[key]} if key in {"real", "test"} else value for key, value in found.described.items()}
    return described | {"synthetic": {name: {**value, "sha256": hashes[name]} for name, value in found.described["synthetic"].items()}}


def _set(name: str, measured: Measured) -> dict[str, Any]:
    """Return what is told of one set of several."""
    scores = {"labels": dict(measured.context.choice.scores.get("labels", {}))}
    return {"images": len(measured.context.synthetic), **scores, **_about(name, measured, own=True)}


def _measured(contexts: Mapping[str, Context], found: Inputs, planned: Plan) -> dict[str, Any]:
    value, context = planned.written(), next(iter(contexts.values()))
    return {
        "shape": list(found.shape),
        "repeats": planned.repeats,
        "seed": context.seed,
        "device": context.device,
        "threads": planned.threads,
        "lanes": planned.lanes,
        "torch": str(torch.__version__),
        "settings": {key: bare(each) if isinstance(each, str) else each for key, each in value["settings"].items()},
        "rate": planned.rate,
        "rates": dict(planned.rates),
        "limited": planned.limited,
        "runs": planned.runs,
        "command": None if planned.command is None else bare_command(planned.command),
        "saw": words.saw(contexts, found, planned),
    }
