"""One image made again is the one that stands in its shard."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from test_synthesis_plan import PLANS

import datagen
from datagen.cli.app import run
from datagen.errors import OutputError, UsageError
from datagen.formats.parquet import Parquet
from datagen.synthesis import again, commit, croissant
from datagen.synthesis.plan import Plan

ORDER = {"per_class": 100, "shard_images": 128, "workers": 1, "seed": 5}


@pytest.mark.parametrize("encoder", ["png", "jpeg"])
def test_the_image_of_a_row_is_made_again(tmp_path: Path, encoder: str) -> None:
    source = synthetic.generator(tmp_path)
    more = ORDER | {"encoder": encoder, "family": synthetic.own(tmp_path)}
    datagen.synthesize(source, tmp_path / "shards", **more)
    files = sorted((tmp_path / "shards" / "data").glob("*.parquet"))
    assert len(files) > 1
    for id, file in enumerate(files):
        (rows,) = Parquet().read(file)
        for row in (0, 17, len(rows.labels) - 1):
            made = datagen.synthesize(source, tmp_path / f"again-{id}", only=f"{id}:{row}", **more)
            assert Path(made["out"]).read_bytes() == rows.images[row]
            assert (made["class"], made["index"], made["attempt"]) == (rows.classes[rows.labels[row]], rows.indices[row], rows.attempts[row])


def test_on_the_command_line_and_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["synthesize", "rule:shapes", "--per-class", "5", "--out", str(tmp_path / "one"), "--only", "0:3", "--json"]
    assert run(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["computed"] == 64 and Path(told["out"]).is_file() and len(list((tmp_path / "one").iterdir())) == 1
    assert run(command) == 5
    with pytest.raises(OutputError):
        datagen.synthesize("rule:shapes", tmp_path / "one", per_class=5, only="0:3")


@pytest.mark.parametrize("only", ["", "3", "a:b", "0:", ":1", "-1:0", "0:30", "1:0", "0:1:2", "²:0", "9" * 50 + ":0"])
def test_what_names_no_image_is_refused(tmp_path: Path, only: str) -> None:
    with pytest.raises(UsageError, match="--only"):
        datagen.synthesize("rule:shapes", tmp_path / "one", per_class=5, only=only)
    assert not (tmp_path / "one").exists()


@settings(max_examples=40)
@given(plan=PLANS, data=st.data())
def test_every_row_is_one_image_of_the_plan(plan: Plan, data: st.DataObject) -> None:
    tasks = [plan.task(id, Parquet()) for id in range(plan.shards)]
    id = data.draw(st.integers(0, len(tasks) - 1))
    count = sum(wanted for _, _, wanted in tasks[id].tiles)
    found = [again.place(plan, tasks, f"{id}:{row}")[2:] for row in range(count)]
    assert len({(label, first + within) for (label, first, _), within in found}) == count
    assert all(0 <= within < wanted for (_, _, wanted), within in found)


def test_a_finished_set_keeps_its_id_whatever_version_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "shards"
    first = datagen.synthesize("rule:shapes", out, per_class=3, workers=1)
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and path.name != "status.json"}
    for module in (commit, croissant):
        monkeypatch.setattr(module, "datagen", SimpleNamespace(__version__="99.0.0"))
    again = datagen.synthesize("rule:shapes", out, per_class=3, workers=1)
    assert again["finished"] and again["id"] == first["id"]
    assert before == {path: path.read_bytes() for path in before}
    (out / "classes.json").unlink()
    assert datagen.synthesize("rule:shapes", out, per_class=3, workers=1)["id"] != first["id"]
    assert (out / "classes.json").is_file(), "what is lost is made again"
