"""One corpus of strange files by the scan, `describe`, `fit` and `evaluate`: all say the same of each file (F1 to F5, I2, I4, I5, I7)."""

from __future__ import annotations

import json
from pathlib import Path

import audit
import numpy as np
import pytest
from made_files import noise, png
from strange import Strange, corpus, plant

from datagen.cli.app import run
from datagen.errors import DatagenError, InputError
from datagen.evaluation import inputs
from datagen.evaluation.inputs import Asked
from datagen.progress import Progress
from datagen.reading.shards import load
from datagen.records import Dataset, Recipe
from datagen.sources.decode import decode, to_shape
from datagen.sources.look import digest
from datagen.sources.scan import scan

CAP = 64_000_000
BESIDE = 500
USED = [each for each in corpus() if each.pixels is not None]
SKIPPED = [each for each in corpus() if each.pixels is None]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Strange]]:
    root = tmp_path_factory.mktemp("strange") / "real"
    return root, plant(root, BESIDE)


def tree(root: Path) -> list[tuple[str, int, bytes]]:
    return [(str(path), path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(root.rglob("*")) if path.is_file()]


def agrees(found: list[dict[str, str]], by_path: dict[str, Strange]) -> None:
    """Assert that problems name exactly the strange files that must be skipped or noted, each with its reason."""
    told = {entry["file"]: entry for entry in found}
    assert set(told) == {path for path, each in by_path.items() if each.pixels is None or each.says}
    for path, entry in told.items():
        assert by_path[path].says in entry["problem"] and entry["remedy"], path
        assert entry["kind"] == ("skip" if by_path[path].pixels is None else "look"), path


@pytest.mark.parametrize("each", [each for each in corpus() if not each.later], ids=lambda each: f"{each.row} {each.name}")
def test_one_file_is_read_right_or_refused(each: Strange, tmp_path: Path) -> None:
    check_one(each, tmp_path)


def check_one(each: Strange, tmp_path: Path) -> None:
    """Assert that a file has the pixels and notes, or the refusal, that stand beside it."""
    (tmp_path / each.name).write_bytes(each.content)
    if each.pixels is None:
        with pytest.raises(InputError) as caught, audit.watch():
            decode(tmp_path / each.name, max_pixels=CAP)
        assert each.says in caught.value.what and caught.value.hint and len(caught.value.line()) <= 300
        return
    with audit.watch():
        found = decode(tmp_path / each.name, max_pixels=CAP)
    assert found.pixels.shape == each.pixels.shape or np.squeeze(found.pixels).shape == each.pixels.shape
    assert np.abs(found.pixels.astype(int) - each.pixels).max() <= each.most
    assert all(each.says in note for note in found.notes) and bool(found.notes) == bool(each.says)


@pytest.fixture(scope="module")
def scanned(planted: tuple[Path, dict[str, Strange]], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    before = tree(planted[0])
    with audit.recorded() as seen:
        found = scan(planted[0], Recipe(), report=tmp_path_factory.mktemp("report") / "scan.json")
    assert not seen.events and tree(planted[0]) == before, "nothing is started, nothing of the user's is changed"
    return found


def test_the_scan(planted: tuple[Path, dict[str, Strange]], scanned: Dataset) -> None:
    root, by_path = planted
    agrees([dict(entry) for entry in scanned.problems], by_path)
    strange = {path: row.tobytes() for path, row in zip(scanned.paths, scanned.digests, strict=True) if path in by_path}
    assert set(strange) == {path for path, each in by_path.items() if each.pixels is not None}
    assert len(scanned) == 2 * BESIDE + len(USED)
    for path, key in strange.items():
        wanted = by_path[path]
        assert key == digest(wanted.pixels if wanted.most == 0 else decode(root / path, max_pixels=CAP).pixels), path  # type: ignore[arg-type]


def test_describe(planted: tuple[Path, dict[str, Strange]], scanned: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", str(planted[0]), "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    agrees(told["problems"], planted[1])
    assert told["fingerprint"] == scanned.fingerprint and told["images"] == len(scanned)


@pytest.mark.slow
def test_fit(planted: tuple[Path, dict[str, Strange]], scanned: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = ["fit", str(planted[0]), "--out", str(tmp_path / "run"), "--dry-run", "--images", "100", "--threads", "1", "--size", "8", "--deterministic"]
    assert run(order) == 0
    told = capsys.readouterr().out
    assert f"{len(SKIPPED)} of {len(scanned) + len(SKIPPED):,} images" in told and not (tmp_path / "run").exists()


def test_fit_in_strict_mode(planted: tuple[Path, dict[str, Strange]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real command, not its dry run: it scans, writes scan.json and refuses."""
    root, by_path = planted
    assert run(["fit", str(root), "--out", str(tmp_path / "run"), "--strict-input", "--quiet"]) == 3
    refused = capsys.readouterr().err
    assert refused.startswith("error: ") and refused.count("\n") == 1 and f"{len(SKIPPED)} of" in refused and "strange/" in refused
    agrees(json.loads((tmp_path / "run/scan.json").read_text())["problems"], by_path)


def test_evaluate(planted: tuple[Path, dict[str, Strange]], scanned: Dataset, tmp_path: Path) -> None:
    root, by_path = planted
    for name, first in (("made", 5000), ("unseen", 6000)):
        for i in range(8):
            file = tmp_path / name / ("plain", "strange")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(noise(8, 8, first + i), 2))
    asked = Asked((str(tmp_path / "made"),), str(root), str(tmp_path / "unseen"))
    found = inputs.gather(asked, Recipe(quick=True), progress=Progress(quiet=True), report=tmp_path / "scan.json")
    agrees(json.loads((tmp_path / "scan.json").read_text())["problems"], by_path)
    assert set(found.real.names) == set(scanned.paths)
    rows = {name: row for row, name in enumerate(found.real.names)}
    for path, each in by_path.items():
        if each.pixels is not None:
            expected = to_shape(decode(root / path, max_pixels=CAP).pixels, (3, 8, 8), "crop")
            assert np.array_equal(found.real.images[rows[path]], expected), path


@pytest.mark.parametrize("each", USED, ids=lambda each: f"{each.row} {each.name}")
def test_as_synthetic_images_they_have_the_same_pixels(each: Strange, tmp_path: Path) -> None:
    """A folder that `evaluate` is given as synthetic goes by names, as loaders of folders do: every file gets the ending .png here."""
    (tmp_path / "made/a").mkdir(parents=True)
    (tmp_path / "made/a/x.png").write_bytes(each.content)
    found = load(tmp_path / "made").images[0]
    expected = decode(each.content, max_pixels=CAP).pixels
    assert np.array_equal(found, expected if expected.ndim == 3 else np.broadcast_to(expected[..., None], found.shape))


@pytest.mark.parametrize("each", [each for each in SKIPPED if not each.later], ids=lambda each: f"{each.row} {each.name}")
def test_as_synthetic_images_they_are_refused(each: Strange, tmp_path: Path) -> None:
    (tmp_path / "made/a").mkdir(parents=True)
    (tmp_path / "made/a/x.png").write_bytes(each.content)
    with pytest.raises(DatagenError):
        load(tmp_path / "made")
