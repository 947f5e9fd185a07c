"""The report: every key documented, one file without scripts that survives hostile names, and small with a thousand classes."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datagen import storage
from datagen.evaluation import experiment
from datagen.evaluation.arms import ARMS, Labelled
from datagen.evaluation.experiment import Context
from datagen.evaluation.inputs import Inputs
from datagen.evaluation.plan import Plan
from datagen.evaluation.report import charts, page, pictures, schema, words
from datagen.recogniser.fit import Settings
from datagen.records import ArmResult, Finding

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


def labelled(classes: int, each: int, seed: int, size: tuple[int, int, int] = (8, 8, 1)) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    names = tuple(f"c{label}/{i}.png" for i, label in enumerate(labels))
    return Labelled(rng.integers(0, 256, (len(labels), *size), dtype=np.uint8), labels, names)


def experiment_of(classes: tuple[str, ...], *, each: int = 10, repeats: int = 3, skills: tuple[float, ...] = (0.9, 0.7, 0.92)) -> Context:
    """Return a made experiment whose arms are right as often as `skills` says."""
    real, synthetic, test = (labelled(len(classes), each, seed) for seed in range(3))
    rng, results = np.random.default_rng(5), []
    for arm, skill in zip(ARMS, skills, strict=True):
        for repeat in range(repeats):
            predicted = np.where(rng.random(len(test)) < skill, test.labels, (test.labels + 1) % len(classes))
            results.append(ArmResult(arm, repeat, predicted, predicted == test.labels, steps=10, images=100, seconds=1.5))
    return Context(classes, real, synthetic, test, tuple(results), {"recogniser": lambda images: images.reshape(len(images), -1)[:, :12].astype(np.float32)})


def report_of(context: Context, more: tuple[Finding, ...] = (), **described: Any) -> dict[str, Any]:
    counts = dict.fromkeys(context.classes, 10)
    part = {"folder": "data", "images": 100, "counts": counts}
    data = {
        "real": part,
        "test": part | {"held_out": False},
        "synthetic": part | {"production": "ab" * 32, "format": "parquet", "seed": 0, "source": "synthetic"},
    }
    found = Inputs(context.real, context.synthetic, context.test, context.classes, data | {"fingerprint": "cd" * 32, "resize": "crop", "run": None} | described)
    planned = Plan(Settings(), 3, 1, 1000.0, {"fp32 contiguous 1 thread": 1000.0})
    findings = [*experiment.measure(context, ("downstream", "distance", "neighbours")), *more]
    value = schema.build(context, findings, found, planned, hashes=dict.fromkeys(("real", "synthetic", "test"), "ef" * 32), seconds=12.3)
    return dict(json.loads(storage.to_json(value)))


STARS = ("arms", "differences", "distances", "counts", "settings", "rates")


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every key; names of arms, distances, classes and settings are stars, lists are left out."""
    if isinstance(value, list):
        for item in value:
            yield from paths(item, path)
    elif isinstance(value, dict):
        last = path.rpartition(".")[2]
        for key, item in value.items():
            name = "*" if last in STARS else key
            yield (here := f"{path}.{name}".lstrip("."))
            yield from paths(item, here)


def documented(path: str) -> bool:
    alternatives = {path, path.removesuffix(".*"), re.sub(r"^data\.(real|test|synthetic)\.", "data.*.", path)}
    alternatives.add(re.sub(r"\.(synthetic|real)\.(row|name|class)$", r".*.\2", path))
    alternatives |= {re.sub(r"\.counts\.\*$", ".counts", each) for each in set(alternatives)}
    alternatives.add(re.sub(r"^(neighbours\.(?:equal|pairs))\.(synthetic|real)$", r"\1.*.row", path))
    return bool(alternatives & set(schema.KEYS))


def test_every_key_is_documented_and_every_documented_key_exists() -> None:
    context = experiment_of(("a", "b", "c"))
    twins = context.synthetic.images.copy()
    twins[4] = context.real.images[2]
    context = Context(context.classes, context.real, Labelled(twins, context.synthetic.labels), context.test, context.arms, context.encoders)
    found = set(paths(report_of(context)))
    assert not [path for path in found if not documented(path)]
    wanted = {key for key in schema.KEYS if not key.startswith("findings.details.")}
    seen = found | {re.sub(r"^data\.(real|test|synthetic)\.", "data.*.", path) for path in found}
    seen |= {re.sub(r"\.(synthetic|real)\.(row|name|class)$", r".*.\2", path) for path in found}
    assert not wanted - seen
    assert all(f"`{key}`" in schema.documentation() for key in found if key in schema.KEYS)


def test_figures_are_fractions_and_agree() -> None:
    context = experiment_of(("a", "b", "c"))
    report = report_of(context)
    for arm, value in report["arms"].items():
        assert value["accuracy"]["mean"] == pytest.approx(context.correct(arm).mean(), abs=1e-6)
        assert value["accuracy"]["mean"] == pytest.approx(np.mean(value["repeats"]), abs=1e-6)
        assert value["accuracy"]["mean"] == pytest.approx(np.trace(value["confusion"]) / np.sum(value["confusion"]), abs=1e-6)
        for row in value["per_class"]:
            assert 0 <= row["low"] <= row["recall"] <= row["high"] <= 1
    difference = report["differences"]["both-real"]
    assert difference["mean"] == pytest.approx(report["arms"]["both"]["accuracy"]["mean"] - report["arms"]["real"]["accuracy"]["mean"], abs=1e-5)
    assert report["arms"]["real"]["confused"][0]["share"] > 0


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


def test_hostile_names_are_shown_and_do_nothing() -> None:
    context = experiment_of(HOSTILE)
    report = report_of(context)
    html = page.render(report, context)
    html.encode("utf-8")
    seen = Page(html)
    plain = Page(page.render(report_of(other := experiment_of(tuple("abcdefghijklmn"))), other))
    assert "script" not in seen.tags
    assert set(seen.tags) == set(plain.tags)
    assert {(tag, name) for tag, name, _ in seen.attributes} == {(tag, name) for tag, name, _ in plain.attributes}
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    text = "".join(seen.text)
    for name in ("<script>alert(1)</script>", '" onerror="alert(1)', "{{ 7 * 7 }}", "&lt;b&gt;", r"bidi\u202eabc", r"new\nline", "猫 \U0001f642"):
        assert name in text
    assert "\u202e" not in html


def test_the_page_is_one_file() -> None:
    context = experiment_of(("a", "b"))
    html = page.render(report_of(context), context)
    seen = Page(html)
    assert html.startswith("<!doctype html>")
    policy = next(value for tag, name, value in seen.attributes if tag == "meta" and name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy and "script" not in policy
    sources = [value for _, name, value in seen.attributes if name in {"src", "href", "action", "srcset", "data", "poster"}]
    assert sources and all(value.startswith("data:image/png;base64,") for value in sources)
    assert "url(" not in html and "@import" not in html
    assert all(value.strip() for tag, name, value in seen.attributes if tag == "img" and name == "alt")
    assert "prefers-color-scheme: dark" in html and "@media print" in html and "image-rendering: pixelated" in html


VERDICTS = [((0.5, 0.5, 0.9), "helps", "They help"), ((0.9, 0.7, 0.5), "harms", "They harm"), ((0.9,) * 3, "none_seen", "No difference seen")]


@pytest.mark.parametrize(("skills", "kind", "title"), VERDICTS)
def test_the_verdict_is_on_top(skills: tuple[float, ...], kind: str, title: str) -> None:
    context = experiment_of(("a", "b", "c"), each=60, skills=skills)
    report = report_of(context)
    assert report["verdict"]["kind"] == kind
    text = " ".join(" ".join(Page(page.render(report, context)).text).split())
    assert text.index(title) < text.index(report["verdict"]["sentence"]) < text.index("Accuracy on unseen real images")
    assert report["next"] and all(step in text for step in report["next"])


def test_many_classes_stay_small_and_say_which_are_shown() -> None:
    names = tuple(f"class {i:04d}" for i in range(1000))
    context = experiment_of(names, each=3, repeats=1)
    report = report_of(context)
    assert report["arms"]["real"]["confusion"] is None and len(report["arms"]["real"]["per_class"]) == 1000
    html = page.render(report, context)
    assert len(html) < 2_000_000
    assert len(storage.to_json(report)) < 4_000_000
    text = " ".join(" ".join(Page(html).text).split())
    assert "Of 1,000 classes the 12 that gain most and the 12 that lose most are shown" in text
    gains = [page._gain(report, label) for label in page.chosen(report)]
    assert len(gains) == 24 and gains == sorted(gains, reverse=True)
    assert gains[0] == max(page._gain(report, label) for label in range(1000))


def test_large_images_are_shown_reduced() -> None:
    image = np.zeros((300, 200, 3), np.uint8)
    image[:, 100:] = 200
    small = page.thumbnail(image)
    assert small.shape == (75, 50, 3)
    assert (small[:, :25] == 0).all() and (small[:, 25:] == 200).all()
    assert page.thumbnail(image[:96, :96]).shape == (96, 96, 3)


def test_findings_of_other_measures_are_shown() -> None:
    context = experiment_of(("a", "b"))
    extra = Finding("mine", 1.0, 0.5, 1.5, "Mine says <b>one</b>.", {"k": 1})
    report = report_of(context, (extra,))
    assert report["findings"][-1]["details"] == {"k": 1}
    assert "Mine says <b>one</b>." in "".join(Page(page.render(report, context)).text)


def test_classes_without_test_images_have_no_recall() -> None:
    context = experiment_of(("a", "b", "c"))
    few = Labelled(context.test.images[:20], context.test.labels[:20])
    results = tuple(ArmResult(r.arm, r.repeat, r.predicted[:20], r.correct[:20], r.steps, r.images, r.seconds) for r in context.arms)
    context = Context(context.classes, context.real, context.synthetic, few, results, context.encoders)
    report = report_of(context)
    assert report["arms"]["both"]["per_class"][2] == {"class": "c", "images": 0, "recall": None, "low": None, "high": None}
    assert "–" in page.render(report, context)


def decoded(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_hold_the_pixels(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, channels), dtype=np.uint8)
    assert np.array_equal(decoded(pictures.png(images[0])).reshape(6, 7, channels), images[0])
    source, width, height = pictures.sheet(list(images), 3)
    whole = decoded(source)
    assert whole.shape == (height, width, 4) == (13, 23, 4)
    assert np.array_equal(whole[7:13, 8:15, :3], np.broadcast_to(images[4], (6, 7, 3)))
    assert (whole[:, 7, 3] == 0).all() and (whole[7:, 16:, 3] == 0).all()


@pytest.mark.parametrize(("low", "high"), [(0.985, 0.991), (0.0, 1.0), (0.5, 0.5), (0.001, 0.002), (1.0, 1.0)])
def test_axes_hold_what_they_show(low: float, high: float) -> None:
    axis = charts.Axis(low, high)
    assert axis.low <= low <= high <= axis.high
    assert 0 <= axis.low < axis.high <= 1
    assert 2 <= len(axis.ticks()) <= 9
    assert all(0.9 <= axis.place(value) <= 99.1 for value in (low, high, *axis.ticks()))


def test_advice_follows_the_figures() -> None:
    far = report_of(experiment_of(("a", "b", "c"), each=60, skills=(0.9, 0.5, 0.9)))
    assert "The generator is the limit" in far["next"][0]
    assert "lose most" in far["next"][1]
    near = report_of(experiment_of(("a", "b", "c"), each=60, skills=(0.995, 0.99, 0.995)))
    assert any("little to gain" in step for step in near["next"])
    slow = far | {"measured": far["measured"] | {"limited": True}}
    assert any("machine is slow" in step for step in words.next_steps(slow))
    copied = far | {"neighbours": far["neighbours"] | {"share": {"mean": 0.3, "low": 0.2, "high": 0.4}}}
    assert any("repeats what it saw" in step for step in words.next_steps(copied))


def test_who_saw_the_unseen_images_is_said() -> None:
    context = experiment_of(("a", "b"))
    own = report_of(context)["measured"]["saw"][-1]
    test = {"folder": "data", "images": 100, "counts": {"a": 10, "b": 10}, "held_out": True}
    held = report_of(context, test=test)["measured"]["saw"][-1]
    run = report_of(context, test=test, run="run")["measured"]["saw"][-1]
    assert "cannot know" in own and "held out here" in held and "was not fitted to them" in run
