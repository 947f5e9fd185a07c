"""The report, run.html and scan.html in a browser, narrow and wide, light and dark: nothing overflows, breaks, runs or is fetched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import made_report
import made_run
import numpy as np
import pytest
from PIL import Image

import datagen
from datagen.evaluation.report import page

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.PROGRAM is None, reason="no chromium here")]
SCREENS = {"narrow": (375, 812), "wide": (1440, 900)}
ATTACKS = (
    "<script>marked=1</script>",
    '" onerror="marked=1',
    "<img src=x onerror=marked=1>",
    "</style><svg onload=marked=1>",
    "x" * 300,
    "\u202ebidi",
    "javascript:marked=1",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    context, report = made_report.whole()
    hostile = made_report.experiment_of(ATTACKS, each=30, focus=0)
    pages = {
        "own": page.render(report, context),
        "shared": page.render(report, context, share=True),
        "hostile": page.render(made_report.report_of(hostile, measures=made_report.measures()), hostile),
        "broken": page.render(report, context).replace("<main>", '<main><img src="data:image/png;base64,xx"><p style="width: 3000px">wide</p>', 1),
    }
    pages["perfect"] = page.render(perfect(report), context)
    pages["run"] = made_run.page(folder / "run", "finished")
    pages["live"] = made_run.page(folder / "run", "training").replace('content="15"', 'content="900"')
    pages["scan"] = scanned(folder)
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


def perfect(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report with the longest names and numbers of its arms."""
    longest = copy.deepcopy(report)
    longest["arms"]["synthetic"]["labels"] = "soft"
    for arm in longest["arms"].values():
        arm["accuracy"] = {"mean": 0.99996, "low": 0.99896, "high": 1.0}
    return longest


def scanned(folder: Path) -> str:
    """Return the page on a folder of two classes with names of every kind, an image twice, a white one and a damaged one."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(("<b>up", "x" * 200)):
        (folder / "images" / name).mkdir(parents=True)
        for k in range(12):
            pixels = rng.integers(100 * i, 100 * i + 80, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{k:03d}.png")
    Image.fromarray(pixels + np.uint8(1)).save(folder / "images" / name / "again.png")
    Image.new("RGB", (16, 16), "white").save(folder / "images" / name / "<img src=x onerror=marked=1>.png")
    (folder / "images" / name / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    datagen.describe(folder / "images", page=folder / "made.html")
    return (folder / "made.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("name", ["own", "shared", "hostile", "perfect", "run", "live", "scan"])
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_fits_and_is_quiet(chromium: browser.Browser, files: dict[str, Path], name: str, screen: str, dark: bool) -> None:
    width, height = SCREENS[screen]
    found = chromium.open(files[name], width, height, dark=dark)
    assert found["view"] == width and found["width"] <= width and not found["beyond"] and not found["covered"]
    assert found["broken"] == 0 and found["images"] >= (3 if name in {"run", "live", "scan"} else 10)
    assert found["errors"] == [] and found["fetched"] == [] and found["marked"] is None
    assert found["sentence"] < height and found["verdict"] < height
    paper, ink = (sum(map(int, found[key].removeprefix("rgb(").removesuffix(")").split(","))) for key in ("paper", "ink"))
    assert (paper < ink) is dark


def test_the_browser_sees_what_is_broken(chromium: browser.Browser, files: dict[str, Path]) -> None:
    found = chromium.open(files["broken"], 375, 812, dark=False)
    assert found["width"] > 2000 and found["broken"] == 1 and "P." in found["beyond"]
