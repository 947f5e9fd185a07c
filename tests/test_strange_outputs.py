"""Bombs cost next to nothing (F4), and what hangs on behind an image comes out nowhere (F5)."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import pytest
from made_files import bombs, noise, png, saved
from PIL import Image
from strange import CANARY, Strange, corpus, polyglots
from test_evaluation import SMALL, _no_timing

import datagen
from datagen import caching
from datagen.cli.app import run
from datagen.errors import InputError
from datagen.evaluation.run import evaluate
from datagen.progress import Progress
from datagen.records import Recipe
from datagen.sources.decode import decode
from datagen.sources.whole import without_tail
from datagen.synthesis.merge import merge

__all__ = ["_no_timing"]
MOST_MEMORY, MOST_SECONDS = 50 << 20, 0.2
NAMES = ("a", "b")


def peak() -> int:
    """Return the most memory that this process held since `forget`, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget() -> int:
    """Begin anew to watch the most memory; returns what is held now."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not forget its high-water mark")
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_costs_little_memory_and_time(name: str) -> None:
    check_bomb(name)


def check_bomb(name: str) -> None:
    """Assert the memory and the time of a bomb; that of the processor, the best of three, so that a busy machine does no harm."""
    data = bombs()[name]
    assert len(data) < 100_000
    decode(saved(noise()), max_pixels=64_000_000)
    held, seconds = forget(), []
    for _ in range(3):
        began = time.thread_time()
        try:
            decode(data, max_pixels=64_000_000)
        except InputError as error:
            assert error.hint
        seconds.append(time.thread_time() - began)
    assert peak() - held < MOST_MEMORY
    assert min(seconds) < MOST_SECONDS


def test_sixteen_threads_of_bombs_cost_no_more(tmp_path: Path) -> None:
    from datagen.sources.scan import scan

    for i, content in enumerate(bombs().values()):
        for k in range(8):
            file = tmp_path / f"r/{NAMES[k % 2]}/{i}-{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    held = forget()
    with pytest.raises(InputError, match="must be left out"):
        scan(tmp_path / "r", Recipe(threads=16))
    assert peak() - held < 500 << 20


def folder(root: Path, first: int, *, polyglot: bool) -> Path:
    """Write two classes of twelve images 16 x 16 each; polyglots of the corpus lie among them where that is asked for."""
    for i in range(24):
        file = root / NAMES[i % 2] / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(noise(16, 16, first + i), 2))
    for i, each in enumerate(polyglots() if polyglot else ()):
        (root / NAMES[i % 2] / each.name).write_bytes(each.content)
    return root


def clean(*places: Path) -> None:
    """Assert that no file below these places, nor any image text or picture inside of them, holds the canary."""
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*"))) if path.is_file()]
    assert files
    for path in files:
        assert CANARY not in path.read_bytes(), path
        assert CANARY.decode() not in path.name


def test_the_canary_is_in_the_files() -> None:
    assert sum(CANARY in each.content for each in polyglots()) == len(polyglots()) >= 5
    assert sum(CANARY in each.content and CANARY not in without_tail(each.content) for each in polyglots()) == 5


@pytest.mark.parametrize("page", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pages_pictures_and_caches_hold_pixels_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], page: bool) -> None:
    root = folder(tmp_path / "real", 0, polyglot=True)
    assert run(["describe", str(root), "--preview", str(tmp_path / "out/grid.png"), "--json", "--quiet"]) == 0
    if page:
        assert run(["describe", str(root), "--page", str(tmp_path / "out/scan.html"), "--quiet"]) == 0
    assert CANARY.decode() not in capsys.readouterr().out
    with Image.open(tmp_path / "out/grid.png") as shown:
        assert shown.size[0] > 16
    clean(tmp_path / "out", caching.cache_folder())


@pytest.mark.slow
def test_the_report_of_an_evaluation_holds_pixels_alone(tmp_path: Path) -> None:
    real, made, unseen = (folder(tmp_path / name, first, polyglot=name != "made") for name, first in (("real", 0), ("made", 100), ("unseen", 200)))
    for each in polyglots():
        for path in unseen.rglob(each.name):
            path.write_bytes(each.content)
    evaluate(made, real=real, test=unseen, out=tmp_path / "report", recipe=Recipe(**{**SMALL, "on_conflict": "drop"}), progress=Progress(quiet=True))
    assert (tmp_path / "report/report.html").is_file()
    clean(tmp_path / "report", caching.cache_folder())


@pytest.mark.slow
def test_a_run_and_its_shards_hold_pixels_alone(tmp_path: Path) -> None:
    real = folder(tmp_path / "real", 0, polyglot=True)
    settings = {"images": 400, "threads": 1, "device": "cpu", "size": "16"}
    datagen.fit(real, tmp_path / "run", **settings)
    datagen.synthesize(tmp_path / "run", tmp_path / "shards", per_class=4, min_confidence=0.0, workers=1)
    clean(tmp_path / "run", tmp_path / "shards", caching.cache_folder())


@pytest.mark.parametrize("each", [each for each in polyglots() if without_tail(each.content) != each.content], ids=lambda each: each.name)
def test_a_merge_takes_images_without_their_tails(each: Strange, tmp_path: Path) -> None:
    check_merge(each, tmp_path)


def check_merge(each: Strange, tmp_path: Path) -> None:
    """Assert that a real image with a tail has the same pixels and no tail in a merged folder."""
    real = tmp_path / "real"
    for i, name in enumerate(("circle", "square")):
        (real / name).mkdir(parents=True)
        (real / name / "good.png").write_bytes(png(noise(16, 16, i), 2))
    (real / "circle" / each.name).write_bytes(each.content)
    datagen.synthesize("rule:shapes", tmp_path / "shards", per_class=1, classes="circle,square", workers=1)
    merge(tmp_path / "shards", real, tmp_path / "both")
    merged = (tmp_path / "both/circle" / each.name).read_bytes()
    assert np.array_equal(decode(merged, max_pixels=10**6).pixels, decode(each.content, max_pixels=10**6).pixels)
    assert merged == without_tail(each.content) and (real / "circle" / each.name).read_bytes() == each.content
    clean(tmp_path / "both")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("seed", range(5))
def test_whole_images_have_no_tail(kind: str, seed: int) -> None:
    image = Image.fromarray(noise(9 + 7 * seed, 30 - seed, seed))
    for how in ({}, {"save_all": True, "append_images": [Image.fromarray(noise(9 + 7 * seed, 30 - seed, 9))]} if kind in ("PNG", "GIF", "WEBP") else {}):
        data = saved(image.quantize(32) if kind == "GIF" else image, kind, **how)
        assert without_tail(data) == data
        if kind not in ("BMP", "TIFF", "PPM"):
            assert without_tail(data + b"more") == data
            assert all(without_tail(data[:length]) == data[:length] for length in range(0, len(data), 37)), "what has no end stays as it is"


def test_nothing_of_the_corpus_that_is_whole_is_cut_into() -> None:
    for each in corpus():
        kept = without_tail(each.content)
        assert each.content.startswith(kept) and (len(kept) == len(each.content) or CANARY in each.content or each.pixels is None), each.name
