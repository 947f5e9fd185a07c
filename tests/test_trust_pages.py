"""P6: names of classes, files and folders do nothing in any page, table or terminal: no element, no attribute, no script, no formula."""

from __future__ import annotations

import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_run
import numpy as np
import pytest
from made_report import experiment_of, report_of
from rich.console import Console

from datagen.cli.show import columns
from datagen.cli.show import rows as shown_rows
from datagen.errors import DatagenError, InputError
from datagen.evaluation import odd
from datagen.evaluation.report import page, text
from datagen.progress import Progress
from datagen.records import Dataset, Finding
from datagen.synthesis.card import dataset_card
from datagen.synthesis.croissant import croissant

PAYLOADS = (
    *("<script>alert(1)</script>", "</script><script>alert(1)//", '" onerror="alert(1)', "' onload='alert(1)", "x onfocus=alert(1) autofocus"),
    *("<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "</style><script>alert(1)</script>", "</title><script>alert(1)</script>", "--><script>"),
    *(
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "<iframe src=//evil.example>",
        "<base href=//evil.example>",
        "<meta http-equiv=refresh>",
    ),
    *(
        "<form action=//evil.example><input>",
        "{{ 7 * 7 }}",
        "{% for x in range(9) %}x{% endfor %}",
        "${7*7}",
        "&lt;script&gt;",
        "\u202etxt.exe",
        "\u2066a\u2069",
    ),
    *(
        "a\x00b",
        "esc\x1b[31m\x1b]0;title\x07",
        "new\nline\r\rend",
        "=cmd|'/c calc'!A1",
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "|pipe|",
        "[link](javascript:alert(1))",
    ),
    *("`code`", "# head", "\ud800half", "<!--", "]]>", "\u2028line", "x" * 5000, "猫\U0001f642"),
)
SMALL = 14
"""names in one set, so that every one is shown"""


class Seen(HTMLParser):
    """The elements, attributes and text of a page as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.comments: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def harmless(html: str, plain: str) -> None:
    """Assert that a page has the same elements and kinds of attributes as one with plain names, and a policy that allows no script."""
    html.encode("utf-8")
    seen, other = Seen(html), Seen(plain)
    assert seen.tags <= other.tags and not seen.tags & {"script", "iframe", "object", "embed", "base", "form", "input", "link", "a"}
    kinds = {(tag, name) for tag, name, _ in seen.attributes}
    assert kinds <= {(tag, name) for tag, name, _ in other.attributes}
    assert not [name for _, name in kinds if name.startswith("on")] and not seen.comments
    policies = [value for tag, name, value in seen.attributes if tag == "meta" and name == "content" and "default-src" in value]
    assert len(policies) == 1
    rules = {rule.split()[0]: rule.split()[1:] for rule in policies[0].split(";")}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"] and rules["img-src"] == ["data:"]
    assert not [name for name in rules if name.startswith(("script", "object", "frame", "connect", "worker"))]
    sources = [value for _, name, value in seen.attributes if name in {"src", "href", "action", "srcset", "data", "poster", "xlink:href"}]
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]", html)


def named(payloads: tuple[str, ...]) -> tuple[str, ...]:
    """Return class names, a few at least."""
    return tuple(sorted({*payloads, "a", "b"}))


GROUPS = [PAYLOADS[i : i + SMALL] for i in range(0, len(PAYLOADS), SMALL)]


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("payloads", GROUPS, ids=lambda group: f"{PAYLOADS.index(group[0])}")
def test_nothing_runs_in_a_report(payloads: tuple[str, ...], share: bool) -> None:
    names, html = named(payloads), []
    for classes, hostile in ((names, True), (tuple(f"class {i:02d}" for i in range(len(names))), False)):
        context = experiment_of(classes, focus=0)
        more = tuple(Finding("mine", 1.0, 0.5, 1.5, name, {"k": 1}) for name in (payloads[:1] if hostile else ("plain",)))
        given = {"folder": payloads[-1] if hostile else "photos", "images": 9, "counts": {classes[0]: 9}, "held_out": False}
        html.append(page.render(report_of(context, more, test=given), context, share=share))
        if hostile:
            report = report_of(context, more, test=given)
    harmless(*html)
    text_of(report, names)


def text_of(report: dict[str, Any], names: tuple[str, ...]) -> None:
    """Assert the same of report.md and report.json."""
    said = text.markdown(report)
    assert "<" not in said and not re.search(r"(?<!\\)\]\(", said)
    said.encode("utf-8")
    for line in said.splitlines():
        cells = re.split(r"(?<!\\)\|", line)[1:-1] if line.startswith("| ") else []
        assert all(not cell.strip().startswith(("=", "@", "\t")) for cell in cells)
        assert not cells or not re.match(r"[=+\-@]", cells[0].strip()) or set(cells[0].strip()) == {"-"}
    heads = [line for line in said.splitlines() if line.startswith("#")]
    assert all(re.match(r"#{1,2} [A-Z]", line) for line in heads)
    document = json.dumps(report)
    assert document.isascii() and json.loads(document)["classes"] == list(names)


@pytest.mark.parametrize("state", [pytest.param("training", marks=pytest.mark.slow), "finished"])
@pytest.mark.parametrize("payloads", [PAYLOADS[i : i + 2] for i in range(0, len(PAYLOADS), 2)], ids=lambda pair: f"{PAYLOADS.index(pair[0])}")
def test_nothing_runs_in_the_page_of_a_fit(payloads: tuple[str, ...], state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_run, "NAMES", ["a", "b"])
    plain = made_run.page(tmp_path / "plain", state)
    monkeypatch.setattr(made_run, "NAMES", list(payloads))
    harmless(made_run.page(tmp_path / "hostile", state), plain)


def found(names: tuple[str, ...]) -> dict[str, Any]:
    """Return what `odd.find` may have found, with some names in the place of classes and files."""
    each = [{"file": name, "row": 0, "label": name, "seems": name, "own": 0.1, "other": 0.9} for name in names]
    pairs = [{"file": name, "row": 0, "other": name, "other_row": 1, "levels": 1.0, "same_class": False} for name in names]
    sizes = [{"file": name, "row": 0, "width": 9, "height": 9, "orientation": "as stored"} for name in names]
    brightness = [{"file": name, "row": 0, "level": 9.0, "label": name} for name in names]
    return {"labels": each, "pairs": pairs, "sizes": sizes, "brightness": brightness, "modes": [f"1 image is {name}" for name in names]}


@pytest.mark.parametrize("payloads", GROUPS, ids=lambda group: f"{PAYLOADS.index(group[0])}")
def test_nothing_runs_in_the_page_of_a_scan(payloads: tuple[str, ...], tmp_path: Path) -> None:
    pages = []
    for title, names in (("hostile", named(payloads)), ("plain", tuple(f"n{i}" for i in range(len(payloads) + 2)))):
        labels, count = np.arange(len(names)), len(names)
        problems = tuple({"file": name, "problem": name, "remedy": name} for name in names)
        digests, sizes, test = np.zeros((count, 16), np.uint8), np.full((count, 2), 9, np.int32), np.zeros(count, bool)
        data = Dataset("root", names, labels, names, None, digests, sizes, False, test, "00", ("", ""), problems, names)
        images = np.zeros((2, 9, 9, 3), np.uint8)
        pages.append(odd.write(tmp_path / f"{title}.html", data, found(names), images, list(names)).read_text(encoding="utf-8"))
    harmless(*pages)


@pytest.mark.parametrize("name", PAYLOADS)
def test_nothing_reaches_a_terminal(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors, progress (a live bar and plain lines), warnings and tables hold no control character and nothing that turns text around."""
    progress = Progress()
    progress.say(name)
    progress.warn(name)
    with progress.stage(name, 3):
        progress.advance(1, name)
    live, console = Progress(), Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr("rich.console.Console", lambda **given: console)
    live.live = True
    with live.stage("stage", 3):
        live.advance(1, name)
        live.say(name)
    print(columns([[name, name]]), shown_rows({"key": name, "more": {name: name}, "list": [name]}), DatagenError(name, where=name, hint=name).line())
    print(InputError(name).line(), file=sys.stderr)
    out, err = capsys.readouterr()
    bar = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    parts = [part for part in re.split(r"[\n\r\t]", name) if part]
    for said in (out, err, bar):
        assert not re.search("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069\u2028]", said.replace("\r", ""))
        said.encode("utf-8")
    assert all("\n" not in line for line in DatagenError(name).line().split("\0")) and parts


@pytest.mark.parametrize("name", PAYLOADS)
def test_cards_of_sets_are_what_they_say(name: str) -> None:
    """The YAML head of a dataset card and croissant.json give the name back, as loaders know it, and nothing else."""
    import yaml

    from datagen.formats.names import loader_names

    plan = {"classes": sorted({name, "b"}), "format": "parquet", "suffix": "png", "shape": [3, 8, 8], "source": "rule", "production": "0" * 64, "seed": 0}
    plan |= {"license": name, "origin": name, "near_copies": name}
    said = dataset_card(plan, []).decode("utf-8")
    head, body = said.split("\n---\n", 1)
    value = yaml.safe_load(head.removeprefix("---\n"))
    names = value["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
    assert tuple(names[key] for key in sorted(names, key=int)) == loader_names(plan["classes"])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", said)
    assert "<" not in body and not re.search(r"(?<!\\)\]\(", body)
    document = json.loads(croissant(plan, []))
    assert [row["labels/name"] for row in document["recordSet"][0]["data"]] == list(loader_names(plan["classes"]))
