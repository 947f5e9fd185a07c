"""What a source lists: classes and parts of folders (D1, D3, F6, F8, F9), lines of a CSV (D6), rows of Parquet (D7)."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.sources import layout
from datagen.sources.folder import Tree, walk
from datagen.sources.listing import Listing, list_source
from datagen.sources.origin import row_of


def plant(root: Path, *names: str) -> Path:
    """Write each name as a small file, or as a folder where it ends in a slash; nothing of it is a real image."""
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        place = root / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def read(root: Path) -> Listing:
    return layout.interpret(walk(str(root)))


def pairs(listing: Listing) -> set[tuple[str, str, bool]]:
    return set(zip(listing.paths, listing.names, listing.test, strict=True))


def refusal(root: Path, group: str | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        list_source(root, group)
    assert caught.value.hint
    return caught.value


def test_folders_are_classes_whatever_lies_below(tmp_path: Path) -> None:
    listing = read(plant(tmp_path / "r", "b/1.png", "a/2.png", "a/deep/er/3.png", "B/1.png"))
    assert pairs(listing) == {("b/1.png", "b", False), ("a/2.png", "a", False), ("a/deep/er/3.png", "a", False), ("B/1.png", "B", False)}
    assert listing.paths == sorted(listing.paths)
    assert any("'a'" in note for note in listing.notes)


PARTS = {
    "train and test": (("train/a/1.png", "train/b/2.png", "test/a/3.png"), {"test/a/3.png"}),
    "Training and Testing": (("Training/a/1.png", "Training/b/2.png", "Testing/b/3.png"), {"Testing/b/3.png"}),
    "val takes the place of test": (("train/a/1.png", "train/b/1.png", "val/a/3.png"), {"val/a/3.png"}),
    "val joins train beside test": (("train/a/1.png", "valid/a/2.png", "test/a/3.png"), {"test/a/3.png"}),
    "train alone": (("train/a/1.png", "train/b/2.png"), set()),
    "test alone": (("test/a/1.png", "test/b/2.png"), set()),
    "documents beside the parts": (("train/a/1.png", "test/a/3.png", "docs/x.txt"), {"test/a/3.png"}),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_recognised(tmp_path: Path, name: str) -> None:
    names, unseen = PARTS[name]
    listing = read(plant(tmp_path / "r", *names))
    assert {path for path, flag in zip(listing.paths, listing.test, strict=True) if flag} == unseen
    assert {path.split("/")[1] for path in listing.paths} == set(listing.names)
    assert "part" in " ".join(listing.notes)


AMBIGUOUS = {
    "a class beside the parts": ("train/a/1.png", "test/a/2.png", "cat/3.png"),
    "parts without classes": ("train/1.png", "test/2.png"),
    "one part without classes": ("train/a/1.png", "test/2.png"),
    "parts inside the classes": ("cat/train/1.png", "cat/test/2.png", "dog/train/1.png"),
    "a folder around the classes": ("images/cat/1.png", "images/dog/2.png"),
    "a folder around the parts": ("images/train/cat/1.png", "images/test/cat/2.png"),
    "test with classes beside classes": ("test/cat/1.png", "cat/2.png", "dog/2.png"),
    "two train parts": ("train/cat/1.png", "training/cat/2.png", "test/cat/2.png"),
    "test and val without train": ("test/cat/1.png", "val/cat/2.png"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_two_readings_are_refused_and_both_shown(tmp_path: Path, name: str) -> None:
    error = refusal(plant(tmp_path / "r", *AMBIGUOUS[name]))
    assert " or " in error.what and error.code == 3


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert set(read(plant(tmp_path / "r", "train/1.png", "bus/2.png")).names) == {"train", "bus"}


def test_no_sub_folders_points_to_a_csv(tmp_path: Path) -> None:
    assert "CSV" in refusal(plant(tmp_path / "r", "1.png", "2.png")).hint
    assert "labels.csv" in refusal(plant(tmp_path / "s", "1.png", "labels.csv")).hint
    assert "empty" in refusal(plant(tmp_path / "t")).what
    assert "no such" in refusal(tmp_path / "nothing").what
    assert "neither" in refusal(plant(tmp_path / "u", "x.zip") / "x.zip").what


def test_empty_classes_are_named(tmp_path: Path) -> None:
    assert read(plant(tmp_path / "r", "a/1.png", "b/", "c/deep/")).empty == ("b", "c")
    assert read(plant(tmp_path / "s", "train/a/1.png", "train/b/", "test/a/1.png", "test/b/")).empty == ("b",)


def test_images_beside_class_folders_are_problems_other_files_are_not(tmp_path: Path) -> None:
    listing = read(plant(tmp_path / "r", "a/1.png", "b/1.png", "stray.jpg", "README.md", "labels.json"))
    assert [entry["file"] for entry in listing.problems] == ["stray.jpg"]
    assert "2 names" in " ".join(listing.notes)


JUNK = [".ipynb_checkpoints/1.png", "a/.ipynb_checkpoints/x.png", "a/Thumbs.db", "a/.DS_Store", "__MACOSX/a/._1.jpg", "a/._1.png", "a/desktop.ini", ".git/x"]


@pytest.mark.parametrize("name", JUNK)
def test_what_desktops_leave_behind_is_ignored_counted_and_never_a_class(tmp_path: Path, name: str) -> None:
    listing = read(plant(tmp_path / "r", "a/1.png", "b/1.png", name))
    assert set(listing.names) == {"a", "b"} and listing.empty == () and listing.problems == []
    assert len(listing.paths) == 2
    assert "1 name" in " ".join(listing.notes)


def test_dot_folders_with_images_are_classes_others_are_not(tmp_path: Path) -> None:
    assert set(read(plant(tmp_path / "r", ".x/1.png", "a/1.png", ".idea/workspace.xml")).names) == {".x", "a"}


def test_special_files_and_links_out_are_problems_and_loops_end(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", "a/1.png", "b/1.png", ".blobs/x")
    secret = plant(tmp_path / "out", "secret.png", "deep/secret.png")
    os.mkfifo(root / "a/pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(root / "a")
        server.bind("socket.png")
    os.chdir(tmp_path)
    links = {"a/out.png": secret / "secret.png", "a/c": secret / "deep", "a/none.png": "nowhere", "a/device.png": "/dev/zero", "b/self": "self"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    (root / "b/loop").symlink_to(root)
    (root / "b/again.png").symlink_to(root / "a/1.png")
    (root / "b/blob.png").symlink_to("../.blobs/x")
    (root / "b/chain.png").symlink_to("blob.png")
    began = time.monotonic()
    listing = read(root)
    assert time.monotonic() - began < 1
    assert pairs(listing) == {("a/1.png", "a", False), ("b/1.png", "b", False), ("b/blob.png", "b", False)}
    assert {entry["file"] for entry in listing.problems} == {*links, "a/pipe.png", "a/socket.png"}


def test_a_linked_folder_inside_the_root_is_followed_once(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", "a/1.png", "store/2.png", "b/1.png", ".blobs/x")
    for name, target in {"c": "store", "d": "store", "e": ".blobs"}.items():
        (root / name).symlink_to(target)
    listing = read(root)
    assert sorted(listing.paths) == ["a/1.png", "b/1.png", "e/x", "store/2.png"]
    assert listing.problems == []


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(plant(tmp_path / "r", "a/1.png", "b/1.png"))
    listing = list_source(tmp_path / "link", None)
    assert listing.root == str(tmp_path / "link") and listing.base == str(tmp_path / "r") and len(listing.paths) == 2


NAMES = st.text(st.characters(exclude_characters="/\0", codec=None, exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(st.lists(NAMES | st.binary(min_size=1, max_size=60).map(os.fsdecode), min_size=1, max_size=8, unique=True))
@settings(max_examples=25)
def test_random_names_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("names")
    expected = set()
    for name in (raw.replace("/", "_").replace("\0", "_") for raw in names):
        if name.startswith(".") or not 0 < len(os.fsencode(name)) <= 200:
            continue
        plant(root, f"a/{name}.png", f"c {name}/1.png")
        expected |= {(f"a/{name}.png", "a"), (f"c {name}/1.png", f"c {name}")}
    if expected:
        plant(root, "zz/1.png")
        listing = read(root)
        assert set(zip(listing.paths, listing.names, strict=True)) == expected | {("zz/1.png", "zz")}
        assert listing.names == sorted(listing.names)
        assert json.loads(json.dumps(listing.paths)) == listing.paths


def test_the_longest_names_and_unicode_twins_stay_apart(tmp_path: Path) -> None:
    names = ["\u00e9", "e\u0301", "x" * 255, "a\nb", "\x1b[31mred", "\u202eabc", os.fsdecode(b"\xff\xfe")]
    listing = read(plant(tmp_path / "r", *(f"{name}/1.png" for name in names)))
    assert set(listing.names) == set(names)


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_million_names_are_read_fast_enough(count: int) -> None:
    tree = Tree("/r", files=[f"class{i % 1000:04d}/{i:07d}.png" for i in range(count)], folders=[f"class{i:04d}" for i in range(1000)])
    tree.files.sort()
    began = time.monotonic()
    listing = layout.interpret(tree)
    assert len(listing.paths) == count and len(set(listing.names)) == 1000
    assert count / (time.monotonic() - began) > 20_000


@pytest.mark.slow
def test_listing_real_files_is_fast_enough(tmp_path: Path) -> None:
    for label in range(20):
        plant(tmp_path / f"r/{label}", *(f"{i}.png" for i in range(1000)))
    began = time.monotonic()
    assert len(read(tmp_path / "r").paths) == 20_000
    assert 20_000 / (time.monotonic() - began) > 20_000


def table(root: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    plant(root, "x/1.png", "x/2.png", "3.png")
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root / name


CSVS = {
    "plain": "path,label\nx/1.png,no\nx/2.png,0123\n",
    "bom and crlf": b"\xef\xbb\xbfpath,label\r\nx/1.png,no\r\nx/2.png,0123\r\n",
    "utf-16": "path,label\nx/1.png,no\nx/2.png,0123\n".encode("utf-16"),
    "semicolons and quotes": 'label;path\n"no";"x/1.png"\n0123;x/2.png\n',
    "other columns and names": "id\tfile_name\tclass\n7\tx/1.png\tno\n8\t./x/2.png\t0123",
    "empty lines": "path,label\n\nx/1.png,no\n\nx/2.png,0123\n\n",
    "repeated lines": "path,label\nx/1.png,no\nx/2.png,0123\nx/1.png,no\n",
}


@pytest.mark.parametrize("name", CSVS)
def test_csv_gives_paths_and_labels_as_they_are(tmp_path: Path, name: str) -> None:
    listing = list_source(table(tmp_path / "r", CSVS[name]), None)
    assert pairs(listing) == {("x/1.png", "no", False), ("x/2.png", "0123", False)}
    assert listing.errors == []


def test_csv_fields_may_hold_commas_and_newlines_and_a_group(tmp_path: Path) -> None:
    listing = list_source(table(tmp_path / "r", 'path,label,patient\nx/1.png,"a,\nb",p1\nx/2.png, c,p2\n'), "patient")
    assert listing.names == ["a,\nb", " c"] and listing.groups == ["p1", "p2"]


ATTACKS = {
    "missing": "x/9.png,a",
    "above": "../secret.png,a",
    "hidden above": "x/../../secret.png,a",
    "absolute": "/etc/passwd,a",
    "url": "https://example.org/1.png,a",
    "file url": "file:///etc/passwd,a",
    "link out": "x/link.png,a",
    "folder link out": "way/secret.png,a",
    "folder": "x,a",
    "no label": "x/2.png,",
    "no path": ",a",
    "too few fields": "x/2.png",
    "too many fields": "x/2.png,a,b",
    "two labels": "x/1.png,other",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_lines_are_named_and_open_nothing(tmp_path: Path, name: str) -> None:
    file = table(tmp_path / "r", f"path,label\nx/1.png,a\n{ATTACKS[name]}\n")
    plant(tmp_path, "secret.png")
    (tmp_path / "r/x/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "r/way").symlink_to(tmp_path)
    listing = list_source(file, None)
    assert listing.paths == ["x/1.png"]
    assert len(listing.errors) == 1 and listing.errors[0].what.startswith("line 3 ") and listing.errors[0].code == 3


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"a,b\n1,2\n", b"path\nx/1.png\n", b"path,label,label\nx/1.png,a,b\n", b"path,label\n\xff\xfa,a\n", b'path,label\n"x/1.png,a\n']
)
def test_unusable_csvs_are_refused(tmp_path: Path, text: bytes) -> None:
    refusal(table(tmp_path / "r", text))


FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["no", "0123", "猫"]}}


def rows(file: Path, labels: object, features: dict[str, object] | None = None, name: str = "label", **more: object) -> Path:
    images = [{"bytes": f"row {i}".encode(), "path": None} for i in range(len(labels))]  # type: ignore[arg-type]
    columns = pa.table({"image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), name: labels, **more})
    if features is not None:
        columns = columns.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns, file, row_group_size=2)
    return file


def test_parquet_labels_have_the_names_of_the_schema(tmp_path: Path) -> None:
    listing = list_source(rows(tmp_path / "x.parquet", pa.array([2, 0, -1, 1, None], pa.int64()), FEATURES), None)
    assert list(zip(listing.paths, listing.names, strict=True)) == [("x.parquet#0", "猫"), ("x.parquet#1", "no"), ("x.parquet#3", "0123")]
    assert [entry["file"] for entry in listing.problems] == ["x.parquet#2", "x.parquet#4"]
    assert listing.base == str(tmp_path) and row_of(listing.base, "x.parquet#3") == ("x.parquet", 3)


def test_parquet_labels_without_names(tmp_path: Path) -> None:
    assert list_source(rows(tmp_path / "a.parquet", pa.array(["null", "NaN"])), None).names == ["null", "NaN"]
    assert list_source(rows(tmp_path / "b.parquet", pa.array([7, 10])), None).names == ["7", "10"]


def test_a_parquet_folder_has_parts_and_groups(tmp_path: Path) -> None:
    group = pa.array(["p", "q"])
    for name in ("train-00001-of-00002", "train-00000-of-00002", "test-00000-of-00001"):
        rows(tmp_path / f"r/data/{name}.parquet", pa.array([0, 1]), FEATURES, patient=group)
    plant(tmp_path / "r", "README.md", "manifest.json")
    listing = list_source(tmp_path / "r", "patient")
    assert [path for path, flag in zip(listing.paths, listing.test, strict=True) if flag] == [f"data/test-00000-of-00001.parquet#{i}" for i in (0, 1)]
    assert listing.groups == ["p", "q"] * 3
    assert len(set(listing.paths)) == 6


def test_unclear_parquet_is_refused(tmp_path: Path) -> None:
    two = {"fine": FEATURES["label"], "coarse": FEATURES["label"]}
    error = refusal(rows(tmp_path / "a.parquet", pa.array([0]), two, name="fine", coarse=pa.array([0])))
    assert "fine" in error.what and "coarse" in error.what
    assert "no label" in refusal(rows(tmp_path / "b.parquet", pa.array([0]), name="x")).what
    assert "label 3" in refusal(rows(tmp_path / "c.parquet", pa.array([3]), FEATURES)).what
    (tmp_path / "d.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert "Parquet" in refusal(tmp_path / "d.parquet").what
    pq.write_table(pa.table({"label": [1]}), tmp_path / "e.parquet")
    assert "no image" in refusal(tmp_path / "e.parquet").what
    plant(tmp_path / "mixed", "a/1.png")
    rows(tmp_path / "mixed/x.parquet", pa.array([0]))
    assert " or " in refusal(tmp_path / "mixed").what


def test_a_file_that_only_looks_like_a_row_is_a_file(tmp_path: Path) -> None:
    plant(tmp_path, "a/x.parquet#1")
    assert row_of(str(tmp_path), "a/x.parquet#1") is None
