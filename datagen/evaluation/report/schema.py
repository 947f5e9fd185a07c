"""What report.json holds, key by key, and how it is made from an experiment's findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import datagen
from datagen.evaluation.experiment import Context
from datagen.evaluation.inputs import Inputs
from datagen.evaluation.plan import Plan
from datagen.evaluation.report import words
from datagen.records import Finding

SCHEMA = 1

KEYS: Mapping[str, str] = {
    "schema": "number of this layout; it grows when a key changes its meaning",
    "version": "of datagen that wrote it",
    "verdict": "what the comparison of real + synthetic with real says",
    "verdict.kind": "helps: the whole interval of both minus real lies above zero; harms: below; none_seen: neither",
    "verdict.sentence": "the same in one sentence with its interval",
    "next": "sentences: what to try next, in order",
    "arms": "by arm: real, synthetic (only), both (every batch half real, half synthetic)",
    "arms.*.accuracy": "share of unseen real images named right: mean over the repeats, ends of the 95 % interval",
    "arms.*.accuracy.mean": "fraction, 0 to 1",
    "arms.*.accuracy.low": "lower end: the wider of a bootstrap over test images and repeats and of Student's t over repeats",
    "arms.*.accuracy.high": "upper end",
    "arms.*.repeats": "accuracy of each repeat, fraction",
    "arms.*.steps": "optimisation steps, equal for all arms",
    "arms.*.images": "training images of the arm",
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
    "differences": "accuracy of one arm minus another, image by image and repeat by repeat: both-real, synthetic-real",
    "differences.*.mean": "fraction; 0.01 is one point",
    "differences.*.low": "lower end of the 95 % interval, as for accuracy",
    "differences.*.high": "upper end",
    "distances": "by name, frechet and kernel: distance of synthetic from unseen real images in a recogniser's features; never FID",
    "distances.*.value": "synthetic against one half of the unseen real images, mean over random halves; null where it was not computed",
    "distances.*.deviation": "standard deviation of the value over the halves (a delete-half jackknife): its standard error at all images",
    "distances.*.floor": "the other half of the unseen real images against the same half: what real images have among themselves",
    "distances.*.floor_deviation": "the same of the floor",
    "distances.*.ratio": "value by floor; null where the floor is not above zero",
    "distances.*.images": "images on each side",
    "distances.*.dimension": "features an image",
    "distances.*.splits": "random halves",
    "neighbours": "the nearest real training image of each synthetic one in the same features",
    "neighbours.checked": "synthetic images looked at",
    "neighbours.of": "synthetic images in all",
    "neighbours.near": "of those checked, nearer to a training image than 99 % of unseen real images are",
    "neighbours.share": "the same as a fraction with its 95 % interval (Wilson); about 0.01 is expected of fresh images",
    "neighbours.share.mean": "fraction",
    "neighbours.share.low": "lower end",
    "neighbours.share.high": "upper end",
    "neighbours.threshold": "the first percentile of the distances of unseen real images from their nearest training image",
    "neighbours.equal_pixels": "synthetic images, of all, with exactly the pixels of a training image",
    "neighbours.equal": "the first hundred of them",
    "neighbours.equal.*.row": "place in the set",
    "neighbours.equal.*.name": "file, or file#row, relative to the set",
    "neighbours.equal.*.class": "class",
    "neighbours.quantiles": "distances to the nearest training image",
    "neighbours.quantiles.percent": "which percentiles",
    "neighbours.quantiles.synthetic": "those of the synthetic images",
    "neighbours.quantiles.unseen": "those of the unseen real images",
    "neighbours.pairs": "the closest pairs",
    "neighbours.pairs.*.row": "place in the set",
    "neighbours.pairs.*.name": "file, or file#row, relative to the set",
    "neighbours.pairs.*.class": "class",
    "neighbours.pairs.distance": "in the features",
    "neighbours.pairs.unseen_nearer": "share of unseen real images that lie as near to a training image or nearer",
    "neighbours.pairs.pixel_difference": "root mean square difference of the pixels, 0 to 255",
    "findings": "every measure's findings, those above included",
    "findings.measure": "name",
    "findings.estimate": "the number; null where it could not be measured",
    "findings.low": "lower end of its 95 % interval",
    "findings.high": "upper end",
    "findings.sentence": "what it means",
    "findings.details": "further values of measures that have no key of their own above; null for the others",
    "classes": "names in the order of the labels",
    "data": "which images were compared",
    "data.real": "the training images: train and select parts",
    "data.test": "the unseen real images",
    "data.synthetic": "the synthetic images",
    "data.*.folder": "name of the folder or file, without its path",
    "data.*.images": "how many",
    "data.*.counts": "images by class",
    "data.*.sha256": "decided by pixels and labels",
    "data.test.held_out": "whether they were held out of the same folder as the training images",
    "data.synthetic.production": "production id of the shards",
    "data.synthetic.format": "of the shards",
    "data.synthetic.seed": "of the shards",
    "data.synthetic.source": "what made them",
    "data.fingerprint": "of the real images, decided by pixels, labels and classes",
    "data.resize": "how real images were brought to the shape of the synthetic ones",
    "data.run": "name of the run whose images and hold-out were taken, or null",
    "measured": "how it was measured",
    "measured.shape": "channels, height, width in pixels",
    "measured.repeats": "of every arm",
    "measured.seed": "everything random follows from it",
    "measured.device": "cpu, cuda or mps",
    "measured.threads": "for computing",
    "measured.torch": "version of torch",
    "measured.settings": "of the recogniser, equal for all arms",
    "measured.settings.*": "see datagen.recogniser.fit.Settings",
    "measured.rate": "training images a second, forecast by a short timing",
    "measured.rates": "the same by precision, layout and threads",
    "measured.rates.*": "images a second",
    "measured.limited": "whether this machine's speed, not the images, decided the steps",
    "measured.saw": "sentences: which recogniser saw which images",
    "seconds": "wall time of the evaluation; of the last start where it was stopped in between",
}
"""every key of report.json; a star stands for any name, lists are left out of the path"""


def documentation() -> str:
    """Return the keys of report.json as a Markdown list."""
    return "\n".join(f"- `{key}`: {text}" for key, text in KEYS.items())


def build(context: Context, findings: Sequence[Finding], found: Inputs, planned: Plan, *, hashes: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """Return the report: JSON values only, every key as in `KEYS`.

    Args:
        context: the experiment.
        findings: of every measure, "downstream both-real" among them.
        found: where the images came from.
        planned: how the arms were trained.
        hashes: SHA-256 of real, synthetic and test.
        seconds: wall time.
    """
    by_name = {finding.measure: finding for finding in findings}
    judged = by_name["downstream both-real"].details
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "version": datagen.__version__,
        "verdict": {"kind": judged["kind"], "sentence": judged["verdict"]},
        "next": [],
        "arms": {name.split()[1]: dict(f.details) for name, f in by_name.items() if name.startswith("downstream ") and "-" not in name},
        "differences": {name.split()[1]: _ends(f) for name, f in by_name.items() if name.startswith("downstream ") and "-" in name},
        "distances": {name.split()[1]: dict(f.details) for name, f in by_name.items() if name.startswith("distance ")},
        "neighbours": _neighbours(by_name.get("neighbours")),
        "findings": [_finding(finding) for finding in findings],
        "classes": list(context.classes),
        "data": _data(found, hashes),
        "measured": _measured(context, found, planned),
        "seconds": round(seconds, 1),
    }
    report["next"] = words.next_steps(report)
    return report


def _ends(finding: Finding) -> dict[str, float | None]:
    return {"mean": _number(finding.estimate), "low": _number(finding.low), "high": _number(finding.high)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _neighbours(finding: Finding | None) -> dict[str, Any] | None:
    return None if finding is None else {"share": _ends(finding), **finding.details}


def _finding(finding: Finding) -> dict[str, Any]:
    known = finding.measure.split()[0] in {"downstream", "distance", "neighbours"}
    ends = {"estimate": _number(finding.estimate), "low": _number(finding.low), "high": _number(finding.high)}
    return {"measure": finding.measure, **ends, "sentence": finding.sentence, "details": None if known else dict(finding.details)}


def _data(found: Inputs, hashes: Mapping[str, str]) -> dict[str, Any]:
    return {key: {**value, "sha256": hashes[key]} if key in hashes else value for key, value in found.described.items()}


def _measured(context: Context, found: Inputs, planned: Plan) -> dict[str, Any]:
    value = planned.written()
    return {
        "shape": list(found.shape),
        "repeats": planned.repeats,
        "seed": context.seed,
        "device": context.device,
        "threads": planned.threads,
        "torch": str(torch.__version__),
        "settings": value["settings"],
        "rate": planned.rate,
        "rates": dict(planned.rates),
        "limited": planned.limited,
        "saw": words.saw(context, found, planned),
    }
