"""Fresh images in a training process: none twice, whatever the workers, processes, epochs and interruptions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import datagen
from datagen.errors import UsageError
from datagen.recipe import gather
from datagen.synthesis.painter import RulePainter, look


def stream(**more: Any) -> Any:
    return datagen.StreamDataset("rule:shapes", **{"per_epoch": 640, "seed": 3} | more)


def seen(source: Any, workers: int = 0, **more: Any) -> list[tuple[bytes, int]]:
    """Return every image of an epoch, as bytes, with its label."""
    found = []
    for images, labels in DataLoader(source, batch_size=50, num_workers=workers, **more):
        found += [(image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_an_epoch_has_its_images_once_each_and_the_next_has_others(workers: int) -> None:
    source = stream()
    first = seen(source, workers)
    source.set_epoch(1)
    second = seen(source, workers)
    assert len(first) == len(second) == len(set(first + second)) // 2 == 640
    many = Counter(label for _, label in first)
    assert len(many) == len(source.classes) and max(many.values()) - min(many.values()) <= 2 * 64
    source.set_epoch(0)
    assert seen(source, workers) == first, "the same epoch again is the same"
    assert len({label for _, label in first[:50]}) > 1, "classes are mixed"


def test_labels_name_what_is_seen() -> None:
    source = stream()
    rule = RulePainter(look("rule:shapes", gather(None, [])), 3)
    known = {image.tobytes(): label for label, name in enumerate(source.classes) for image in rule.tile(name, 0, 192).images}
    found = [(image.permute(1, 2, 0).numpy().tobytes(), label) for image, label in source]
    assert all(known[image] == label for image, label in found) and {label for _, label in found} == set(range(len(source.classes)))
    made = datagen.StreamDataset("rule:shapes", per_epoch=64, seed=3, transform=lambda image: (image.mode, image.size))
    assert [kind for kind, _ in made] == [("RGB", (32, 32))] * 64


def test_processes_share_an_epoch() -> None:
    """Row M3."""
    parts = [seen(stream(per_epoch=643, rank=rank, shares=3), 2) for rank in range(3)]
    assert [len(part) for part in parts] == [len(stream(per_epoch=643, rank=rank, shares=3)) for rank in range(3)] == [215, 214, 214]
    assert len(set().union(*map(set, parts))) == 643
    with pytest.raises(UsageError, match="process 3 of 3"):
        stream(rank=3, shares=3)


@pytest.mark.parametrize("shares", [2, 3, 6, 7])
def test_every_process_sees_every_class_as_often(shares: int) -> None:
    """Tiles of one class dealt out in turn would leave a process with some of the classes, as often as both numbers have a divisor."""
    size = len(stream().classes)
    parts = [seen(stream(per_epoch=shares * size * 64, rank=rank, shares=shares)) for rank in range(shares)]
    assert all(Counter(label for _, label in part) == dict.fromkeys(range(size), 64) for part in parts)
    assert len(set().union(*map(set, parts))) == shares * size * 64
    few = [seen(stream(per_epoch=shares * 2 * 64, rank=rank, shares=shares)) for rank in range(shares)]
    many = Counter(label for part in few for _, label in part)
    assert max(many.values()) - min(many[label] for label in range(size)) <= 64


def test_after_an_interruption_the_rest_of_the_epoch_is_new() -> None:
    """Row M4."""
    source, begun = stream(), []
    for number, (image, _) in enumerate(source, 1):
        begun.append(image.numpy().tobytes())
        if number == 200:
            break
    state = source.state_dict(seen=200)
    again = stream()
    again.load_state_dict(state)
    rest = [image for image, _ in seen(again, 2)]
    assert len(again) == len(rest) == 440
    again.set_epoch(1)
    later = [image for image, _ in seen(again)]
    assert len(set(begun + rest + later)) == 200 + 440 + 640
    assert again.state_dict()["seen"] == 0


def test_a_worker_that_is_kept_alive_hears_of_the_epoch() -> None:
    source = stream(per_epoch=128)
    loader = DataLoader(source, batch_size=64, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        source.set_epoch(epoch)
        epochs.append(torch.cat([images for images, _ in loader]))
    assert not torch.equal(*epochs)
