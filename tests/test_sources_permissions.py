"""What may not be read (F7): in a process without root's rights, so that the system really refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_sources_scan import plant

NOBODY = 65534
SCRIPT = """
import json, os, sys
from PIL import Image
import PIL.BmpImagePlugin, PIL.PngImagePlugin, platformdirs, numpy, filelock
from datagen.errors import DatagenError
from datagen.records import Recipe
from datagen.sources import cache, decode, folder, judge, layout, listing, look, origin, parquet, scan, shape, split, table
Image.init()
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
root, moment = sys.argv[1:]
recipe = Recipe()
def close():
    if moment == "later":
        os.chmod(root + "/a/3.png", 0)
try:
    found = scan.scan(root, recipe)
    close()
    made = cache.pixels(found, (3, 8, 8), recipe)
    print(json.dumps({"images": len(found), "problems": found.problems, "notes": found.notes}))
except DatagenError as error:
    print(json.dumps({"code": error.code, "line": error.line()}))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that an unprivileged process reaches; pytest's own is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="datagen-"))
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def own(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)


def run(root: Path, moment: str = "never", cache: Path | None = None) -> dict[str, object]:
    cache = cache or root.parent / "cache"
    cache.mkdir(exist_ok=True)
    own(cache)
    environment = {**os.environ, "DATAGEN_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(root), moment], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_a_closed_file_is_skipped_at_the_scan(place: Path) -> None:
    root = plant(place / "r", {"a": 30, "b": 30})
    own(root)
    (root / "a/3.png").chmod(0)
    answer = run(root)
    assert answer["images"] == 59
    (problem,) = answer["problems"]
    assert problem["file"] == "a/3.png" and "Permission denied" in problem["problem"] and "permissions" in problem["remedy"]


def test_a_file_closed_after_the_scan_is_refused(place: Path) -> None:
    root = plant(place / "r", {"a": 30, "b": 30})
    own(root)
    answer = run(root, "later")
    assert answer["code"] == 3 and "a/3.png" in answer["line"] and "Permission denied" in answer["line"]


def test_a_closed_class_folder_is_refused_by_name(place: Path) -> None:
    root = plant(place / "r", {"a": 30, "b": 30, "c": 3})
    own(root)
    (root / "c").chmod(0)
    answer = run(root)
    assert answer["code"] == 3 and "'c' (0)" in answer["line"]


def test_a_closed_root_is_refused(place: Path) -> None:
    root = plant(place / "r", {"a": 3, "b": 3})
    own(root)
    root.chmod(0)
    answer = run(root)
    assert answer["code"] == 3 and "Permission denied" in answer["line"]


def test_a_closed_cache_is_an_output_error_that_names_the_folder(place: Path) -> None:
    root = plant(place / "r", {"a": 3, "b": 3})
    cache = place / "cache"
    cache.mkdir()
    own(cache)
    cache.chmod(0o555)
    answer = run(root, cache=cache)
    assert answer["code"] == 5 and str(cache) in answer["line"]
