"""run.html and how each class does: what a person sees of a fit while it trains and after."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import made_run
import numpy as np
import pytest

import datagen
from datagen import errors
from datagen.pages import traces
from datagen.recogniser.fit import Settings, fit
from datagen.training import health, story
from datagen.training.selection import Part

Maker = Callable[..., Path]
TINY = {"images": 640, "width": 4, "latent": 4, "batch": 16, "threads": 1, "deterministic": True}


def test_the_page_shows_samples_losses_and_reasons(make_folder: Maker, tmp_path: Path) -> None:
    datagen.fit(make_folder(each=60, classes=["<script>marked=1<", "b"]), tmp_path / "run", family="vae", prior="flow", **TINY)
    page = (tmp_path / "run" / "run.html").read_text(encoding="utf-8")
    for text in ("The generator is ready", "Losses: eyes", "Losses: autoencoder", "Losses: flow", "How each class does", "flow matching"):
        assert text in page
    assert page.count("data:image/png;base64,") >= 1 and 'http-equiv="refresh"' not in page
    assert "<script" not in page and "&lt;script&gt;" in page


def test_the_page_says_what_was_chosen_and_marks_it(tmp_path: Path) -> None:
    page = made_run.page(tmp_path, "finished")
    assert "81.2 %" in page and "97.5 %" in page and "160 unseen select images" in page
    rows = re.findall(r'<tr class="(.*?)"><td>(.*?)</td><td>(.*?)</td>', page)
    assert rows == [("", "1.0", "0.0"), ("asked", "1.3", "0.6")]
    assert "−ELBO" in page and "90 of 100" not in page and page.count("<figure>") == 4


def test_a_stopped_fit_leaves_a_page_that_says_so(make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datagen.training import loop

    def stop(job: loop.Job) -> None:
        loop.build(job, 0)
        job.watch.grid(job.family, job.sampled(), 16, job.device)
        assert 'http-equiv="refresh"' in (tmp_path / "run" / "run.html").read_text(encoding="utf-8")
        raise errors.Stopped("stopped")

    monkeypatch.setattr(loop, "train", stop)
    with pytest.raises(errors.Stopped):
        datagen.fit(make_folder(each=30), tmp_path / "run", family="cvae", **TINY)
    told = (tmp_path / "run" / "run.html").read_text(encoding="utf-8")
    assert "Stopped before the end" in told and "same command continues" in told and 'http-equiv="refresh"' not in told


def test_a_curve_keeps_its_ends_and_leaves_out_what_is_no_number() -> None:
    points = [(float(i), float(i % 7)) for i in range(5000)] + [(5000.0, float("nan"))]
    thin = traces.thinned(points)
    assert len(thin) <= traces.POINTS and np.isclose(np.mean([y for _, y in thin]), 3, atol=0.05)
    assert "nan" not in traces.trace(points, "x", "real") and traces.trace([], "x", "real") == traces.trace([(0, float("inf"))], "x", "real")
    assert [traces.named(value) for value in (0.12345, -1500, 2e6)] == ["0.123", "−1.5k", "2M"]


def levels(label: int, count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-40, 40, (count, 16, 16, 1))
    return np.clip(60 + 60 * label + noise, 0, 255).astype(np.uint8)


def test_classes_that_ignore_their_label_or_collapse_are_named_and_others_are_not() -> None:
    names = ["fine", "ignoring", "collapsed"]
    train = Part(np.concatenate([levels(k, 60, k) for k in range(3)]), np.repeat(np.arange(3), 60))
    filter = fit(train.images, train.labels, classes=3, settings=Settings(steps=60, batch=32, width=16, augment="none"), seed=1)

    def draw(labels: np.ndarray, places: np.ndarray, spread: float) -> np.ndarray:
        drawn = {0: lambda place: levels(0, 1, 100 + place), 1: lambda place: levels(0, 1, 200 + place), 2: lambda place: levels(2, 1, 300)}
        return np.concatenate([drawn[int(label)](int(place)) for label, place in zip(labels, places, strict=True)])

    found = health.look(filter, train, draw, classes=3, spread=1.0)
    assert found[0].heeded > 0.9 and found[1].heeded < 0.1 and found[2].diversity == 0 and found[0].diversity > 0.7
    said = health.warnings(found, names)
    assert len(said) == 2 and "'ignoring'" in said[0] and "'collapsed'" in said[1] and not any("'fine'" in line for line in said)
    assert "--budget" in said[0] and "--family" in said[1]
    assert health.warnings(found[:1], names) == []


def test_a_filter_that_learnt_nothing_judges_no_class() -> None:
    found = [health.Health(label, known, heeded=0.0, diversity=60.0) for label, known in enumerate([0.9, 0.1, 0.2])]
    (said,) = health.warnings(found, ["a", "b", "c"])
    assert "names only 40 % of its own training images right" in said and "--budget" in said
    assert not health.learnt([0.9, 0.1, 0.2], 3) and health.learnt([0.9, 0.6, 0.7], 3) and health.learnt([1.0], 1)
    line = {"scores": [], "real": None, "select": 9, "steps": 5, "classes": [dataclasses.asdict(each) for each in found]}
    assert (story._choice(line, ["a", "b", "c"]) or {})["learnt"] is False


def test_what_was_tried_is_kept_with_the_progress(make_folder: Maker, tmp_path: Path) -> None:
    datagen.fit(make_folder(each=30), tmp_path / "run", **TINY)
    lines = [json.loads(line) for line in (tmp_path / "run" / "progress.jsonl").read_text().splitlines()]
    assert lines[-1]["stage"] == "selection" and {each["label"] for each in lines[-1]["classes"]} == {0, 1, 2}
