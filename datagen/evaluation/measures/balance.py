"""How many synthetic images each class has, beside the real training and the unseen real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import wording
from datagen.records import Finding

LARGEST = 5
SMALL, RARE = 0.01, 0.01
"""distance, and probability by chance, from which on shares differ"""

_KEYS = {
    "apart": "half the sum over classes of the difference of shares, synthetic and real training images: 0 alike, 1 no class in common",
    "apart_test": "the same of synthetic and unseen real images",
    "floor": "the same of real training and unseen real images",
    "evenness": "entropy of the synthetic images' classes by that of equal counts: 1 where all classes are equally frequent, 0 where there is one",
    "evenness_real": "the same of the real training images",
    "per_class": "one row a class, in the order of the labels",
    "per_class.class": "name",
    "per_class.synthetic": "synthetic images",
    "per_class.real": "real training images",
    "per_class.test": "unseen real images",
    "per_class.ratio": "share of the class among synthetic images by that among real training images; null where there are none of those",
    "missing": "classes with real training images and no synthetic ones",
    "largest": "the classes whose shares differ most, at most 5",
    "largest.class": "name",
    "largest.synthetic": "share among synthetic images",
    "largest.real": "share among real training images",
    "p": "probability of counts so different if synthetic and real training images were drawn from the same shares (Pearson's chi-squared)",
    "departs": "whether a class is missing, or shares lie more than 0.01 from the real and from equal ones and p is below 0.01",
}


class Balance:
    """Class counts of the synthetic images beside those of real ones, and where they differ most."""

    keys: Mapping[str, str] = wording.documented("balance", _KEYS)

    def measure(self, context: Context) -> Finding:
        """Return the total variation distance (Levin & Peres 2017, eq. 4.1) between the classes' shares; counts are exact, so it has no interval."""
        classes = len(context.classes)
        counts = {part: np.bincount(getattr(context, part).labels, minlength=classes) for part in ("synthetic", "real", "test")}
        if not all(count.sum() for count in counts.values()):
            return wording.unmeasured("balance", "a set has no images")
        shares = {part: count / count.sum() for part, count in counts.items()}
        distance = apart(shares["synthetic"], shares["real"])
        missing = [context.classes[i] for i in np.flatnonzero((counts["synthetic"] == 0) & (counts["real"] > 0))]
        order = [int(i) for i in np.argsort(-np.abs(shares["synthetic"] - shares["real"]), kind="stable")[:LARGEST]]
        largest = [{"class": context.classes[i], "synthetic": _round(shares["synthetic"][i]), "real": _round(shares["real"][i])} for i in order]
        largest = [row for row in largest if row["synthetic"] != row["real"]]
        even_distance = apart(shares["synthetic"], np.full(classes, 1 / classes))
        even = {part: evenness(shares[part]) for part in ("synthetic", "real")}
        details = {
            "apart": _round(distance),
            "apart_test": _round(apart(shares["synthetic"], shares["test"])),
            "floor": _round(apart(shares["real"], shares["test"])),
            "evenness": wording.number(even["synthetic"]),
            "evenness_real": wording.number(even["real"]),
            "per_class": [_row(name, {part: int(count[i]) for part, count in counts.items()}, shares, i) for i, name in enumerate(context.classes)],
            "missing": missing,
            "largest": largest,
            "p": wording.number(homogeneous(counts["synthetic"], counts["real"])),
            "departs": bool(missing) or (distance > SMALL and even_distance > SMALL and homogeneous(counts["synthetic"], counts["real"]) < RARE),
        }
        return Finding("balance", distance, sentence=_sentence(distance, details), details=details)


def _round(value: float) -> float:
    return round(float(value), 6)


def _row(name: str, counts: Mapping[str, int], shares: Mapping[str, np.ndarray], label: int) -> dict[str, object]:
    ratio = shares["synthetic"][label] / shares["real"][label] if counts["real"] else math.nan
    return {"class": name, **counts, "ratio": wording.number(float(ratio))}


def _sentence(distance: float, details: Mapping[str, object]) -> str:
    missing, largest = details["missing"], details["largest"]
    assert isinstance(missing, list) and isinstance(largest, list)
    text = f"The classes' shares among synthetic and real training images differ by {100 * distance:.1f} % of the images"
    if largest:
        row = largest[0]
        text += f", most for {row['class']!r}: {100 * row['synthetic']:.1f} % beside {100 * row['real']:.1f} %"
    if missing:
        text += f"; {len(missing):,} class{'es have' if len(missing) > 1 else ' has'} no synthetic image: {', '.join(repr(name) for name in missing[:5])}"
    return text.replace("\n", " ") + "."


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return half the sum of the differences of two lists of shares [classes], 0 to 1."""
    return float(0.5 * np.abs(one - other).sum())


def evenness(shares: np.ndarray) -> float:
    """Return the entropy of shares [classes], sum 1, by its maximum, 0 to 1 (Pielou 1966, J. Theor. Biol. 13, eq. 7); NaN with one class."""
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum() / math.log(len(shares))) if len(shares) > 1 else math.nan


def homogeneous(one: np.ndarray, other: np.ndarray) -> float:
    """Return the probability, 0 to 1, of counts int [classes] so different by chance: Pearson's chi-squared test (1900, Phil. Mag. 50).

    Classes that neither has are left out.
    """
    from scipy.stats import chi2_contingency

    table = np.stack([one, other])[:, (one + other) > 0]
    return float(chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0
