"""CSV files of every make: read right, or refused with the line (D5); paths that lead out are never opened (D6)."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path

import audit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import noise, png

from datagen import caching
from datagen.cli.app import run
from datagen.errors import DatagenError, InputError
from datagen.evaluation import inputs
from datagen.evaluation.inputs import Asked
from datagen.progress import Progress
from datagen.records import Recipe
from datagen.sources.scan import scan
from datagen.sources.table import list_csv

PLAIN = "path,label\nx/1.png,no\nx/2.png,0123\nx/3.png,no\nx/4.png,0123\n"
ROWS = {"x/1.png": "no", "x/2.png": "0123", "x/3.png": "no", "x/4.png": "0123"}
BODY = "x/1.png,no\nx/2.png,0123\nx/3.png,no\nx/4.png,0123\n"
RIGHT: dict[str, str | bytes] = {
    "plain": PLAIN,
    "UTF-8 mark": codecs.BOM_UTF8 + PLAIN.encode(),
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "CR alone": PLAIN.replace("\n", "\r"),
    "no last line end": PLAIN.rstrip("\n"),
    "every field quoted": "\n".join(",".join(f'"{field}"' for field in line.split(",")) for line in PLAIN.split()),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 big-endian, CRLF": codecs.BOM_UTF16_BE + PLAIN.replace("\n", "\r\n").encode("utf-16-be"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "upper-case header with blanks": PLAIN.replace("path,label", " Path , LABEL "),
    "more columns in another order": "id,class,note,file_name\n" + "".join(f'{i},{v},"a, b",{k}\n' for i, (k, v) in enumerate(ROWS.items())),
    "a newline in a field": 'path,label,note\nx/1.png,no,"two\nlines"\n' + "".join(f"{k},{v},\n" for k, v in list(ROWS.items())[1:]),
    "a line twice": PLAIN + "x/1.png,no\n",
    "dots in paths": PLAIN.replace("x/", "./x/../x/"),
    "commas with semicolons between": "path;label;note\n" + "".join(f"{k};{v};1,5\n" for k, v in ROWS.items()),
}
SPLIT = "path,label,split\nx/1.png,no,train\nx/2.png,no,train\nx/3.png,0123,train\nx/4.png,0123,train\nx/5.png,no,test\n"
WRONG: dict[str, tuple[str | bytes, str]] = {
    "empty": (b"", "line 1 has no header"),
    "a first line that is empty": ("\n" + PLAIN, "line 1 has no header"),
    "no path column": ("name,label\n" + BODY, "line 1 has no column 'path'"),
    "no label column": ("path,kind\n" + BODY, "line 1 has no column 'label'"),
    "no header at all": (BODY, "line 1 has no column"),
    "two label columns": ("path,label,Label\nx/1.png,no,no\n", "line 1 has two columns 'label'"),
    "two path columns": ("path,PATH,label\nx/1.png,x/1.png,no\n", "line 1 has two columns 'path'"),
    "an open quote in the header": ('path,"label\n' + BODY, "line 1 is no CSV"),
    "an open quote": (PLAIN + '"x/1.png,no\n', "line 6 is no CSV"),
    "text after a quote": (PLAIN + '"x/1.png"y,no\n', "line 6 is no CSV"),
    "too few fields": (PLAIN + "x/5.png\n", "line 6 has 1 fields"),
    "too many fields": (PLAIN + "x/5.png,no,more\n", "line 6 has 3 fields"),
    "a wrong byte": (PLAIN.encode() + b"x/5.png,\xff\n", "line 6 is not UTF-8"),
    "Latin 1": ("path,label\nx/1.png,caf\u00e9\n".encode("latin-1"), "line 2 is not UTF-8"),
    "half a UTF-16 letter": (PLAIN.encode("utf-16")[:-1], "line 5 is not UTF-16"),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), "line 1 holds zero bytes"),
    "UTF-32": (PLAIN.encode("utf-32"), "line 1 holds zero bytes"),
    "a zero byte": (PLAIN.encode() + b"x/5\0.png,no\n", "line 6 holds zero bytes"),
    "a field of 200,000 letters": (PLAIN + "x" * 200_000 + ",no\n", "line 6 is no CSV"),
    "an image": (png(noise(), 2), "line 1 "),
    "a label of nothing": (PLAIN + "x/5.png,\n", "line 6 has no label"),
    "two labels": (PLAIN + "x/1.png,0123\n", "line 6 gives 'x/1.png' the label '0123', an earlier one 'no'"),
    "two parts": (SPLIT + "x/1.png,no,Test\n", "line 7 gives 'x/1.png' the label 'no' in test, an earlier one 'no' in train"),
}


def images(root: Path, count: int = 5) -> Path:
    """Write x/1.png and on, all different."""
    for i in range(1, count + 1):
        file = root / f"x/{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(noise(8, 8, i), 2))
    return root


def table(root: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root / name


@pytest.mark.parametrize("name", RIGHT)
def test_a_table_is_read_right(name: str, tmp_path: Path) -> None:
    file = table(images(tmp_path / "r"), RIGHT[name])
    found = scan(file, Recipe())
    assert dict(zip(found.paths, (found.classes[label] for label in found.labels), strict=True)) == ROWS
    assert found.problems == ()


def test_there_are_enough_tables() -> None:
    assert len(RIGHT) + len(WRONG) >= 25


@pytest.mark.parametrize("name", WRONG)
def test_a_table_is_refused_with_its_line_by_every_verb(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, says = WRONG[name]
    file = table(images(tmp_path / "r"), content)
    made = images(tmp_path / "made/a").parent
    verbs = (["describe", str(file)], ["fit", str(file), "--out", str(tmp_path / "run"), "--dry-run"], ["fit", str(file), "--out", str(tmp_path / "run")])
    for words in verbs:
        assert run([*words, "--quiet"]) == 3
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1 and len(told) <= 301 and f"labels.csv: {says}" in told
    with pytest.raises(InputError) as caught:
        inputs.gather(Asked((str(made),), str(file), str(made)), Recipe(quick=True), progress=Progress(quiet=True))
    assert says in caught.value.what


ATTACKS = {
    "above": "../secret.png",
    "hidden above": "x/../../secret.png",
    "absolute": "{out}/secret.png",
    "a device": "/dev/zero",
    "a URL": "http://127.0.0.1:9/1.png",
    "a file URL": "file://{out}/secret.png",
    "another scheme": "s3://bucket/1.png",
    "a link out": "x/link.png",
    "a link to a folder outside": "way/secret.png",
    "a chain of links": "x/chain.png",
    "a link that loops": "x/loop.png",
    "a FIFO": "x/pipe.png",
    "a folder": "x",
    "the table's own folder": ".",
    "backslashes": "..\\secret.png",
    "a missing file": "x/9.png",
    "a very long name": "x/" + "y" * 5000 + ".png",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_path_that_leads_out_is_refused_and_opens_nothing(name: str, tmp_path: Path) -> None:
    """D6: ten attacks and more."""
    check_attack(name, tmp_path)


def check_attack(name: str, tmp_path: Path) -> None:
    """Assert that a line of a table is refused with exit 3 and its number, and that nothing outside of the root is opened."""
    root = images(tmp_path / "r")
    (tmp_path / "secret.png").write_bytes(png(noise(8, 8, 99), 2))
    (root / "x/link.png").symlink_to(tmp_path / "secret.png")
    (root / "x/chain.png").symlink_to("link.png")
    (root / "x/loop.png").symlink_to("loop.png")
    (root / "way").symlink_to(tmp_path)
    os.mkfifo(root / "x/pipe.png")
    file = table(root, f'{PLAIN}"{ATTACKS[name].format(out=tmp_path)}",no\n')
    with pytest.raises(InputError) as caught, audit.recorded() as seen:
        scan(file, Recipe(threads=1), report=tmp_path / "scan.json")
    assert caught.value.code == 3 and "line 6 " in caught.value.what and caught.value.hint and len(caught.value.line()) <= 300
    assert "line 6 " in json.loads((tmp_path / "scan.json").read_text())["errors"][0]
    allowed = (str(root), str(caching.cache_folder()), str(tmp_path / "scan.json"), str(tmp_path / ".tmp-"), *audit.TRUSTED)
    outside = [path for path in seen.opened if not path.startswith(allowed) and not path.isdigit() and path != str(tmp_path)]
    assert not outside and not seen.events
    assert not [path for path in seen.opened if os.path.basename(path) in {"secret.png", "link.png", "chain.png", "pipe.png"}]


TEXTS = st.text(st.sampled_from(' ,;\t|"\n\r\0\ufeffpathlbexno123./\\\u00e9\u732b\x1b\u2028'), max_size=200)
HEADS = st.sampled_from(["", "path,label\n", "path;label\r\n", '"path","label"\n', "file\tclass\n"])


def check_any_table(root: Path, content: bytes) -> None:
    """Read a table of any content: a listing whose images lie in its folder, or one error of ours."""
    file = table(root, content)
    try:
        with audit.watch():
            listing = list_csv(file, None)
    except InputError as error:
        assert error.hint and error.code == 3 and len(error.line()) <= 300 and error.line().isprintable()
        return
    assert len(listing.paths) == len(listing.names) == len(set(listing.paths))
    assert all(os.path.realpath(root / path).startswith(f"{root}{os.sep}") and (root / path).is_file() for path in listing.paths)
    assert all(error.what.startswith("line ") for error in listing.errors) and all(listing.names)


@pytest.mark.parametrize("examples", [150, pytest.param(4_000, marks=pytest.mark.slow)])
def test_no_table_trips_the_reader(examples: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = images(tmp_path_factory.mktemp("tables"))

    @given(HEADS, TEXTS | st.lists(st.sampled_from(BODY.splitlines()), max_size=4).map("\n".join), st.sampled_from(["utf-8", "utf-16", "latin-1", "utf-16-le"]))
    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    def tries(head: str, text: str, coding: str) -> None:
        check_any_table(root, (head + text).encode(coding, "replace"))

    @given(st.binary(max_size=300))
    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    def noises(content: bytes) -> None:
        check_any_table(root, content)

    tries()
    noises()


def test_a_parquet_of_anything_is_refused_or_read(tmp_path: Path) -> None:
    for i, content in enumerate((b"", b"PAR1", b"PAR1" + bytes(50) + b"PAR1", b"PAR1" + b"\xff" * 40 + b"\xff\xff\xff\x7fPAR1", PLAIN.encode())):
        file = tmp_path / f"{i}.parquet"
        file.write_bytes(content)
        with pytest.raises(DatagenError) as caught:
            scan(file, Recipe())
        assert caught.value.code == 3 and caught.value.hint
