"""In what precision images are drawn: as timed by `fit`, on chips of that kind alone, and the same in every continuation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from synthetic import generator, own

from datagen import drawing, machine
from datagen.contracts import Spec, State
from datagen.errors import UsageError
from datagen.generators.cvae import CVAE
from datagen.recipe import gather
from datagen.records import Recipe
from datagen.synthesis import painter
from datagen.synthesis.run import synthesize

HALF = {"value": "bf16", "why": "timed", "device": "cpu", "chip": "chip_bf16"}


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A processor whose half-precision instructions are called as in HALF."""
    monkeypatch.setattr(machine, "half", lambda: "chip_bf16")
    return monkeypatch


def built() -> tuple[CVAE, State]:
    """Return a family and its nets, untrained."""
    family, spec = CVAE(), Spec(3, (1, 16, 16), (9, 9, 9), Recipe(family="cvae", width=8, latent=4))
    state = State(spec)
    torch.manual_seed(0)
    for stage in family.stages(spec):
        stage.build(state)
    return family, state


@pytest.mark.parametrize(("half", "found"), [(1.0, "bf16"), (1.85, "fp32"), (9.0, "fp32")])
def test_bf16_draws_where_it_is_plainly_faster(chip: pytest.MonkeyPatch, half: float, found: str) -> None:
    chip.setattr(drawing.turns, "taken", lambda trials, long: [[2.0], [half]])
    threads = torch.get_num_threads()
    timed = drawing.timed(*built(), "cpu")
    assert (timed["value"], timed["device"], timed["chip"]) == (found, "cpu", "chip_bf16")
    assert "fp32 2e+03 ms" in timed["why"] and torch.get_num_threads() == threads
    assert drawing.precision_of({"precision": timed}, "cpu") == found


def test_what_is_asked_for_is_not_timed(chip: pytest.MonkeyPatch) -> None:
    chip.delattr(drawing.turns, "taken")
    assert [drawing.timed(*built(), "cpu", asked)["value"] for asked in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_the_timing_draws_in_both_precisions_and_leaves_the_nets_alone() -> None:
    family, state = built()
    before = {key: tensor.clone() for key, tensor in state.modules["decoder"].state_dict().items()}
    timed = drawing.timed(family, state, "cpu")
    assert "fp32" in timed["why"] and "bf16" in timed["why"] and timed["chip"] == machine.half()
    for key, tensor in state.modules["decoder"].state_dict().items():
        assert torch.equal(tensor, before[key]) and tensor.stride() == before[key].stride()


def test_a_timing_holds_on_its_device_and_kind_of_chip(chip: pytest.MonkeyPatch) -> None:
    assert drawing.precision_of({"precision": HALF}, "cpu") == "bf16"
    assert drawing.precision_of({"precision": HALF}, "cuda") == "fp32"
    assert drawing.precision_of({"precision": HALF | {"device": "cuda"}}, "cuda") == "bf16"
    chip.setattr(machine, "half", lambda: "")
    assert drawing.precision_of({"precision": HALF}, "cpu") == "fp32"
    assert drawing.precision_of({"precision": HALF | {"device": "cuda"}}, "cuda") == "bf16"


@pytest.mark.parametrize("card", [{}, {"precision": "bf16"}, {"precision": ["bf16"]}, {"precision": {"value": "fp8"}}, {"precision": {}}])
def test_cards_that_say_nothing_of_it_draw_in_fp32(chip: pytest.MonkeyPatch, card: dict[str, object]) -> None:
    assert drawing.precision_of(card, "cpu") == "fp32"


def test_flags_win_over_the_card(chip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, family = str(generator(tmp_path, card={"chosen": {"precision": HALF}})), own(tmp_path)

    def precision(**settings: object) -> object:
        return painter.look(run, gather(None, [], device="cpu", family=family, **settings)).ingredients["precision"]

    assert (precision(), precision(precision="fp32"), precision(precision="bf16")) == ("bf16", "fp32", "bf16")
    assert precision(deterministic=True) == "fp32"
    with pytest.raises(UsageError, match="a rule has no precision"):
        painter.look("rule:shapes", gather(None, [], precision="bf16"))


def pixels(folder: Path) -> list[bytes]:
    """Return the image files of a set by class and index."""
    table = pq.read_table(sorted((folder / "data").glob("*.parquet"))).to_pandas().sort_values(["label", "index"])
    return [image["bytes"] for image in table["image"]]


def test_a_set_goes_on_in_the_precision_it_was_begun_with(chip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, asked = generator(tmp_path, card={"chosen": {"precision": HALF}}), {"per_class": 70, "workers": 1, "device": "cpu", "family": own(tmp_path)}
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    for out in (whole, begun):
        synthesize(run, out, shard_images=64, **asked)
    chip.setattr(machine, "half", lambda: "")
    lost = sorted((begun / "data").glob("*.parquet"))[0]
    lost.unlink()
    assert synthesize(run, begun, shard_images=64, **asked)["continued"]
    assert lost.read_bytes() == (whole / "data" / lost.name).read_bytes() and pixels(whole) == pixels(begun)
    with pytest.raises(UsageError, match="precision: bf16, now fp32"):
        synthesize(run, begun, shard_images=64, precision="fp32", **asked)
    plain = tmp_path / "plain"
    synthesize(run, plain, shard_images=64, **asked)
    assert pixels(plain) != pixels(whole)


def test_bf16_moves_pixels_by_little(tmp_path: Path) -> None:
    family, state = built()
    labels, noise = torch.arange(64) % 3, torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    one, other = (drawing.pixels(drawing.drawn(family, state, (labels, noise), (1.0, 0.0), precision)) for precision in ("fp32", "bf16"))
    assert one.dtype == np.uint8 and one.shape == (64, 16, 16, 1)
    moved = np.abs(one.astype(int) - other.astype(int))
    assert 0 < moved.max() <= 4 and moved.mean() < 1
