"""The report: every key documented, one file without scripts that survives hostile names, small with a thousand classes, shareable without real pixels."""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_report
import numpy as np
import pytest
from made_report import experiment_of, labelled, report_of
from PIL import Image

from datagen.cli.evaluate import summary
from datagen.evaluation.arms import Labelled
from datagen.evaluation.experiment import Context
from datagen.evaluation.report import page, schema, shown, words
from datagen.pages import pictures
from datagen.records import Finding

ROOT = Path(__file__).parent.parent

HOSTILE = (
    "<script>alert(1)</script>",
    '" onerror="alert(1)',
    "</style><script>",
    "</title>",
    "-->",
    "{{ 7 * 7 }}",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "bidi\u202eabc",
    "byte\udcff",
    "new\nline",
    "=cmd|'/c calc'!A1",
    "x" * 300,
    "猫 \U0001f642",
)


class Page(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def whole() -> tuple[Context, dict[str, Any]]:
    return made_report.whole()


STARS = ("arms", "differences", "measures", "sets", "counts", "settings", "rates", "scores")


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every key; names of arms, classes, settings and candidates are stars, lists are left out."""
    if isinstance(value, list):
        for item in value:
            yield from paths(item, path)
    elif isinstance(value, dict):
        last = path.rpartition(".")[2]
        for key, item in value.items():
            name = "*" if last in STARS or path.endswith("scores.*") else key
            yield (here := f"{path}.{name}".lstrip("."))
            yield from paths(item, here)


def test_the_keys_of_the_reports_own_parts_are_documented(whole: tuple[Context, dict[str, Any]]) -> None:
    report = whole[1]
    own = {key: value for key, value in report.items() if key not in {"measures", "sets", "data"}}
    found = set(paths(own))
    known = set(schema.KEYS)
    missing = {path for path in found if path not in known and path.rpartition(".")[0] + ".*" not in known and not path.endswith(".*")}
    assert not missing
    wanted = {key for key in known if not key.startswith(("data", "measures", "sets", "measured.settings.", "measured.rates."))}
    assert not wanted - found
    data = {re.sub(r"\.(counts)\.\*$", r".\1", re.sub(r"^(real|test)\.", "*.", path)) for path in paths(report["data"])}
    data = {re.sub(r"^synthetic\.[^.]+", "synthetic.*", path) for path in data}
    assert not {f"data.{path}" for path in data} - known - {"data.synthetic.*", "data.*.held_out", "data.synthetic.*.sha256"}


def test_the_keys_of_every_measure_are_documented(whole: tuple[Context, dict[str, Any]]) -> None:
    every = schema.keys()
    documented = [key.split(".", 2)[1:] for key in every if key.count(".") > 1]
    for name, value in whole[1]["measures"].items():
        known = {rest.replace(".*", "") for pattern, rest in documented if fnmatch.fnmatchcase(name, pattern)}
        found = {path.replace(".*", "") for path in paths(value)}
        odd = {path for path in found if path not in known and not any(path.startswith(f"{key}.") for key in known)}
        assert len(known) > 4 and not odd, (name, odd)


def test_figures_are_fractions_and_agree(whole: tuple[Context, dict[str, Any]]) -> None:
    context, report = whole
    for arm, value in report["arms"].items():
        assert value["accuracy"]["mean"] == pytest.approx(context.correct(arm).mean(), abs=1e-6)
        assert value["accuracy"]["mean"] == pytest.approx(np.mean(value["repeats"]), abs=1e-6)
        assert value["accuracy"]["mean"] == pytest.approx(np.trace(value["confusion"]) / np.sum(value["confusion"]), abs=1e-6)
        for row in value["per_class"]:
            assert 0 <= row["low"] <= row["recall"] <= row["high"] <= 1
    difference = report["differences"]["both-classical"]
    accuracies = [report["arms"][arm]["accuracy"]["mean"] for arm in ("both", "classical")]
    assert difference["mean"] == pytest.approx(accuracies[0] - accuracies[1], abs=1e-5)


def test_everything_there_is_is_shown(whole: tuple[Context, dict[str, Any]]) -> None:
    context, report = whole
    seen = Page(page.render(report, context))
    for title in ("The sets beside each other", "How many real images they are worth", "More or fewer of them", "In focus: digit 0", "Class by class"):
        assert title in seen.words
    for title in ("Real beside synthetic", "What is taken for what", "A map of the images", "Named copies", "Other measures", "How it was measured"):
        assert title in seen.words
    assert all(" ".join(value["sentence"].split()) in seen.words for value in report["measures"].values())
    assert all(words.ARMS[arm] in seen.words for arm in report["arms"])
    assert "to beat" in seen.words and "4 evaluations of this folder scored on these unseen images" in seen.words
    assert seen.tags.count("circle") > 1000
    assert "a validation part of 60 of the real training images" in seen.words.lower()
    assert "the policy of the classical copies geometric (91.0 %; none gave 90.0 %)" in seen.words


def test_what_is_absent_is_left_out() -> None:
    context = experiment_of(("a", "b", "c"))
    seen = Page(page.render(report_of(dataclasses.replace(context, predict=None), measures=("downstream",)), dataclasses.replace(context, predict=None)))
    for title in ("The sets beside each other", "How many real images", "More or fewer", "In focus", "Copies of", "Other measures", "least sure"):
        assert title not in seen.words
    assert "Nothing was chosen on validation" in seen.words and "This is the first evaluation of this folder" in seen.words


def test_hostile_names_are_shown_and_do_nothing() -> None:
    context, plain = experiment_of(HOSTILE, focus=0), experiment_of(tuple("abcdefghijklmn"), focus=0)
    extra = (Finding("mine", 1.0, 0.5, 1.5, "Mine says <b>one</b>.", {"k": 1}),)
    names = {"folder": "<img src=x onerror=alert(1)>", "images": 9, "counts": {"a": 9}, "held_out": False}
    html = page.render(report_of(context, extra, test=names), context)
    html.encode("utf-8")
    seen, other = Page(html), Page(page.render(report_of(plain, extra), plain))
    assert "script" not in seen.tags
    assert set(seen.tags) == set(other.tags)
    assert {(tag, name) for tag, name, _ in seen.attributes} == {(tag, name) for tag, name, _ in other.attributes}
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    said = "".join(seen.text)
    for name in ("<script>alert(1)</script>", '" onerror="alert(1)', "{{ 7 * 7 }}", "&lt;b&gt;", r"bidi\u202eabc", r"new\nline", "猫 \U0001f642"):
        assert name in said
    assert "\u202e" not in html and "Mine says <b>one</b>." in said and names["folder"] in said


def test_the_page_is_one_file(whole: tuple[Context, dict[str, Any]]) -> None:
    html = page.render(whole[1], whole[0])
    seen = Page(html)
    assert html.startswith("<!doctype html>")
    policy = next(value for tag, name, value in seen.attributes if tag == "meta" and name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy and "script" not in policy
    sources = [value for _, name, value in seen.attributes if name in {"src", "href", "action", "srcset", "data", "poster"}]
    assert sources and all(value.startswith("data:image/png;base64,") for value in sources)
    assert "url(" not in html and "@import" not in html
    assert all(value.strip() for tag, name, value in seen.attributes if tag == "img" and name == "alt")
    assert "prefers-color-scheme: dark" in html and "@media print" in html and "image-rendering: pixelated" in html
    assert not [name for name in whole[0].real.names if name and f">{name}<" in html]


VERDICTS = [((0.5, 0.5, 0.9), "helps", "They help"), ((0.9, 0.7, 0.5), "harms", "They harm"), ((0.9,) * 3, "none_seen", "No difference seen")]


@pytest.mark.parametrize(("skills", "kind", "title"), VERDICTS)
def test_the_verdict_is_on_top(skills: tuple[float, ...], kind: str, title: str) -> None:
    context = experiment_of(("a", "b", "c"), each=60, skills=dict(zip(("real", "synthetic", "both"), skills, strict=True)))
    report = report_of(context)
    assert report["verdict"]["kind"] == kind
    said = Page(page.render(report, context)).words
    assert said.index(title) < said.index(report["verdict"]["sentence"]) < said.index("was not measured") < said.index("Accuracy on unseen real images")
    assert report["next"] and all(step in said.replace(" )", ")").replace("( ", "(") for step in report["next"] if "--" not in step)
    assert (said.index(report["next"][0][:40]) < said.index("Class by class")) is (kind != "helps")


def test_a_caution_stands_beside_the_verdict() -> None:
    context = experiment_of(("a", "b", "c"))
    report = report_of(context) | {"caution": "The recogniser <was> still learning."}
    said = Page(page.render(report, context)).words
    assert said.index(report["verdict"]["sentence"]) < said.index(report["caution"]) < said.index("Accuracy on unseen real images")
    in_lines = summary(report | {"report": "report.html"}).splitlines()
    assert in_lines.index(report["caution"]) == in_lines.index(report["verdict"]["sentence"]) + 1


def test_a_set_without_all_classes_has_no_arm_of_its_own() -> None:
    context = experiment_of(("a", "b", "c"), skills={"real": 0.8, "both": 0.9})
    report = report_of(context)
    seen = Page(page.render(report, context))
    assert "synthetic" not in report["arms"] and "each image counting alike, since they lack classes" in seen.words
    assert "They help" in seen.words or "No difference" in seen.words


def test_many_classes_stay_small_and_say_which_are_shown() -> None:
    names = tuple(f"class {i:04d}" for i in range(1000))
    context = experiment_of(names, each=3, repeats=1)
    report = report_of(context)
    assert report["arms"]["real"]["confusion"] is None and len(report["arms"]["real"]["per_class"]) == 1000
    html = page.render(report, context)
    assert len(html) < 2_000_000
    said = Page(html).words
    assert "Of 1,000 classes the 12 that gain most and the 12 that lose most are shown" in said
    picked = page.chosen(report)
    gains = [report["differences"]["both-real"]["per_class"][label]["mean"] for label in picked]
    assert len(gains) == 24 and gains == sorted(gains, reverse=True)
    assert gains[0] == max(row["mean"] for row in report["differences"]["both-real"]["per_class"])
    assert "10 of 1,000 classes" in page.markdown(report)


def test_large_noisy_images_of_many_classes_stay_below_twenty_megabytes() -> None:
    names = tuple(f"class {i:02d}" for i in range(30))
    parts = {part: labelled(30, 12, seed, (128, 128, 3)) for seed, part in enumerate(("real", "synthetic", "test"))}
    context = experiment_of(names, repeats=1, parts=parts)
    assert 1_000_000 < len(page.render(report_of(context), context)) < 20_000_000


def test_large_images_are_shown_reduced() -> None:
    image = np.zeros((300, 200, 3), np.uint8)
    image[:, 100:] = 200
    small = pictures.thumbnail(image)
    assert small.shape == (75, 50, 3)
    assert (small[:, :25] == 0).all() and (small[:, 25:] == 200).all()
    assert pictures.thumbnail(image[:96, :96]).shape == (96, 96, 3)
    assert pictures.thumbnail(image[:2]).shape == (1, 66, 3)


def test_classes_without_test_images_have_no_recall() -> None:
    context = experiment_of(("a", "b", "c"))
    few = context.test.taken(np.arange(20))
    arms = tuple(dataclasses.replace(r, predicted=r.predicted[:20], correct=r.correct[:20]) for r in context.arms)
    context = dataclasses.replace(context, test=few, arms=arms)
    report = report_of(context)
    assert report["arms"]["both"]["per_class"][2] == {"class": "c", "images": 0, "recall": None, "low": None, "high": None}
    assert "– to –" in page.render(report, context)
    assert "| c |" not in page.markdown(report)


def pixels(html: str) -> set[bytes]:
    """Return the pixels of every picture of a page, cut from sheets with their gaps, as grey images of 16 x 16."""
    found = set()
    for source in re.findall(r'src="(data:image/png[^"]+)"', html):
        image = decoded(source)
        plane = image if image.ndim == 2 else image[..., 0]
        found |= {plane[y : y + 16, x : x + 16].tobytes() for y in range(0, plane.shape[0] - 15, 17) for x in range(0, plane.shape[1] - 15, 17)}
    return found


def test_a_shared_page_has_no_real_pixel(whole: tuple[Context, dict[str, Any]]) -> None:
    context, report = whole
    real = {image.tobytes() for part in (context.real, context.test) for image in part.images}
    named = {context.synthetic.images[pair["synthetic"]["row"]].tobytes() for pair in report["measures"]["copies"]["copies"]}
    own, shared = page.render(report, context), page.render(report, context, share=True)
    assert pixels(own) & real and pixels(own) & named
    made = {image.tobytes() for image in context.synthetic.images}
    assert len(pixels(shared) & made) > 50
    assert not pixels(shared) & real and not pixels(shared) & named
    assert "not one real image is shown" in Page(shared).words and "not one real image is shown" not in Page(own).words
    assert "A map of the images" not in Page(shared).words


def test_what_may_be_shared() -> None:
    context = experiment_of(("a", "b"), each=30)
    images = context.synthetic.images.copy()
    images[4], images[5] = context.real.images[2], context.test.images[3][:, ::-1]
    context = dataclasses.replace(context, synthetic=Labelled(images, context.synthetic.labels))
    copies = {"checked": 60, "named": 1, "copies": [{"synthetic": {"row": 7}}]}
    assert np.flatnonzero(~shown.shareable({"measures": {"copies": copies}}, context)).tolist() == [4, 5, 7]
    assert not shown.shareable({"measures": {"copies": copies | {"named": 2}}}, context).any()
    assert not shown.shareable({"measures": {}}, context).any()
    few = shown.shareable({"measures": {"copies": {"checked": 20, "named": 0, "copies": []}}}, context)
    assert set(np.flatnonzero(few)) == set(context.rows("synthetic", 20)) - {4, 5}


def test_a_shared_page_without_a_check_for_copies_shows_no_image() -> None:
    context = experiment_of(("a", "b"))
    html = page.render(report_of(context, measures=("downstream",)), context, share=True)
    assert "<img" not in html and "here these are all" in Page(html).words


def test_best_and_worst_are_by_the_confidence_in_the_own_class() -> None:
    context = experiment_of(("a", "b"), each=30)
    found = context.probabilities("synthetic", 10_000)
    assert found is not None
    order = np.argsort(-found[30:, 1], kind="stable") + 30
    sheets = shown.prepare({"measures": {}}, context, 2, share=False).extremes(1)
    assert sheets["most"]["high"] == pytest.approx(found[order[0], 1]) and sheets["least"]["low"] == pytest.approx(found[order[-1], 1])
    first = decoded(sheets["most"]["source"])[:8, :8, 0]
    assert np.array_equal(first, context.synthetic.images[order[0], ..., 0])


def decoded(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_hold_the_pixels(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, channels), dtype=np.uint8)
    assert np.array_equal(decoded(pictures.png(images[0])).reshape(6, 7, channels), images[0])
    source, width, height = pictures.sheet(list(images), 3)
    sheet = decoded(source)
    assert sheet.shape == (height, width, 4) == (13, 23, 4)
    assert np.array_equal(sheet[7:13, 8:15, :3], np.broadcast_to(images[4], (6, 7, 3)))
    assert (sheet[:, 7, 3] == 0).all() and (sheet[7:, 16:, 3] == 0).all()
