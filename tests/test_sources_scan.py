"""The scan: what a Dataset says, parts and sources (D2, D9), names kept (D7, D8), groups, the report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datagen.errors import InputError, UsageError
from datagen.records import Dataset, Recipe
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


def test_many_classes_come_in_code_point_order(tmp_path: Path) -> None:
    names = [*(str(i) for i in range(60)), "Z", "a", "é", "猫"]
    assert scanned(plant(tmp_path / "r", dict.fromkeys(names, 2))).classes == tuple(sorted(names))


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
