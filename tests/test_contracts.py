"""Every part of the registry keeps its contract; a new row is tested unasked."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import pytest

from datagen import contracts, registry
from datagen.errors import UsageError

ROWS = [(kind, name) for kind, rows in registry.KINDS.items() for name in rows]
PROTOCOLS = {
    "families": contracts.Family,
    "formats": contracts.Format,
    "measures": contracts.Measure,
    "rules": contracts.Rule,
    "filters": contracts.Filter,
    "engines": contracts.Engine,
    "recognisers": contracts.Recogniser,
}


def needed(name: str) -> None:
    """Skip where the package that a part needs is not installed."""
    if name == "ray":
        pytest.importorskip("ray", reason="a package of its own: make test-slow installs it")


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=lambda v: v)
def test_the_class_has_every_method_of_its_contract(kind: str, name: str) -> None:
    needed(name)
    part, protocol = registry.load(kind, name), PROTOCOLS[kind]
    for method, wanted in inspect.getmembers(protocol, inspect.isfunction):
        if not method.startswith("_"):
            own = inspect.signature(getattr(part, method))
            assert list(own.parameters)[: len(inspect.signature(wanted).parameters)] == list(inspect.signature(wanted).parameters), method
    for attribute in protocol.__annotations__:
        assert hasattr(part, attribute), attribute
    assert part.__doc__
    assert part.__doc__.strip().split("\n")[0].endswith("."), "the class says what it is in a sentence"


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=lambda v: v)
def test_the_row_says_what_it_is(kind: str, name: str) -> None:
    row = registry.KINDS[kind][name]
    module, _, attribute = row.target.partition(":")
    assert module.startswith("datagen.") and attribute.isidentifier()
    assert row.help and "\n" not in row.help
    assert name == name.lower()


@pytest.mark.parametrize("name", registry.KINDS["families"])
def test_family(name: str) -> None:
    from contracts import families

    families.check(registry.load("families", name))


@pytest.mark.parametrize("name", registry.KINDS["formats"])
def test_format(name: str, tmp_path: Path) -> None:
    from contracts import formats

    formats.check(registry.load("formats", name), tmp_path)


@pytest.mark.parametrize("name", registry.KINDS["rules"])
def test_rule(name: str) -> None:
    from contracts import rules

    rules.check(registry.load("rules", name))


@pytest.mark.parametrize("name", registry.KINDS["recognisers"])
def test_recogniser(name: str) -> None:
    from contracts import recognisers

    recognisers.check(registry.load("recognisers", name))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "ray" else ()) for name in registry.KINDS["engines"]])
def test_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from contracts import engines

    needed(name)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    engines.check(registry.load("engines", name))


@pytest.mark.parametrize("name", registry.KINDS["measures"])
def test_measure(name: str) -> None:
    from contracts import measures

    measures.check(registry.load("measures", name))


def test_every_kind_has_a_check() -> None:
    checks = {p.stem for p in (Path(__file__).parent / "contracts").glob("*.py")} - {"__init__"}
    assert {kind for kind, rows in registry.KINDS.items() if rows} <= checks
    assert set(PROTOCOLS) == set(registry.KINDS)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'parquet'"):
        registry.load("formats", "parket")


def test_a_part_comes_from_the_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    pass\n")
    assert registry.load("rules", f"{file}:Mine").__name__ == "Mine"
    assert len(registry.file_hash(f"{file}:Mine")) == 64
    with pytest.raises(UsageError, match="no class 'Other'"):
        registry.load("rules", f"{file}:Other")
    with pytest.raises(UsageError, match="no such file"):
        registry.load("rules", f"{tmp_path}/none.py:Mine")


def test_a_plugin_row_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[datagen.rules]\nstripes = plug_rules:Stripes\n")
    (tmp_path / "plug_rules.py").write_text("class Stripes:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.load("rules", "stripes").__name__ == "Stripes"
    assert registry.names("rules")["stripes"].help == "from plug"
    json.dumps(list(registry.names("rules")))
