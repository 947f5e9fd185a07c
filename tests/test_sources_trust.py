"""Images that say they are synthetic: AI marks in files, source columns of tables, folders of shards; refused unless allowed."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from test_sources_look import count_decodes
from test_sources_scan import plant, refused, scanned

from datagen.errors import InputError
from datagen.records import Recipe
from datagen.sources import look, trust
from datagen.sources.decode import decode
from datagen.sources.scan import scan

NAMESPACE = 'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
VALUE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "algorithmicMedia")


def packet(value: str, form: str = "attribute") -> bytes:
    name = "Iptc4xmpExt:DigitalSourceType"
    inner = {
        "attribute": f'<rdf:Description {NAMESPACE} {name}="{VALUE}{value}"/>',
        "element": f"<rdf:Description {NAMESPACE}><{name}>\n {VALUE}{value}\n </{name}></rdf:Description>",
        "resource": f"<rdf:Description {NAMESPACE}><{name} rdf:resource='{VALUE}{value}'/></rdf:Description>",
    }[form]
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{inner}</rdf:RDF></x:xmpmeta>'.encode()


def marked(kind: str, xmp: bytes, seed: int = 0, **more: Any) -> bytes:
    """Return an image file of noise with an XMP packet."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    buffer = BytesIO()
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=bool(more.pop("zip", False)))
        more["pnginfo"] = text
    else:
        more |= {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}
    Image.fromarray(pixels).save(buffer, kind, **more)
    return buffer.getvalue()


def made(content: bytes) -> str:
    return decode(content, max_pixels=10**6).made


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("form", ["attribute", "element", "resource"])
@pytest.mark.parametrize("value", MADE)
def test_the_mark_is_seen_in_every_format_and_form(kind: str, form: str, value: str) -> None:
    assert made(marked(kind, packet(value, form))) == value


@pytest.mark.parametrize("value", ["digitalCapture", "negativeFilm", "humanEdits", "trainedAlgorithmicMedia/not", "minorHumanEdits", ""])
@pytest.mark.parametrize("form", ["attribute", "element", "resource"])
def test_other_values_are_no_mark(value: str, form: str) -> None:
    assert made(marked("PNG", packet(value, form))) == ""


def test_packed_text_a_late_chunk_and_wide_letters_count_too() -> None:
    assert made(marked("PNG", packet(MADE[0]), zip=True)) == MADE[0]
    content = marked("PNG", packet(MADE[0]))
    begin = content.index(b"iTXt") - 4
    length = int.from_bytes(content[begin : begin + 4], "big") + 12
    assert made(content[:begin] + content[begin + length : -12] + content[begin : begin + length] + content[-12:]) == MADE[0]
    assert made(marked("JPEG", packet(MADE[1]).decode().encode("utf-16-le"))) == MADE[1]


def test_a_mark_elsewhere_is_none() -> None:
    name, quoted = "Iptc4xmpExt:DigitalSourceType", f'dc:title="{VALUE}{MADE[0]}"'
    both = f'<rdf:Description {NAMESPACE} {name}="{VALUE}digitalCapture" {quoted}/>'
    assert made(marked("PNG", both.encode())) == ""
    assert made(marked("PNG", f"<x {quoted}>{VALUE}{MADE[0]}</x>".encode())) == ""
    assert made(marked("PNG", f"<{name}>{VALUE}digitalCapture</{name}><y>{VALUE}{MADE[0]}</y>".encode())) == ""


def test_hostile_packets_are_searched_in_one_pass() -> None:
    """A pattern that tried every way out would run into the limit of the tests."""
    for text in (b"DigitalSourceType ", b"DigitalSourceType=", b'DigitalSourceType="a', b"DigitalSourceType>", b"DigitalSourceType a" + b" resource" * 30):
        assert trust.mark({"xmp": text * (2_000_000 // len(text))}) == ""
        assert trust.mark({"xmp": text + b" " * 2_000_000}) == ""
    for odd in ({"xmp": None}, {"xmp": 3}, {"xmp": ("a",)}, {}):
        assert trust.mark(odd) == ""


def test_orientation_and_pixels_are_as_they_were() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = (marked("JPEG", packet(MADE[0]), exif=e) for e in (Image.Exif(), exif))
    assert decode(turned, max_pixels=10**6).pixels.shape == (10, 12, 3)
    assert np.array_equal(decode(turned, max_pixels=10**6).pixels, np.rot90(decode(plain, max_pixels=10**6).pixels, -1))


def folder(root: Path) -> Path:
    plant(root, {"a": 5, "b": 5})
    (root / "a/made.png").write_bytes(marked("PNG", packet(MADE[0]), 100))
    (root / "b/made.jpg").write_bytes(marked("JPEG", packet(MADE[1]), 101))
    return root


def test_marked_images_are_refused_unless_allowed(tmp_path: Path) -> None:
    root = folder(tmp_path / "r")
    error = refused(root)
    assert "2 images say that they are synthetic, first a/made.png (AI mark trainedAlgorithmicMedia)" in error.what and "--allow-synthetic" in error.hint
    found = scanned(root, allow_synthetic=True)
    assert len(found) == 12 and any("2 images say that they are synthetic, first a/made.png" in note for note in found.notes)
    assert {p["file"] for p in found.problems} == {"a/made.png", "b/made.jpg"}
    (root / "b/made.jpg").unlink()
    assert "1 image says that it is synthetic" in refused(root).what


def test_as_test_images_too_and_all_reasons_are_in_the_report(tmp_path: Path) -> None:
    real, unseen = plant(tmp_path / "real", {"a": 3, "b": 3}, first=50), folder(tmp_path / "unseen")
    with pytest.raises(InputError, match=r"2 images .* first a/made.png"):
        scan(real, Recipe(), test=unseen, report=tmp_path / "out/scan.json")
    report = json.loads((tmp_path / "out/scan.json").read_text())
    assert [p["file"] for p in report["problems"]] == ["a/made.png", "b/made.jpg"] and len(report["errors"]) == 1
    assert scan(real, Recipe(allow_synthetic=True), test=unseen).test.sum() == 12


def test_the_mark_is_remembered_without_a_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "r")
    first = refused(root)
    opened = count_decodes(monkeypatch)
    assert refused(root).what == first.what and opened == []
    assert len(scanned(root, allow_synthetic=True)) == 12 and opened == []


def test_what_an_older_version_remembered_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "r")
    mark = look._MARK
    assert mark != b"datagen scan 1\n"
    monkeypatch.setattr(look, "_MARK", b"datagen scan 1\n")
    scanned(root, allow_synthetic=True)
    monkeypatch.setattr(look, "_MARK", mark)
    opened = count_decodes(monkeypatch)
    refused(root)
    assert len(opened) == 12


def noise(seed: int) -> bytes:
    return marked("PNG", b"", seed)


def rows(file: Path, source: list[Any] | None, name: str = "source", kind: Any = None) -> Path:
    """Write labelled Parquet of six images with a column of this name, or without one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {"image": [noise(i) for i in range(6)], "label": ["a", "b"] * 3}
    if source is not None:
        columns[name] = pa.array(source, kind)
    pq.write_table(pa.table(columns), file)
    return file


def test_rows_of_parquet_by_their_source_column(tmp_path: Path) -> None:
    some = rows(tmp_path / "some.parquet", ["camera", None, "synthetic", "Rule ", "camera", "synthetics"])
    error = refused(some)
    assert "2 images say that they are synthetic, first some.parquet#2 (its source column says so)" in error.what and "--allow-synthetic" in error.hint
    assert len(scanned(some, allow_synthetic=True)) == 6
    assert refused(rows(tmp_path / "d.parquet", ["rule"] * 6, kind=pa.dictionary(pa.int8(), pa.string()))).what.startswith("6 images")
    assert "6 images" in refused(rows(tmp_path / "g.parquet", ["rule"] * 6), group="source").what


def test_parquet_without_such_a_column_is_as_it_was(tmp_path: Path) -> None:
    for number, file in enumerate(
        (
            rows(tmp_path / "0.parquet", None),
            rows(tmp_path / "1.parquet", ["synthetic"] * 6, "origin"),
            rows(tmp_path / "2.parquet", [1] * 6),
            rows(tmp_path / "3.parquet", ["http://camera"] * 6),
        )
    ):
        found = scanned(file)
        assert len(found) == 6 and found.problems == (), number
    assert len({scanned(tmp_path / f"{i}.parquet").fingerprint for i in range(4)}) == 1


def test_a_source_column_that_is_the_label_says_nothing_about_the_others(tmp_path: Path) -> None:
    file = rows(tmp_path / "r.parquet", ["synthetic", "camera"] * 3)
    table = pq.read_table(file).drop_columns(["label"])
    features = {"info": {"features": {"source": {"_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), file)
    assert scanned(file).classes == ("camera", "synthetic")


def test_lines_of_csv_by_their_source_column(tmp_path: Path) -> None:
    plant(tmp_path, {"a": 3, "b": 3})
    lines = [f"{name}/{i}.png,{name},{'synthetic' if i == 1 else 'camera'}" for name in "ab" for i in range(3)]
    file = tmp_path / "list.csv"
    file.write_text("path,label,Source\n" + "\n".join(lines) + "\n")
    assert "2 images say that they are synthetic, first a/1.png" in refused(file).what
    assert len(scanned(file, allow_synthetic=True)) == 6
    file.write_text("path,label,Source\n" + "\n".join(line.replace("synthetic", "phone") for line in lines) + "\n")
    assert len(scanned(file)) == 6


def test_the_parts_of_a_source_keep_their_rows(tmp_path: Path) -> None:
    rows(tmp_path / "r/train.parquet", ["camera"] * 6)
    images = [noise(100 + i) for i in range(4)]
    pq.write_table(pa.table({"image": images, "label": ["a", "b"] * 2, "source": ["camera", "camera", "rule", "camera"]}), tmp_path / "r/test.parquet")
    assert "1 image says that it is synthetic, first test.parquet#2" in refused(tmp_path / "r").what
    unseen = plant(tmp_path / "unseen", {"a": 2, "b": 2}, first=300)
    assert len(scan(tmp_path / "r", Recipe(), test=unseen)) == 10, "the test part is left alone, so its rows are not in the way"


@pytest.fixture(scope="module", params=["parquet", "webdataset", "folder"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import datagen

    out = tmp_path_factory.mktemp("shards") / request.param
    datagen.synthesize("rule:shapes", out, per_class=3, format=request.param)
    return out


def test_shards_are_no_real_images_in_any_format(shards: Path, tmp_path: Path) -> None:
    real = plant(tmp_path / "r", {"a": 3, "b": 3})
    total = json.loads((shards / "manifest.json").read_text())["shards"]
    count = sum(sum(note["rows"].values()) for note in total)
    error = refused(shards)
    assert f"a set of synthetic images that datagen made: {count} images, first file {total[0]['file']}" in error.what and "--allow-synthetic" in error.hint
    assert "datagen made" in refused(shards / "data").what
    with pytest.raises(InputError, match="datagen made"):
        scan(real, Recipe(), test=shards)
    with pytest.raises(InputError, match="datagen made"):
        scanned(real, test=str(shards))
    for parquet in (shards / "data").glob("*.parquet"):
        assert "datagen made" in refused(parquet).what
        parquet_elsewhere = tmp_path / parquet.name
        parquet_elsewhere.write_bytes(parquet.read_bytes())
        assert f"{count} images say that they are synthetic" in refused(parquet_elsewhere).what


def test_unfinished_shards_are_none_either_and_a_folder_of_like_names_is_one(tmp_path: Path) -> None:
    root = plant(tmp_path / "r", {"a": 3, "b": 3})
    (root / ".datagen").mkdir()
    (root / "other.json").write_text("{}")
    assert len(scanned(root)) == 6
    (root / ".datagen/plan.json").write_text("{}")
    assert refused(root).what == "is a set of synthetic images that datagen made"
    (root / ".datagen/plan.json").unlink()
    for damaged in ("{", "[]", '{"shards": []}', '{"shards": [{"rows": 3}]}', "3"):
        (root / "manifest.json").write_text(damaged)
        assert refused(root).what == "is a set of synthetic images that datagen made"
    assert len(scanned(root, allow_synthetic=True)) == 6
    assert len(scanned(plant(root / "other", {"a": 2, "b": 2}))) == 4, "only what lies in data/ belongs to a set"


def test_allowed_shards_are_read_as_labelled_parquet(tmp_path: Path) -> None:
    import datagen

    datagen.synthesize("rule:shapes", tmp_path / "s", per_class=3, mark=False)
    found = scanned(tmp_path / "s", allow_synthetic=True)
    assert len(found) == 3 * len(found.classes) and any("its source column says so" in note for note in found.notes)


def test_fit_and_describe_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datagen.cli.app import run

    root = folder(tmp_path / "r")
    assert run(["fit", str(root), "--out", str(tmp_path / "run"), "--quiet"]) == 3
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and "--allow-synthetic" in told and "2 images" in told
    assert run(["fit", str(root), "--out", str(tmp_path / "run"), "--allow-synthetic", "--dry-run", "--images", "100", "--threads", "1"]) == 0
    assert "2 images say that they are synthetic" in capsys.readouterr().out
    assert run(["describe", str(root), "--json", "--quiet"]) == 0
    assert any("2 images say" in note for note in json.loads(capsys.readouterr().out)["notes"])


def test_evaluate_takes_shards_as_synthetic_images_alone(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datagen.cli.app import run

    real = plant(tmp_path / "r", {"a": 3, "b": 3})
    for given in (("--real", str(shards), "--test", str(real)), ("--real", str(real), "--test", str(shards))):
        assert run(["evaluate", str(shards), *given, "--out", str(tmp_path / "report"), "--quiet"]) == 3
        told = capsys.readouterr().err
        assert "is a set of synthetic images that datagen made" in told and "--allow-synthetic" in told and told.count("\n") == 1
    unseen = plant(tmp_path / "unseen", {"a": 3, "b": 3}, first=50)
    assert run(["evaluate", str(shards), "--real", str(real), "--test", str(unseen), "--out", str(tmp_path / "report"), "--quiet"]) == 3
    assert "classes" in capsys.readouterr().err, "it came as far as comparing the classes"
