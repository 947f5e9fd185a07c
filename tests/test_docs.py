"""README and the public names say what the code does; the examples run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import readme
from PIL import Image

import datagen
from datagen import recipe, registry
from datagen.cli.app import VERBS
from datagen.cli.options import SWITCHES, flag_name
from datagen.errors import EXIT_CODES, DatagenError

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLIC = {"DatagenError", "Recipe", "ShardDataset", "StreamDataset", "__version__", "describe", "evaluate", "export", "fit", "mix", "synthesize"}


@pytest.mark.parametrize("name", readme.SECTIONS)
def test_the_made_parts_of_the_readme_are_fresh(name: str) -> None:
    section = TEXT.split(f"<!-- {name}: made by tests/readme.py -->\n")[1].split(f"\n<!-- /{name} -->")[0]
    assert section == readme.SECTIONS[name](), "run: python tests/readme.py"


def test_every_verb_option_setting_and_exit_code_is_documented() -> None:
    assert all(f"datagen {verb}" in TEXT for verb in VERBS)
    assert all(f"`{key}`" in TEXT for key in list(recipe.keys()))
    assert all(flag_name(switch) in TEXT for switch in SWITCHES)
    assert all(f"| {code} | " in TEXT for code in EXIT_CODES)
    own = {name for verb in VERBS.values() for name in verb.signature().parameters if name not in {*SWITCHES, *recipe.keys()}}
    assert {"out", "verify", "preview", "real"} <= own
    documented = TEXT.split("## The verbs")[1].split("## Recipes and settings")[0]
    for verb in VERBS.values():
        for parameter in verb.signature().parameters.values():
            if parameter.name not in {*SWITCHES, *recipe.keys()}:
                assert readme.line(parameter.annotation)[0] in documented


def test_every_error_has_a_documented_exit_code() -> None:
    assert {error.code for error in DatagenError.__subclasses__()} | {0, 1, 130} == set(EXIT_CODES)


def test_commands_in_the_readme_use_options_that_exist() -> None:
    for command in re.findall(r"^datagen (\w+) (.*)$", "\n".join(re.findall(r"```\n(.*?)```", TEXT, re.S)), re.M):
        verb = VERBS[command[0]]
        own = {readme.line(p.annotation)[0].split()[0] for p in verb.signature().parameters.values()}
        known = {"--help", *(flag_name(n) for n in verb.settings()), *own}
        assert set(re.findall(r"--[a-z-]+", command[1])) <= known, command


def test_the_example_family_keeps_the_contract(tmp_path: Path) -> None:
    from contracts import families

    code = readme.block(TEXT, "<!-- example family -->")
    assert 30 <= sum(bool(line.strip()) for line in code.splitlines()) <= 50
    (tmp_path / "mine.py").write_text(code)
    families.check(registry.load("families", f"{tmp_path}/mine.py:Mine"))


def test_the_example_rule_keeps_the_contract(tmp_path: Path) -> None:
    from contracts import rules

    (tmp_path / "stripes.py").write_text(readme.block(TEXT, "<!-- example rule -->"))
    rules.check(registry.load("rules", f"{tmp_path}/stripes.py:Stripes"))


def test_the_training_script_in_the_readme_runs(tmp_path: Path) -> None:
    from datagen.cli.app import run

    assert run(["synthesize", "rule:shapes", "--per-class", "20", "--out", str(tmp_path / "shards"), "--quiet"]) == 0
    code = readme.block(TEXT, "## The shards in your training").replace("    ...", "    print(tuple(images.shape), images.dtype, labels.dtype)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[0] == "(64, 3, 32, 32) torch.uint8 torch.int64"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with shards of a rule in every format, and some images of it as a user's photos."""
    home = tmp_path_factory.mktemp("shapes")
    datagen.synthesize("rule:shapes", home / "shards", per_class=6)
    datagen.export(home / "shards", home / "tars", format="webdataset")
    datagen.export(home / "shards", home / "pictures", format="folder")
    datagen.synthesize("rule:shapes", home / "more", per_class=4, seed=1, format="folder", mark=False)
    (home / "more" / "data" / "train").rename(home / "photos")
    photo = next((home / "photos").rglob("*.png"))
    Image.open(photo).convert("L").resize((40, 48)).save(photo)
    return home


@pytest.mark.parametrize(
    ("name", "changes", "printed"),
    [
        ("resnet", {"range(20)": "range(1)"}, r"0 \d\.\d+"),
        ("datasets", {}, r"\['circle', 'cross', .*\] torch\.Size\(\[3, 32, 32\]\) tensor\(\d\)"),
        ("webdataset", {"    ...": "    print(pixels.shape, pixels.dtype, label)"}, r"(\(32, 32, 3\) uint8 \d\n?){36}"),
        ("folder", {"PILToTensor())": "PILToTensor())\nprint(len(pictures), pictures[0][0].shape)"}, r"36 torch\.Size\(\[3, 32, 32\]\)"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_worked_examples_run(
    shapes: Path, name: str, changes: dict[str, str], printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = readme.block(TEXT, f"<!-- example {name} -->")
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(shapes)
    if name == "datasets":
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", shapes / "cache")
    exec(compile(code, name, "exec"), {"__name__": name})
    assert re.fullmatch(printed, capsys.readouterr().out.strip())


def test_the_recall_of_each_class_is_printed_as_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from datagen.evaluation.report import schema

    assert {"arms.*.per_class.class", "arms.*.per_class.recall"} <= set(schema.KEYS)
    arms = {name: {"per_class": [{"class": "dent", "recall": recall}]} for name, recall in (("real", 0.5), ("both", 0.75))}
    (tmp_path / "signs-report").mkdir()
    (tmp_path / "signs-report" / "report.json").write_text(json.dumps({"arms": arms}))
    monkeypatch.chdir(tmp_path)
    exec(compile(readme.block(TEXT, "<!-- example rare classes -->"), "rare", "exec"), {})
    assert capsys.readouterr().out == "    dent  0.50 -> 0.75\n"


def test_the_public_names_are_pinned() -> None:
    assert set(datagen.__all__) == PUBLIC
    assert set(dir(datagen)) == PUBLIC
    assert all(getattr(datagen, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = datagen.fitt


def test_the_package_imports_nothing_heavy() -> None:
    code = "import datagen, sys; print({m.split('.')[0] for m in sys.modules} & {'torch', 'numpy', 'pyarrow', 'pydantic', 'typer'})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_the_version_has_its_changes() -> None:
    assert f"## {datagen.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_hold_every_dependency_but_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line}
    wanted = {re.split(r"[><=\[]", d)[0] for d in project["dependencies"] + project["optional-dependencies"]["test"]}
    assert wanted - pinned == {"torch", "torchvision", "setuptools"}
    assert not {name for name in pinned if name.startswith(("torch", "nvidia", "triton", "cuda"))} - {"torch-fidelity"}


def test_ci_runs_the_tests_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines == ["#!/usr/bin/env bash", "set -e", 'cd "$(dirname "$0")/.."', "make test"]
