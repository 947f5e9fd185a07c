"""What the scan leaves out and refuses: damage (F1), odd shapes (F10), small classes (D1), repeats and leaks (D4)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_sources_scan import plant, refused, save, scanned

from datagen.errors import DatagenError, InputError
from datagen.records import Recipe
from datagen.sources.scan import scan


def test_up_to_five_percent_are_skipped_and_listed(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 30, "b": 30})
    good = (root / "a/0.png").read_bytes()
    for name, content in {"a/cut.png": good[:-20], "a/empty.png": b"", "b/noise.png": bytes(range(99))}.items():
        (root / name).write_bytes(content)
    found = scan(root, Recipe(), report=tmp_path / "out/scan.json")
    assert len(found) == 60
    assert {entry["file"] for entry in found.problems} == {"a/cut.png", "a/empty.png", "b/noise.png"}
    assert all(entry["problem"] and entry["remedy"] for entry in found.problems)
    report = json.loads((tmp_path / "out/scan.json").read_text())
    assert report["problems"] == [dict(entry) for entry in found.problems]
    assert report["skipped"] == 3 and report["images"] == 60 and report["classes"] == {"a": 30, "b": 30} and report["errors"] == []
    (root / "b/one more.png").write_bytes(b"")
    error = refused(root)
    assert "4 of 64" in error.what and "a/cut.png" in error.what


def test_strict_input_refuses_the_first_skip(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 30, "b": 30})
    assert len(scanned(root, strict_input=True)) == 60
    (root / "a/cut.png").write_bytes(b"")
    assert "a/cut.png" in refused(root, strict_input=True).what


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 5, "b": 1})
    (root / "c").mkdir()
    (root / "a/bad.png").write_bytes(b"x")
    save(root / "d/twin.png", 0)
    save(root / "d/other.png", 99)
    with pytest.raises(InputError, match=r"scan\.json"):
        scan(root, Recipe(), report=tmp_path / "scan.json")
    errors = " | ".join(json.loads((tmp_path / "scan.json").read_text())["errors"])
    for part in ("a/bad.png", "'b' (1)", "'c' (0)", "a/0.png and d/twin.png"):
        assert part in errors


SMALL = {
    "an empty class": ({"a": 3, "b": 3, "c": 0}, "'c' (0)"),
    "one image": ({"a": 3, "b": 3, "c": 1}, "'c' (1)"),
    "both": ({"a": 3, "b": 0, "c": 1}, "'b' (0), 'c' (1)"),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_classes_are_named_or_dropped(tmp_path: Path, name: str) -> None:
    counts, told = SMALL[name]
    root = plant(tmp_path / "r", counts)
    error = refused(root)
    assert told in error.what and "--set drop_small=true" in error.hint
    kept = scanned(root, drop_small=True)
    assert set(kept.classes) == {c for c, count in counts.items() if count > 1}
    assert told in " ".join(kept.notes)


def test_a_class_that_skips_leave_with_one_image_is_refused(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 90, "b": 2})
    (root / "b/0.png").write_bytes(b"")
    assert "'b' (1)" in refused(root).what


def test_nothing_but_small_classes_is_refused_even_when_dropped(tmp_path: Path) -> None:
    assert "no class" in refused(plant(tmp_path / "r", {"a": 1, "b": 1}), drop_small=True).what


def test_one_class_is_a_warning(tmp_path: Path) -> None:
    found = scanned(plant(tmp_path / "r", {"a": 3}))
    assert found.classes == ("a",) and "one class" in " ".join(found.notes)


def test_imbalance_is_told(tmp_path: Path) -> None:
    notes = " ".join(scanned(plant(tmp_path / "r", {"rare": 2, "many": 40})).notes)
    assert "'rare'" in notes and "40" in notes


SIZES = {(1, 1): "look", (1, 10_000): "skip", (10_000, 1): "skip", (3, 5): "look", (8, 161): "skip", (8, 160): ""}


def test_tiny_images_warn_and_long_ones_are_skipped(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 40, "b": 40})
    for i, size in enumerate(SIZES):
        save(root / f"a/x{size[0]}x{size[1]}.png", 1000 + i, size)
    found = scanned(root)
    kinds = {entry["file"]: entry["kind"] for entry in found.problems}
    assert kinds == {f"a/x{h}x{w}.png": kind for (h, w), kind in SIZES.items() if kind}
    assert len(found) == 80 + 3
    assert "below 8" in " ".join(found.notes)


def test_sidecars_inside_classes_are_ignored_but_content_decides(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 3, "b": 3})
    for i in range(5):
        (root / f"a/{i}.txt").write_text("a box")
    save(root / "b/really an image.txt", 77)
    found = scanned(root)
    assert len(found) == 7 and found.problems == () and "5 files" in " ".join(found.notes)


def test_repeats_within_a_class_are_kept_once(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 4, "b": 4})
    pixels = np.asarray(Image.open(root / "a/1.png"))
    Image.fromarray(pixels).save(root / "a/again.bmp")
    found = scanned(root)
    assert len(found) == 8 and "a/1.png" in found.paths
    assert [(e["file"], e["kind"]) for e in found.problems] == [("a/again.bmp", "duplicate")]
    assert "a/1.png" in found.problems[0]["problem"]


def test_the_same_pixels_in_grey_and_colour_are_repeats(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 4, "b": 4})
    grey = np.random.default_rng(5).integers(0, 256, (9, 9), dtype=np.uint8)
    save(root / "a/grey.png", grey)
    save(root / "a/rgb.png", np.dstack([grey] * 3))
    assert len(scanned(root)) == 9


def test_the_same_pixels_under_two_classes(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 4, "b": 4, "c": 4})
    (root / "b/twin.png").write_bytes((root / "a/2.png").read_bytes())
    error = refused(root)
    assert "a/2.png and b/twin.png" in error.what and "--set on_conflict=drop" in error.hint
    found = scanned(root, on_conflict="drop")
    assert len(found) == 11 and not {"a/2.png", "b/twin.png"} & set(found.paths)
    assert {e["file"] for e in found.problems} == {"a/2.png", "b/twin.png"}


def test_the_same_pixels_in_train_and_test(tmp_path: Path) -> None:
    root = plant(tmp_path / "r/train", {"a": 4, "b": 4}).parent
    plant(root / "test", {"a": 2, "b": 2}, first=50)
    (root / "test/a/leak.png").write_bytes((root / "train/a/2.png").read_bytes())
    error = refused(root)
    assert "train/a/2.png and test/a/leak.png" in error.what and "training and the test" in error.what
    found = scanned(root, on_conflict="drop")
    assert "train/a/2.png" not in found.paths and "test/a/leak.png" in found.paths
    assert found.test.sum() == 5 and len(found) == 12


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_all_planted_repeats_are_found_and_no_others(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    for i in range(count):
        image = base.copy()
        image.flat[:4] = np.frombuffer(np.uint32(i).tobytes(), np.uint8)
        save(tmp_path / f"r/{i % 2}/{i:05d}.png", image)
    for k in range(4):
        save(tmp_path / f"r/0/zz{k}.png", np.asarray(Image.open(tmp_path / f"r/0/{10 * k:05d}.png")))
        save(tmp_path / f"r/1/yy{k}.png", np.asarray(Image.open(tmp_path / f"r/0/{10 * k + 100:05d}.png")))
    found = scanned(tmp_path / "r", on_conflict="drop")
    assert len(found) == count - 4
    assert sum(e["kind"] == "duplicate" for e in found.problems) == 4 and sum(e["kind"] == "conflict" for e in found.problems) == 8


def test_errors_are_of_the_tool_whatever_the_tree(tmp_path: Path) -> None:
    """Random small trees end in a Dataset or in a DatagenError."""
    rng = np.random.default_rng(0)
    parts = ["train", "test", "a", "b", ".x", "val"]
    for trial in range(40):
        root = tmp_path / str(trial)
        for i in range(int(rng.integers(1, 12))):
            folders = "/".join(parts[int(k)] for k in rng.integers(0, len(parts), int(rng.integers(0, 4))))
            save(root / folders / f"{i}.png", int(rng.integers(0, 40)))
        try:
            assert len(scanned(root)) > 1
        except DatagenError as error:
            assert error.hint
