"""The judge: it learns, repeats itself exactly, shows every image, keeps labels when it augments, and takes any net by name."""

from __future__ import annotations

import builtins
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import ResourceError, UsageError
from datagen.recogniser import augment, nets, timing
from datagen.recogniser.fit import Mix, Settings, Source, allotted, fit, peak_share

TINY = Settings(steps=30, batch=16, width=4)


def bars(count: int, classes: int = 3, size: tuple[int, int] = (12, 10), channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.int64)
    return np.stack([draw(rng, label, *size, channels) for label in labels.tolist()]), labels


def test_it_learns_what_can_be_seen_and_not_what_cannot() -> None:
    images, labels = bars(90)
    unseen, truth = bars(60, seed=1)
    fitted = fit(images, labels, classes=3, settings=TINY, seed=0)
    assert (fitted.predict(unseen).argmax(1) == truth).mean() > 0.9
    shuffled = np.random.default_rng(0).permutation(labels)
    blind = fit(images, shuffled, classes=3, settings=TINY, seed=0)
    assert (blind.predict(unseen).argmax(1) == truth).mean() < 0.7


def test_probabilities_and_features() -> None:
    images, labels = bars(30, channels=3)
    fitted = fit(images, labels, classes=3, settings=TINY, seed=0)
    probabilities, features = fitted.predict(images, batch=7), fitted.features(images, batch=11)
    assert probabilities.dtype == features.dtype == np.float32
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    last = nets.last_linear(fitted.module)
    logits = torch.from_numpy(features) @ last.weight.T + last.bias
    assert np.allclose(logits.detach().softmax(1).numpy(), probabilities, atol=1e-5)
    assert fitted.predict(images[:0]).shape == (0, 3)
    assert not fitted.module.training


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    images, labels = bars(40)
    first, again, other = (fit(images, labels, classes=3, settings=TINY, seed=seed).module.state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_it_leaves_the_global_random_numbers_alone() -> None:
    images, labels = bars(20)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fit(images, labels, classes=3, settings=Settings(steps=2, batch=8, width=4), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_several_sets_share_every_batch() -> None:
    one, other = bars(20), bars(50, seed=2)
    marked = (one[0], np.zeros(20, np.int64)), (other[0], np.ones(50, np.int64))
    seen: list[torch.Tensor] = []
    real = torch.nn.functional.cross_entropy

    def note(logits: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(labels)
        return real(logits, labels, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datagen.recogniser.fit.F.cross_entropy", note)
        fit([m[0] for m in marked], [m[1] for m in marked], classes=2, settings=Settings(steps=6, batch=10, width=4), seed=0)
    assert [labels.sum().item() for labels in seen] == [5] * 6
    assert {len(labels) for labels in seen} == {10}


@given(count=st.integers(1, 40), batch=st.integers(1, 25))
def test_every_image_is_shown_once_before_any_comes_again(count: int, batch: int) -> None:
    source = Source(np.zeros((count, 8, 8, 1), np.uint8), np.arange(count), ("k", 1), "cpu")
    shown = np.concatenate([source.take(batch)[1].numpy() for _ in range(-(-3 * count // batch))])
    for epoch in range(3):
        assert sorted(shown[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))
    again = Source(np.zeros((count, 8, 8, 1), np.uint8), np.arange(count), ("k", 1), "cpu")
    assert list(islice(again._order, count)) == shown[:count].tolist()


def test_a_memory_map_and_its_copy_give_the_same(tmp_path: Path) -> None:
    images, labels = bars(20)
    (tmp_path / "x.u8").write_bytes(images.tobytes())
    mapped = np.memmap(tmp_path / "x.u8", np.uint8, "r", shape=images.shape)
    small = Settings(steps=3, batch=8, width=4)
    first, second = (fit(x, labels, classes=3, settings=small, seed=0).predict(images) for x in (images, mapped))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("images", "labels"), [(np.zeros((0, 8, 8, 1), np.uint8), []), (np.zeros((2, 8, 8, 1), np.uint8), [0]), (np.zeros((2, 8, 8, 1)), [0, 1])]
)
def test_wrong_arrays_are_refused(images: np.ndarray, labels: list[int]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        fit(images, np.array(labels, np.int64), classes=2, settings=TINY, seed=0)


def test_progress_counts_steps() -> None:
    images, labels = bars(30)
    told: list[tuple[int, str]] = []
    fit(images, labels, classes=3, settings=Settings(steps=7, batch=8, width=4), seed=0, progress=lambda n, text: told.append((n, text)))
    assert sum(n for n, _ in told) == 7
    assert told[0][1].startswith("loss ")


@pytest.mark.parametrize(("batch", "shares", "counts"), [(128, [1, 1], [64, 64]), (9, [1, 1], [5, 4]), (10, [4, 1], [8, 2]), (8, [1, 1000], [1, 7])])
def test_sets_share_a_batch(batch: int, shares: list[float], counts: list[int]) -> None:
    assert allotted(batch, shares) == counts


def test_oversampling_shows_every_class_equally_often() -> None:
    labels = np.repeat([0, 1, 2], [50, 5, 1])
    images = np.broadcast_to(labels[:, None, None, None], (56, 8, 8, 1)).astype(np.uint8)
    _, taken = Source(images, labels, ("key",), "cpu", balanced=True).take(150)
    assert np.bincount(taken.numpy()).tolist() == [50, 50, 50]
    _, plain = Source(images, labels, ("key",), "cpu").take(56)
    assert np.bincount(plain.numpy()).tolist() == [50, 5, 1]


def test_class_weights_favour_a_class_and_soft_labels_are_learnt() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8), rng.integers(0, 2, 200)
    quick = Settings(steps=30, batch=32, width=4, augment="none")
    weighted = fit(images, labels, classes=2, settings=quick, seed=0, mix=Mix(class_weights=(1.0, 50.0)))
    assert (weighted.predict(images).argmax(1) == 1).mean() > 0.9, "what is pure noise goes to the heavier class"
    soft = fit(images, np.tile([[0.9, 0.1]], (200, 1)), classes=2, settings=quick, seed=0)
    assert soft.predict(images)[:, 0].mean() == pytest.approx(0.9, abs=0.06)


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [peak_share(step, 100) for step in range(100)]
    assert max(shares) == 1.0
    assert shares.index(1.0) == 19
    assert shares == sorted(shares[:20]) + sorted(shares[20:], reverse=True)
    assert 0 < shares[-1] < 0.02
    assert peak_share(0, 1) == 1.0


@given(height=st.integers(8, 40), width=st.integers(8, 40), seed=st.integers(0, 99))
def test_shifts_move_whole_pixels_and_never_mirror(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.random((3, 2, height, width), dtype=np.float32))
    moved = augment.augment(images, ("shift",), torch.Generator().manual_seed(seed))
    down, across = augment.reach(height, width)
    for before, after in zip(images, moved, strict=True):
        places = [
            (dy, dx)
            for dy in range(-down, down + 1)
            for dx in range(-across, across + 1)
            if torch.equal(
                after[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)],
                before[:, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)],
            )
        ]
        assert len(places) == 1


def test_zoom_keeps_the_middle_and_the_sides_in_place() -> None:
    image = torch.zeros(64, 1, 24, 24)
    image[:, :, 10:14, 2:6] = 1.0
    moved = augment.augment(image, augment.parse("shift,zoom,contrast"), torch.Generator().manual_seed(0))
    columns = (moved.sum(2) * torch.arange(24)).sum((1, 2)) / moved.sum((1, 2, 3))
    assert moved.shape == image.shape
    assert columns.max() < 11, "a mirrored image would lie at 20"
    assert torch.equal(augment.augment(image, (), torch.Generator()), image)


def test_mirroring_turns_about_half_of_the_images() -> None:
    images = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    found = augment.augment(images, ("mirror",), torch.Generator().manual_seed(0))
    turned = sum(torch.equal(one, images[0].flip(2)) for one in found)
    assert 70 < turned < 130 and turned + sum(torch.equal(one, images[0]) for one in found) == 200


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'shift'"):
        augment.parse("shfit")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 57), (3, 200, 120), (1, 256, 256)])
def test_the_small_net_takes_any_size(shape: tuple[int, int, int]) -> None:
    net = nets.Small(width=4).build(1000, shape)
    assert net(torch.randn(2, *shape)).shape == (2, 1000)


def test_a_torchvision_model_by_name() -> None:
    images, labels = bars(8, size=(8, 8))
    fitted = fit(images, labels, classes=3, settings=Settings(recogniser="shufflenet_v2_x0_5", steps=1, batch=4), seed=0)
    assert fitted.predict(images).shape == (8, 3)
    assert fitted.features(images).shape == (8, 1024)


def test_a_torchvision_model_that_needs_larger_images_gets_them_enlarged() -> None:
    net = nets.find("alexnet").build(2, (3, 16, 16))
    assert net.side == 64
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        nets.find("resnet8")


def test_a_broken_torchvision_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("torchvision"):
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *rest, **options)

    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ResourceError, match=r"torchvision cannot be imported; pip install .*nms") as caught:
        nets.find("resnet18")
    assert caught.value.code == 6
    assert nets.find("small")


OWN = """
from torch import nn

class Flat:
    def build(self, classes, shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

class Headless:
    def build(self, classes, shape):
        return nn.Sequential(nn.Conv2d(shape[0], classes, shape[1:]), nn.Flatten())
"""


def test_a_net_from_the_users_own_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN)
    images, labels = bars(9)
    fitted = fit(images, labels, classes=3, settings=Settings(recogniser=f"{tmp_path}/net.py:Flat", steps=2, batch=4), seed=0)
    assert fitted.features(images).shape == (9, 120)
    headless = fit(images, labels, classes=3, settings=Settings(recogniser=f"{tmp_path}/net.py:Headless", steps=1, batch=4), seed=0)
    with pytest.raises(UsageError, match="no linear layer"):
        headless.features(images)


def test_the_timing_chooses_what_it_measured_as_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = {("fp32", "contiguous"): 100.0, ("fp32", "channels-last"): 104.0, ("bf16", "channels-last"): 300.0}
    tried: list[int] = []

    def rate(settings: Settings, *rest: Any) -> float:
        tried.append(torch.get_num_threads())
        return speed[settings.precision, settings.layout] * (1 if torch.get_num_threads() == 2 else 1.5)

    monkeypatch.setattr(timing, "_rate", rate)
    before = torch.get_num_threads()
    try:
        found = timing.choose(Settings(steps=77), (1, 8, 8), 2, threads=[2, 1])
        assert (found.settings.precision, found.settings.layout, found.threads, found.rate) == ("bf16", "channels-last", 1, 900.0)
        assert found.settings.steps == 77
        assert tried == 2 * [2, 2, 1, 1] + 2 * [1, 1] + 2 * [1, 1, 1] and found.lanes == 2, "what is compared takes turns"
        plain = timing.choose(Settings(), (1, 8, 8), 2, plain=True, threads=[1])
        assert (plain.settings.precision, plain.settings.layout) == ("fp32", "contiguous")
    finally:
        torch.set_num_threads(before)


def test_the_timing_measures_a_rate() -> None:
    assert timing._rate(Settings(steps=4, batch=4, width=4), *bars(4, size=(8, 8)), 3, "cpu") > 1
