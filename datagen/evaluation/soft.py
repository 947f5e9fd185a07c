"""By what synthetic images are learnt: their classes, matched by name, or the mean of these and a teacher's probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from datagen.errors import InputError
from datagen.evaluation.arms import Labelled
from datagen.reading.shards import Loaded
from datagen.reading.soft import labels as labels_between


def labelled(loaded: Loaded, classes: tuple[str, ...], path: str, labels: str) -> Labelled:
    """Return a set's images with labels by place in the real classes, and with soft ones where `labels` is "soft".

    Args:
        loaded: the set.
        classes: of the real images.
        path: of the set, for errors.
        labels: "hard", "soft" or "auto".

    Raises:
        InputError: soft labels are asked for, and it has none, or those of other classes.
    """
    place = np.array([classes.index(name) if name in classes else -1 for name in loaded.classes])
    made = Labelled(loaded.images, place[loaded.labels], tuple(loaded.names))
    if labels != "soft":
        return made
    if loaded.probabilities is None:
        hint = "--labels hard; a set has them where its generator has a filter, for up to 100 classes"
        raise InputError("has no probabilities for --labels soft", where=path, hint=hint)
    if not _of(loaded, classes):
        raise InputError("has other classes than the real images, so its soft labels mean something else", where=path, hint="--labels hard")
    return _by_probabilities(made, loaded)


def others(made: Mapping[str, Labelled], loaded: Mapping[str, Loaded], classes: tuple[str, ...], labels: str) -> dict[str, Labelled]:
    """Return those sets with soft labels of which validation is to decide: with `labels` "auto", and images of every class.

    Args:
        made: the sets by name, labelled by their classes.
        loaded: the same, as they were read.
        classes: of the real images.
        labels: "hard", "soft" or "auto".
    """
    known = [name for name, each in loaded.items() if labels == "auto" and _of(each, classes) and len(np.unique(each.labels)) == len(classes)]
    return {name: _by_probabilities(made[name], loaded[name]) for name in known}


def _by_probabilities(made: Labelled, loaded: Loaded) -> Labelled:
    """Return a set with soft labels float32 [N, classes], half class and half probabilities, each row adding up to 1."""
    return dataclasses.replace(made, soft=labels_between(np.asarray(loaded.probabilities), made.labels))


def _of(loaded: Loaded, classes: tuple[str, ...]) -> bool:
    return loaded.probabilities is not None and loaded.classes == classes and loaded.probabilities.shape[1] == len(classes)
