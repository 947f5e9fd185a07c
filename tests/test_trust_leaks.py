"""P4: no path, file name, group, user, machine or metadata of the real images is in anything that is given away."""

from __future__ import annotations

import base64
import getpass
import io
import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms, PngImagePlugin

import datagen
from datagen.cli import app
from datagen.formats import encode
from datagen.reading.verify import verify
from datagen.synthesis.export import export

SINGER = "KANARIE"
TINY = {"images": 320, "width": 4, "latent": 4, "batch": 16, "threads": 1, "deterministic": True, "family": "cvae"}


def sung(name: str) -> str:
    """Return a text that is nowhere else."""
    return f"{SINGER}{name}"


def jpeg(pixels: np.ndarray) -> bytes:
    """Return a JPEG with canaries in GPS, artist, comment, XMP and colour profile, and behind its end."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    exif = image.getexif()
    exif[0x013B], exif[0x010E] = sung("artist"), sung("description")
    exif.get_ifd(0x8825)[29], exif.get_ifd(0x8825)[27] = sung("gps"), sung("method")
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile = profile.replace("sRGB built-in".encode("utf-16-be"), sung("icc").ljust(13).encode("utf-16-be"))
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>{sung("xmp")}</a></x:xmpmeta>'.encode()
    image.save(file, "JPEG", exif=exif, comment=sung("comment").encode(), icc_profile=bytes(profile), xmp=xmp, quality=95)
    return file.getvalue() + sung("tail").encode()


def png(pixels: np.ndarray) -> bytes:
    """Return a PNG with canaries in plain, packed and international texts, in EXIF, and behind its end."""
    image, file, text = Image.fromarray(pixels), io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("Author", sung("text"))
    text.add_text("Comment", sung("packed"), zip=True)
    text.add_itxt("XML:com.adobe.xmp", sung("itxt"))
    exif = image.getexif()
    exif[0x013B] = sung("artist")
    image.save(file, "PNG", pnginfo=text, exif=exif)
    return file.getvalue() + sung("tail").encode()


def photographs(root: Path, each: int = 30) -> Path:
    """Write two classes of images with canaries in the files, their names, their groups, and the folders above."""
    rng, folder = np.random.default_rng(0), root / sung("folder") / "photos"
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8)
            pixels[4 * label : 4 * label + 8, 4:12] += 120
            made, suffix = (jpeg(pixels), "jpg") if i % 2 else (png(pixels), "png")
            (folder / name / f"{sung('file')}-{SINGER}group{i // 2}-{i}.{suffix}").write_bytes(made)
    return folder


def spelled(text: bytes) -> Iterator[bytes]:
    """Yield a text as it may be hidden: as it is, in two bytes a letter, in hex, in base64 at each place."""
    yield from (text, text.decode().encode("utf-16-le"), text.decode().encode("utf-16-be"), text.hex().encode(), text.hex().upper().encode())
    for shift in range(3):
        yield base64.b64encode(bytes(shift) + text)[4 if shift else 0 : -4]


def inside(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, and what is packed in it."""
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield repr(table.schema.metadata).encode()
        cells = [cell for row in table.to_pylist() for cell in row.values()]
        yield repr([cell for cell in cells if not isinstance(cell, dict)]).encode()
        yield from (cell["bytes"] for cell in cells if isinstance(cell, dict))
    yield from (base64.b64decode(found) for found in re.findall(rb"data:image/png;base64,([A-Za-z0-9+/=]+)", raw))


def heard(*places: Path) -> list[str]:
    """Return every file whose name or content holds a canary, the user's name or the machine's."""
    found = []
    for place in places:
        for path in sorted(p for p in ([place] if place.is_file() else place.rglob("*")) if p.is_file()):
            below = path.name if place.is_file() else path.relative_to(place).as_posix()
            where = [below for each in (below.encode(), *inside(path)) for spelling in spelled(SINGER.encode()) if spelling in each]
            found += sorted(set(where))
    return found


def chunks(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Return name and content of each chunk of a PNG."""
    found, place = [], 8
    while place < len(raw):
        size = struct.unpack(">I", raw[place : place + 4])[0]
        found.append((raw[place + 4 : place + 8], raw[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


@pytest.fixture(autouse=True)
def _singing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """User, home and machine have canaries in their names."""
    for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME"):
        monkeypatch.setenv(name, sung("user"))
    home = tmp_path / sung("home")
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(socket, "gethostname", lambda: sung("host"))
    assert Path.home() == home and SINGER in getpass.getuser()


def fitted(tmp_path: Path, each: int = 30) -> tuple[Path, Path]:
    """Return the folder of the real images and RUN."""
    real, run = photographs(tmp_path, each), tmp_path / sung("user") / "run"
    settings: dict[str, Any] = {**TINY, "group": "(K[A-Z]+group[0-9]+)"}
    datagen.fit(real, run, **settings)
    return real, run


def test_the_listener_hears(tmp_path: Path) -> None:
    real = photographs(tmp_path)
    assert len(heard(real)) == 60
    whole = jpeg(np.zeros((16, 16, 3), np.uint8)) + png(np.zeros((16, 16, 3), np.uint8))
    for name in ("artist", "description", "gps", "method", "comment", "icc", "xmp", "text", "itxt", "tail"):
        assert any(spelling in whole for spelling in spelled(sung(name).encode())), name
    (tmp_path / "page.html").write_bytes(b"data:image/png;base64," + base64.b64encode(png(np.zeros((9, 9, 3), np.uint8))))
    (tmp_path / "wide").write_bytes(sung("x").encode("utf-16-le"))
    assert heard(tmp_path / "page.html") and heard(tmp_path / "wide")


def test_nothing_of_the_real_files_is_in_what_a_fit_and_synthesize_give_away(tmp_path: Path) -> None:
    _, run = fitted(tmp_path)
    given = [run / name for name in ("generator", "tb", "samples", "run.html", "progress.jsonl", "status.json")]
    assert all(place.exists() for place in given) and list((run / "tb").iterdir())
    sets = []
    datagen.synthesize(run, tmp_path / "parquet", per_class=3, workers=1, keep_near_copies=True, min_confidence=0)
    for format in ("parquet", "webdataset", "folder"):
        sets.append(tmp_path / format)
        if format != "parquet":
            export(tmp_path / "parquet", sets[-1], format=format)
        assert not verify(sets[-1])
    assert {"croissant.json", "README.md", "manifest.json", "classes.json", ".datagen"} <= {p.name for p in sets[0].iterdir()}
    assert heard(*given, *sets) == []
    for path in (tmp_path / "folder" / "data").rglob("*.png"):
        parts = chunks(path.read_bytes())
        assert [name for name, _ in parts] == [b"IHDR", b"iTXt", b"IDAT", b"IEND"]
        assert parts[1][1] == b"XML:com.adobe.xmp\0\0\0\0\0" + encode.packet("trainedAlgorithmicMedia")


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True])
def test_nothing_of_the_real_files_is_in_a_report(share: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = fitted(tmp_path, each=120)
    datagen.synthesize(run, tmp_path / "shards", per_class=40, workers=1, keep_near_copies=True, min_confidence=0)
    net = tmp_path / sung("code") / "net.py"
    net.parent.mkdir()
    net.write_text("from datagen.recogniser.nets import Small\n\nclass Mine(Small):\n    pass\n")
    report = tmp_path / sung("user") / "report"
    datagen.evaluate(tmp_path / "shards", run=run, out=report, steps=20, repeats=1, share=share, recogniser=f"{net}:Mine")
    given = [report / name for name in ("report.html", "report.md", "predictions.parquet", "status.json")]
    assert heard(*given) == []
    value = json.loads((report / "report.json").read_bytes())
    assert value["measured"]["settings"]["recogniser"] == "net.py:Mine"
    listed = [pair["real"] for key in ("copies", "equal", "pairs") for pair in value["measures"]["copies"][key]]
    assert listed
    if share:
        assert heard(report / "report.json") == []
        assert value["data"]["real"]["folder"] == value["data"]["test"]["folder"] == "not said"
    else:
        for each in listed:
            assert each.pop("name").split("/")[0] in {"cat", "dog"}, "where its owner finds it, below the folder"
        (report / "report.json").write_text(json.dumps(value))
        assert heard(report / "report.json") == []
    groups = set(pq.read_table(report / "predictions.parquet").column("group").to_pylist())
    assert len(groups) > 1 and all(re.fullmatch(r"\d{7}", group) for group in groups)


def test_the_command_of_the_user_is_said_without_its_folders() -> None:
    from made_report import experiment_of, report_of

    said = f"python /home/{sung('user')}/train.py {{train}} --test={{test}} --log=/home/{sung('user')}/log {{predictions}}"
    report = report_of(experiment_of(("a", "b")), command=said)
    assert SINGER not in json.dumps(report)
    assert report["measured"]["command"] == "python train.py {train} --test={test} --log=log {predictions}"


def test_the_log_of_a_fault_names_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "logs"))
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)

    def fault(*given: Any, **more: Any) -> None:
        raise RuntimeError(f"at {Path.home()}/photos")

    monkeypatch.setattr("datagen.cli.describe.describe", fault)
    assert app.run(["describe", str(tmp_path)]) == 1
    logs = list((tmp_path / "logs").glob("datagen-error-*.log"))
    assert len(logs) == 1 and "at ~/photos" in logs[0].read_text() and heard(logs[0]) == []
    assert "please report it with" in capsys.readouterr().err


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from datagen.training.board import Board

    for start in range(2):
        board = Board(tmp_path / "tb")
        for step in range(3):
            board.add({"loss/elbo": 10.0 - step - 3 * start, "speed/images_per_second": 5.0}, 100 * (3 * start + step))
    assert len(list((tmp_path / "tb").iterdir())) == 2
    found = EventAccumulator(str(tmp_path / "tb"))
    found.Reload()
    scalars = [(event.step, event.value) for event in found.Scalars("loss/elbo")]
    assert scalars == [(100 * i, 10.0 - i) for i in range(6)]
    assert set(found.Tags()["scalars"]) == {"loss/elbo", "speed/images_per_second"}
