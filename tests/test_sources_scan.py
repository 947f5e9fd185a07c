"""The scan: what is skipped and refused (F1, F7, F10, D1, D2, D4, D9), names kept (D7, D8), groups, report, second scan."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datagen.errors import DatagenError, InputError, UsageError
from datagen.progress import Progress
from datagen.records import Dataset, Recipe
from datagen.sources import decode, look, origin
from datagen.sources.scan import scan

MakeFolder = Callable[..., Path]


def save(file: Path, seed: int | np.ndarray, size: tuple[int, int] = (10, 12)) -> Path:
    """Write a PNG of noise by seed, or of the given pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8) if isinstance(seed, int) else seed
    Image.fromarray(image).save(file, "PNG")
    return file


def plant(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Write `counts` images a class, all different."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            save(root / name / f"{i}.png", first)
            first += 1
    return root


def scanned(root: Path, **settings: object) -> Dataset:
    return scan(root, Recipe(**settings))


def refused(root: Path, **settings: object) -> InputError:
    with pytest.raises(InputError) as caught:
        scan(root, Recipe(**settings))
    assert caught.value.code == 3 and caught.value.hint and "\n" not in caught.value.line() and len(caught.value.line()) <= 300
    return caught.value


def tree_of(root: Path) -> list[tuple[str, int, int, bytes]]:
    found = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return [(str(path), path.stat().st_mtime_ns, path.stat().st_size, path.read_bytes()) for path in found]


def test_a_dataset_says_what_was_seen(make_folder: MakeFolder) -> None:
    root = make_folder(classes=["b", "a", "C"], each=4, size=(16, 20))
    before = tree_of(root)
    found = scanned(root)
    assert found.classes == ("C", "a", "b")
    assert [found.classes[label] for label in found.labels] == [path.split("/")[0] for path in found.paths]
    assert found.sizes.tolist() == [[16, 20]] * 12 and not found.grey and not found.test.any() and found.problems == ()
    assert found.root == str(root) and found.roots == (str(root), "") and len(found.fingerprint) == 64
    assert found.digests.shape == (12, 16) and len({row.tobytes() for row in found.digests}) == 12
    assert tree_of(root) == before


def test_the_fingerprint_follows_pixels_and_labels_and_no_file_names(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 3, "b": 3})
    first = scanned(root)
    (root / "a/0.png").rename(root / "a/zz.png")
    renamed = scanned(root)
    assert renamed.paths != first.paths and renamed.fingerprint == first.fingerprint
    (root / "a/zz.png").rename(root / "b/zz.png")
    assert scanned(root).fingerprint != first.fingerprint


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
    assert told in error.what and "--drop-small" in error.hint
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


def test_many_classes_come_in_code_point_order(tmp_path: Path) -> None:
    names = [*(str(i) for i in range(60)), "Z", "a", "é", "猫"]
    assert scanned(plant(tmp_path / "r", dict.fromkeys(names, 2))).classes == tuple(sorted(names))


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
    assert "a/2.png and b/twin.png" in error.what and "--on-conflict drop" in error.hint
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


def test_test_images_from_elsewhere_are_matched_by_name(tmp_path: Path) -> None:
    train, test = plant(tmp_path / "train", {"a": 3, "b": 3, "c": 3}), plant(tmp_path / "test", {"c": 2, "b": 1}, first=50)
    found = scan(train, Recipe(), test=test)
    assert found.roots == (str(train), str(test)) and found.test.tolist() == [False] * 9 + [True] * 3
    assert [found.classes[label] for label in found.labels[found.test]] == ["b", "c", "c"]
    assert scan(train, Recipe(test=str(test))).fingerprint == found.fingerprint
    plant(test, {"bb": 2}, first=90)
    error = refused(train, test=str(test))
    assert "'bb'" in error.what and "'b'" in error.hint


def test_given_test_images_replace_the_part_inside(tmp_path: Path) -> None:
    root = plant(tmp_path / "r/train", {"a": 3, "b": 3}).parent
    plant(root / "test", {"a": 2}, first=50)
    other = plant(tmp_path / "other", {"b": 2}, first=80)
    found = scan(root, Recipe(), test=other)
    assert len(found) == 8 and "left alone" in " ".join(found.notes)
    assert scan(root, Recipe(), test=root / "test").test.sum() == 2
    assert scan(root, Recipe(), test=root).paths == scan(root, Recipe()).paths


NAMES = [
    "NaN",
    "None",
    "no",
    "null",
    "0123",
    "1e5",
    "🐈",
    "a b",
    " a",
    "a.",
    ".x",
    "CON",
    "Cat",
    "cat",
    "v1.0",
    "\u00e9",
    "e\u0301",
    "x" * 255,
    "-rf",
    "a\nb",
    "=1+1",
]


def test_class_names_of_folders_are_kept_exactly(tmp_path: Path) -> None:
    found = scanned(plant(tmp_path / "r", dict.fromkeys(NAMES, 2)))
    assert found.classes == tuple(sorted(NAMES))
    notes = " ".join(found.notes)
    assert "'Cat', 'cat'" in notes and "'e\u0301', '\u00e9'" in notes


def test_class_names_of_tables_are_kept_exactly(tmp_path: Path) -> None:
    names = [*NAMES, "..", "a/b", "../../x", "<script>", "a,b"]
    root = plant(tmp_path / "r/images", {"all": 2 * len(names)}).parent
    quoted = [name.replace('"', '""') for name in names for _ in range(2)]
    (root / "labels.csv").write_text("path,label\n" + "".join(f'images/all/{i}.png,"{name}"\n' for i, name in enumerate(quoted)))
    assert scanned(root / "labels.csv").classes == tuple(sorted(names))


def test_a_csv_with_bad_lines_is_refused_with_the_first_line_and_the_count(tmp_path: Path) -> None:
    root = plant(tmp_path / "r/x", {"a": 2}).parent
    (root / "l.csv").write_text("path,label\nx/a/0.png,a\nx/a/9.png,a\n../z.png,a\n")
    error = refused(root / "l.csv")
    assert "line 3" in error.what and "more reasons" in error.what


def parquet_of(root: Path, file: Path) -> Path:
    images = sorted(root.rglob("*.png"))
    names = sorted({image.parent.name for image in images})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array([{"bytes": image.read_bytes(), "path": image.name} for image in images], kind),
            "label": pa.array([names.index(image.parent.name) for image in images], pa.int64()),
        }
    )
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), file, row_group_size=5)
    return file


def test_folder_csv_and_parquet_of_the_same_images_are_the_same_set(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"no": 7, "0123": 8})
    as_folder = scanned(root)
    (tmp_path / "l.csv").write_text(
        "path,label\n" + "".join(f"r/{path},{as_folder.classes[label]}\n" for path, label in zip(as_folder.paths, as_folder.labels, strict=True))
    )
    as_csv = scanned(tmp_path / "l.csv")
    as_rows = scanned(parquet_of(root, tmp_path / "x.parquet"))
    assert as_folder.classes == as_csv.classes == as_rows.classes == ("0123", "no")
    assert as_folder.fingerprint == as_csv.fingerprint == as_rows.fingerprint
    assert as_rows.paths[:2] == ("x.parquet#0", "x.parquet#1") and as_rows.root.endswith("x.parquet")


def test_a_bad_row_of_parquet_is_skipped(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 20, "b": 20})
    (root / "a/3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    found = scanned(parquet_of(root, tmp_path / "x.parquet"))
    assert len(found) == 39 and [e["file"].startswith("x.parquet#") for e in found.problems] == [True]


def test_damaged_parquet_pages_are_refused(tmp_path: Path) -> None:
    file = parquet_of(plant(tmp_path / "r", {"a": 20, "b": 20}), tmp_path / "x.parquet")
    content = bytearray(file.read_bytes())
    content[4:60] = bytes(56)
    file.write_bytes(content)
    error = refused(file)
    assert "x.parquet" in error.line()


def test_mixed_shapes_modes_and_all_grey_sets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(8, 8), (30, 20), (20, 30), (9, 50)]):
        grey = rng.integers(0, 256, (height, width), dtype=np.uint8)
        for j, mode in enumerate(["L", "RGB", "RGBA"]):
            (tmp_path / f"r/{j}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey ^ np.uint8(j + 1)).convert(mode).save(tmp_path / f"r/{j}/{i}.png")
    found = scanned(tmp_path / "r")
    assert found.grey and len(found) == 12 and found.problems == ()
    save(tmp_path / "r/0/colour.png", 3)
    assert not scanned(tmp_path / "r").grey


def test_groups_by_pattern_and_by_column(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 4, "b": 4})
    assert scanned(root, group=r"/(\d)").groups == ("0", "1", "2", "3") * 2
    assert scanned(root, group=r"\d").groups == ("0", "1", "2", "3") * 2
    assert scanned(root).groups is None
    (root / "l.csv").write_text("path,label,patient\n" + "".join(f"{c}/{i}.png,{c},p{i // 2}\n" for c in "ab" for i in range(4)))
    by_column = scanned(root / "l.csv", group="patient")
    assert by_column.groups == ("p0", "p0", "p1", "p1") * 2 and "2 groups" in " ".join(by_column.notes)
    error = refused(root / "l.csv", group="patients")
    assert "'patient'" in error.hint
    error = refused(root, group=r"patient(\d+)")
    assert "8 images" in error.what and "a/0.png" in error.what
    with pytest.raises(UsageError, match="regular expression"):
        scanned(root, group="(")


def test_names_that_are_not_utf8_travel_through_the_report(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 30, "b": 30})
    for raw in (b"\xff\xfe.png", b"new\nline.png", b"esc\x1b[31m.png", "\u202ertl.png".encode(), b"x" * 251 + b".png"):
        Path(root / "a" / os.fsdecode(raw)).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        scan(root, Recipe(), report=tmp_path / "scan.json")
    assert caught.value.line().isprintable()
    listed = {entry["file"] for entry in json.loads((tmp_path / "scan.json").read_text())["problems"]}
    assert listed == {f"a/{name}" for name in os.listdir(root / "a") if not name[0].isdigit()}
    assert all((root / name).exists() for name in listed)


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []
    real = origin.decode

    def counting(content: str | bytes, **how: int) -> decode.Decoded:
        seen.append(content)
        return real(content, **how)

    monkeypatch.setattr(origin, "decode", counting)
    return seen


def test_the_second_scan_opens_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 30, "b": 30})
    (root / "a/cut.png").write_bytes(b"\x89PNG")
    first = scanned(root)
    opened = count_decodes(monkeypatch)
    again = scanned(root)
    assert opened == [] and again.fingerprint == first.fingerprint and again.problems == first.problems
    assert np.array_equal(again.digests, first.digests) and np.array_equal(again.sizes, first.sizes)
    before = os.stat(root / "a/3.png")
    save(root / "a/3.png", 999)
    os.utime(root / "a/3.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    save(root / "b/new.png", 1000)
    (root / "a/5.png").unlink()
    changed = scanned(root)
    assert sorted(map(str, opened)) == [f"{root}/a/3.png", f"{root}/b/new.png"]
    assert changed.fingerprint != first.fingerprint and len(changed) == 60


def test_a_damaged_memory_of_the_scan_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 5, "b": 5})
    first = scanned(root)
    opened = count_decodes(monkeypatch)
    for kept in (look.cache_root() / "scans").glob("*.bin"):
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 1
        kept.write_bytes(content)
    assert scanned(root).fingerprint == first.fingerprint
    assert len(opened) == 10


def test_what_could_not_be_read_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 40, "b": 40})
    real, sick = os.open, str(root / "a/7.png")

    def failing(path: object, *rest: object, **more: object) -> int:
        if path == sick:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", failing)
    first = scanned(root)
    assert len(first) == 79 and "Input/output error" in first.problems[0]["problem"]
    monkeypatch.setattr(os, "open", real)
    assert len(scanned(root)) == 80 and scanned(root).problems == ()


def test_a_file_that_vanishes_or_grows_during_the_scan_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path / "r", {"a": 40, "b": 40})
    real = os.fstat

    def growing(handle: int) -> os.stat_result:
        status = real(handle)
        if os.readlink(f"/proc/self/fd/{handle}") == str(root / "a/7.png"):
            with open(root / "a/7.png", "ab") as file:
                file.write(b"more")
        return status

    monkeypatch.setattr(os, "fstat", growing)
    real_chunks = origin._chunks

    def vanishing(places: object) -> object:
        (root / "b/3.png").unlink()
        return real_chunks(places)  # type: ignore[arg-type]

    monkeypatch.setattr(origin, "_chunks", vanishing)
    found = scanned(root)
    assert {e["file"]: e["problem"].split(" (")[0] for e in found.problems} == {"a/7.png": "changed while it was read", "b/3.png": "cannot be read"}


def test_a_cache_that_cannot_be_written_is_said_and_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "file"))
    found = scanned(plant(tmp_path / "r", {"a": 3, "b": 3}))
    assert "could not be remembered" in " ".join(found.notes)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    progress = Progress(quiet=True)
    root = plant(tmp_path / "r", {"a": 100, "b": 100})
    for _ in range(2):
        scan(root, Recipe(), progress=progress)
        assert (progress.stage_name, progress.done, progress.total) == ("scan", 200, 200)


@pytest.mark.slow
def test_a_second_scan_of_many_images_takes_a_moment(tmp_path: Path) -> None:
    for i in range(20_000):
        image = np.full((28, 28), 9, np.uint8)
        image.flat[:4] = np.frombuffer(np.uint32(i).tobytes(), np.uint8)
        save(tmp_path / f"r/{i % 10}/{i}.png", image)
    began = time.monotonic()
    scanned(tmp_path / "r")
    first, began = time.monotonic() - began, time.monotonic()
    scanned(tmp_path / "r")
    assert first < 30 and time.monotonic() - began < 2


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
