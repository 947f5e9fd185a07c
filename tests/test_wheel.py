"""A wheel holds every module and the recipes, and finds them where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of the sources and install into a folder of its own, without dependencies."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    for name in ("datagen", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=240)
    return target


def test_the_list_of_packages_is_that_of_the_tree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "datagen").rglob("__init__.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == found | {"datagen.recipes"}


def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    wanted = {p.relative_to(ROOT).as_posix() for p in (ROOT / "datagen").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    wanted |= {f"datagen/recipes/{p.name}" for p in (ROOT / "recipes").glob("*.toml")}
    assert wanted <= {p.relative_to(installed).as_posix() for p in installed.rglob("*")}


def test_an_installed_wheel_finds_its_recipes(installed: Path, tmp_path: Path) -> None:
    code = "import datagen, sys; from datagen import recipe; from datagen.cli.app import run; print(datagen.__file__); sys.exit(run(['recipes', 'digits']))"
    environment = {"PYTHONPATH": str(installed), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == str(installed / "datagen" / "__init__.py")
    assert "[about]" in lines


def test_the_licence_and_the_command_travel(installed: Path) -> None:
    (info,) = installed.glob("datagen-*.dist-info")
    assert "datagen = datagen.cli.app:main" in (info / "entry_points.txt").read_text()
    assert (info / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
