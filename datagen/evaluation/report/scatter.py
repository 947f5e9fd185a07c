"""A map of real and synthetic images by the two leading directions of the recogniser's features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from datagen.evaluation.experiment import RECOGNISER, Context
from datagen.evaluation.report.matrices import short
from datagen.pages.svg import element

EACH, NAMED = 1000, 12
"""images of each side, and classes up to which their middles are named"""
WIDTH, HEIGHT, EDGE = 640, 420, 14
LETTER, LINE = 10, 22
"""size of a name's letter and line in units of the map, at its largest"""


def features(context: Context) -> Markup | None:
    """Draw unseen real and synthetic images, at most 1,000 each, as points by principal components of features; None where there are no features.

    Args:
        context: of the experiment; the recogniser's features of its parts test and synthetic are taken.
    """
    if RECOGNISER not in context.encoders:
        return None
    sides = {"real": context.features("test", EACH), "synthetic": context.features("synthetic", EACH)}
    places = project(np.concatenate(list(sides.values())))
    split = len(sides["real"])
    inside = framed(places)
    groups = [_points(inside[:split], "real"), _points(inside[split:], "synthetic")]
    names: list[Markup] = []
    if len(context.classes) <= NAMED:
        labels = context.test.labels[context.rows("test", EACH)]
        middles = {short(context.classes[label], 14): np.median(inside[:split][labels == label], axis=0) for label in np.unique(labels)}
        names = [element("text", name, x=x, y=y, text_anchor="middle", class_="halo") for name, (x, y) in apart(middles).items()]
    content = Markup("").join([*groups, *names])
    return element("svg", content, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label="map of real and synthetic images by features", class_="map")


def project(values: np.ndarray) -> np.ndarray:
    """Return float64 [N, 2], values [N, F] on their two leading principal components (scikit-learn); zeros where they have fewer."""
    from sklearn.decomposition import PCA

    count = min(2, *values.shape)
    found = PCA(n_components=count, svd_solver="full").fit_transform(values.astype(np.float64))
    return np.pad(found, ((0, 0), (0, 2 - count)))


def framed(places: np.ndarray) -> np.ndarray:
    """Return places [N, 2] in units of the map: the middle 99 % of either direction fills it, what lies beyond is cut at its edge."""
    low, high = np.quantile(places, [0.005, 0.995], axis=0)
    share = np.clip((places - low) / np.maximum(high - low, 1e-9), 0, 1)
    moved: np.ndarray = EDGE + share * (np.array([WIDTH, HEIGHT]) - 2 * EDGE)
    return moved


def apart(places: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """Return whole places of names, moved down where one would cover another.

    Args:
        places: by name its middle (x, y) in units of the map.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, (x, y) in sorted(places.items(), key=lambda item: (float(item[1][1]), item[0])):
        reach = LETTER * len(name)
        at = min(max(round(x), round(reach / 2)), WIDTH - round(reach / 2)), round(y) + 5
        while any(abs(at[0] - other[0]) < (reach + LETTER * len(text)) / 2 and abs(at[1] - other[1]) < LINE for text, other in found.items()):
            at = at[0], at[1] + LINE
        found[name] = at
    return found


def _points(places: np.ndarray, kind: str) -> Markup:
    circles = "".join(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="2.6"/>' for x, y in places)
    return element("g", Markup(circles), class_=f"points {kind}")
