"""Generators as files: any changed byte is found, newer ones are refused, the user's own family is the one it was fitted with."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synthetic

from datagen import recipe, registry
from datagen.cli import app
from datagen.errors import ArtefactError, UsageError
from datagen.synthesis import forecast
from datagen.synthesis.generator import Generator, chosen, open_generator, read_card
from datagen.synthesis.run import synthesize


def opened(path: Path) -> Generator:
    """Open a made generator with the family's file that lies beside RUN."""
    run = path.parent if path.name == "generator" else path
    return open_generator(path, family=synthetic.own(run.parent))


def test_a_generator_computes_images(tmp_path: Path) -> None:
    generator = opened(synthetic.generator(tmp_path))
    labels, noise = np.array([0, 1, 2, 2]), np.random.default_rng(0).standard_normal((4, 5), dtype=np.float32)
    images = generator.images(labels, noise, 1.0, 0.0)
    assert images.dtype == np.uint8
    assert images.shape == (4, 8, 8, 3)
    assert np.array_equal(images, generator.images(labels, noise, 1.0, 0.0))
    assert not np.array_equal(images, generator.images(labels, noise, 0.1, 0.0))
    assert not np.array_equal(images[:1], generator.images(labels[1:2], noise[:1]))
    assert generator.card.classes == ("a", "b", "c")
    assert set(generator.state.modules) == {"net"}
    assert len(generator.hash) == 64


def test_opening_leaves_the_random_state_alone(tmp_path: Path) -> None:
    import torch

    run = synthetic.generator(tmp_path)
    torch.manual_seed(1)
    first = torch.rand(3)
    torch.manual_seed(1)
    opened(run)
    assert torch.equal(first, torch.rand(3))


def test_every_flip_and_cut_is_found(tmp_path: Path) -> None:
    folder = synthetic.generator(tmp_path) / "generator"
    rng = random.Random(1)
    for name in ("card.json", "weights.safetensors"):
        raw = (folder / name).read_bytes()
        step = 3 if name == "card.json" else 97
        for place in range(0, len(raw), step):
            bad = bytearray(raw)
            bad[place] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(bad)
            with pytest.raises(ArtefactError):
                opened(folder)
        for length in {0, 1, len(raw) // 2, len(raw) - 1}:
            (folder / name).write_bytes(raw[:length])
            with pytest.raises(ArtefactError):
                opened(folder)
        (folder / name).write_bytes(raw)
    opened(folder)


def test_a_newer_generator_names_the_version_it_needs(tmp_path: Path) -> None:
    run = synthetic.generator(tmp_path, card={"schema": 2, "version": "3.4.5", "something_new": 1})
    with pytest.raises(ArtefactError, match=r"needs datagen >= 3\.4\.5"):
        opened(run)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["a", "a", "c"]},
        {"shape": [3, 8]},
        {"shape": [3, 8, 16]},
        {"noise": 4},
        {"hashes": {}},
        {"hashes": {"../card.json": "0"}},
        {"family": "unknown", "family_hash": ""},
        {"settings": {"nonsense": 1}},
        {"settings": {"batch": "many"}},
        {"counts": [1]},
    ],
)
def test_a_card_that_contradicts_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    run = synthetic.generator(tmp_path, card=change)
    with pytest.raises(ArtefactError):
        open_generator(run, family="" if "family" in change else synthetic.own(tmp_path))


def test_a_card_without_a_seal_is_read_and_unknown_keys_refused(tmp_path: Path) -> None:
    folder = synthetic.generator(tmp_path) / "generator"
    value = json.loads((folder / "card.json").read_bytes())
    del value["seal"]
    (folder / "card.json").write_text(json.dumps(value))
    assert read_card(folder)[0].noise == 5
    (folder / "card.json").write_text(json.dumps(value | {"odd": 1}))
    with pytest.raises(ArtefactError):
        read_card(folder)


def missing_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def changed_family(folder: Path) -> None:
    (folder.parent.parent / "mine.py").write_text(synthetic.FAMILY + "\n# another day\n")


@pytest.mark.parametrize(("harm", "said"), [(missing_weights, "copy the whole"), (changed_family, "not the file"), (shutil.rmtree, "no fitted run")])
def test_what_is_missing_or_changed_is_said(tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    run = synthetic.generator(tmp_path)
    harm(run / "generator")
    with pytest.raises(ArtefactError, match=said):
        opened(run)


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("named", ["mine.py:Mine", "run/mine.py:Mine", "run/generator/mine.py:Mine"])
def test_code_that_lies_beside_a_generator_never_runs(tmp_path: Path, hashed: bool, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = synthetic.generator(tmp_path)
    content = synthetic.FAMILY + f"\nopen({str(tmp_path / 'canary')!r}, 'w').close()\n"
    places = [tmp_path / "mine.py", run / "mine.py", run / "generator" / "mine.py"]
    for place in places:
        place.write_text(content)
    (run / "recipe.json").write_text(json.dumps({"settings": {"family": synthetic.own(tmp_path)}}))
    value = json.loads((run / "generator" / "card.json").read_bytes())
    del value["seal"]
    sha256 = registry.file_hash(synthetic.own(tmp_path)) if hashed else ""
    synthetic.write_card(run / "generator", value | {"family": named, "family_hash": sha256})
    for here in (tmp_path, run, run / "generator"):
        monkeypatch.chdir(here)
        with pytest.raises(ArtefactError, match=r"was fitted with the family .*mine\.py:Mine; name your copy of it: --family PATH/mine\.py:Mine"):
            synthesize(run, tmp_path / "shards", per_class=1, workers=1)
        with pytest.raises(ArtefactError, match="name your copy"):
            open_generator(run)
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "shards").exists()
    if hashed:
        opened(run)
        assert (tmp_path / "canary").exists(), "the canary sings where the user names it"


def test_the_users_own_file_may_have_another_name_and_place(tmp_path: Path) -> None:
    run = synthetic.generator(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine.py").rename(tmp_path / "elsewhere" / "copy.py")
    assert open_generator(run, family=f"{tmp_path}/elsewhere/copy.py:Mine").card.noise == 5


def test_another_family_than_the_generators_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "expected", lambda *given: {})
    run = synthetic.generator(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        open_generator(run, family="none.py:Mine")
    with pytest.raises(UsageError, match=r"--family .*mine\.py:Yours: .* was fitted with the family mine\.py:Mine"):
        open_generator(run, family=f"{tmp_path}/mine.py:Yours")
    with pytest.raises(ArtefactError, match="name your copy"):
        open_generator(run, family="gan")
    (tmp_path / "builtin").mkdir()
    builtin = synthetic.generator(tmp_path / "builtin", card={"family": "cvae", "family_hash": ""})
    for other in ("gan", synthetic.own(tmp_path)):
        with pytest.raises(UsageError, match=f"--family {other}: .* was fitted with the family cvae"):
            synthesize(builtin, tmp_path / "shards", per_class=1, dry_run=True, family=other)
    assert synthesize(builtin, tmp_path / "shards", per_class=1, dry_run=True, family="cvae")["images"] == 3
    elsewhere = recipe.merge(("environment", {"family": "gan", "per_class": 1}))
    assert synthesize(builtin, tmp_path / "shards", elsewhere, dry_run=True)["images"] == 3, "not said of this call"
    with pytest.raises(UsageError, match="a rule has no family"):
        synthesize("rule:shapes", tmp_path / "shards", per_class=1, family="gan")


def test_the_command_line_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = synthetic.generator(tmp_path)
    command = ["synthesize", str(run), "--per-class", "1", "--workers", "1", "--quiet", "--out", str(tmp_path / "shards")]
    assert app.run(command) == 4
    line = f"error: {run}/generator: was fitted with the family mine.py:Mine; name your copy of it: --family PATH/mine.py:Mine\n"
    assert capsys.readouterr().err.replace("…", "")[-60:] == line[-60:]
    assert app.run([*command, "--family", synthetic.own(tmp_path)]) == 0


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    import hashlib

    import torch
    from safetensors.torch import load, save

    folder = synthetic.generator(tmp_path) / "generator"
    weights = load((folder / "weights.safetensors").read_bytes())
    value = json.loads((folder / "card.json").read_bytes())
    del value["seal"]
    for change, said in (({"net.bias": weights["net.bias"] * float("nan")}, "no finite"), ({"net.more": torch.ones(1)}, "other tensors")):
        raw = save(weights | change)
        (folder / "weights.safetensors").write_bytes(raw)
        synthetic.write_card(folder, value | {"hashes": {"weights.safetensors": hashlib.sha256(raw).hexdigest()}})
        with pytest.raises(ArtefactError, match=said):
            opened(folder)


def test_what_fit_chose_is_a_number_or_has_a_reason(tmp_path: Path) -> None:
    card = read_card(synthetic.generator(tmp_path, card={"chosen": {"spread": {"value": 0.7, "reason": "best"}, "guidance": 1}}) / "generator")[0]
    assert (chosen(card, "spread", 1.0), chosen(card, "guidance", 0.0), chosen(card, "other", 9.0)) == (0.7, 1.0, 9.0)
