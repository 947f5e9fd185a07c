"""`datagen describe`: what a run, a folder of shards or a labelled folder holds, and whether it is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from datagen import storage
from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import quoted, rows
from datagen.errors import ArtefactError, InputError, UsageError, printable
from datagen.places import is_url, outside
from datagen.progress import Progress
from datagen.records import READ, Recipe

NEXT = {
    "run": "datagen synthesize {} --per-class 1000 --out shards",
    "shards": "datagen evaluate {} --run RUN --out report",
    "folder": "datagen fit {} --out run",
}


def kind_of(path: str | Path) -> str:
    """Return what lies at a path: "run", "shards" or "folder" (any other folder, CSV or Parquet); InputError where nothing does.

    At a URL only shards are known.
    """
    if is_url(path):
        return "shards"
    place = Path(path)
    if not place.exists():
        raise InputError("does not exist", where=path, hint="give the folder of a run, of shards, or of labelled images")
    from datagen.reading.manifest import is_set

    if is_set(place):
        return "shards"
    if any((place / name).exists() for name in ("generator/card.json", "card.json", "recipe.json")):
        return "run"
    return "folder"


def describe(
    path: str | Path,
    *,
    verify: bool = False,
    expect: str | None = None,
    preview: str | Path | None = None,
    page: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Return what lies at a path as JSON values.

    Args:
        path: folder of a run, of shards (also s3://BUCKET/PREFIX), or labelled images (folder, CSV, Parquet).
        verify: read every file of shards or of a generator anew and compare it with what was written down.
        expect: with `verify`, of shards: the ID that synthesize said, which nobody can keep who changes anything and hashes it anew.
        preview: name of a PNG file to write, rows of images by class.
        page: of a labelled folder: name of an HTML file to write, with thumbnails of what looks odd: doubtful labels, near-duplicates,
            sizes, brightness. They are listed under "odd", too. Takes a minute, as small recognisers are trained for it.
        progress: where to say what is going on.
        settings: of the group "reading images", for labelled folders.

    Raises:
        InputError: nothing is there, or the labelled folder is refused.
        ArtefactError: something is damaged; every damaged file is named in the result printed before.
    """
    kind = kind_of(path)
    progress = progress or Progress(quiet=True)
    if verify and kind == "folder":
        raise UsageError("a labelled folder has nothing written down to verify against", where=path, hint="leave out --verify")
    if page is not None and kind != "folder":
        raise UsageError("is for labelled folders", where="--page", hint=f"{path} holds a run or shards: --preview FILE.png shows their images")
    if expect is not None and not (verify and kind == "shards"):
        raise UsageError("is for shards, with --verify", where="--expect", hint="datagen describe SHARDS --verify --expect ID")
    if kind == "folder":
        for option, target in {"--preview": preview, "--page": page}.items():
            if target is not None:
                outside(target, path, option=option)
    recipe = Recipe(**settings)
    readers: dict[str, Callable[..., dict[str, Any]]] = {"run": _run, "shards": partial(_shards, expect=expect), "folder": partial(_folder, page=page)}
    where = path if is_url(path) else Path(path)
    value = {"kind": kind, "path": str(path)} | readers[kind](where, recipe, verify, progress)
    if preview is not None:
        from datagen.cli.preview import write

        value["preview"] = str(write(where, kind, Path(preview), recipe))
    return value


def _run(path: Path, recipe: Recipe, verify: bool, progress: Progress) -> dict[str, Any]:
    from datagen.synthesis import generator

    if not (path / "generator" / generator.CARD).exists() and not (path / generator.CARD).exists():
        status = storage.read_json(path / "status.json") if (path / "status.json").exists() else {}
        return {"finished": False, "status": status}
    card, digest = generator.read_card(generator.find(path))
    if verify:
        generator.read_weights(generator.find(path), card)
    images = dict(zip(card.classes, card.counts, strict=True))
    shown = {key: getattr(card, key) for key in ("family", "shape", "images_seen", "version")}
    more = {"chosen": dict(card.chosen), "settings": dict(card.settings), "data": dict(card.data)}
    return {"finished": True, **shown, "classes": images, **more, "generator": digest, "verified": verify}


def _shards(path: str | Path, recipe: Recipe, verify: bool, progress: Progress, expect: str | None = None) -> dict[str, Any]:
    from datagen.reading.manifest import open_set, set_id
    from datagen.reading.verify import verify as problems_of

    if verify and (problems := problems_of(path)):
        for problem in problems:
            progress.warn(problem)
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise ArtefactError(f"{problems[0]}{more}", where=path, hint="the same synthesize command makes damaged shards anew")
    found = open_set(path, allow_partial=True)
    id = set_id(found.place) if found.manifest is not None else None
    if expect is not None and expect.strip().lower() != id:
        raise ArtefactError(f"is another set: its ID is {id}, not {expect[:64]}", where=path, hint="get it anew from where the ID is from")
    rows_of: Counter[str] = Counter()
    for note in found.notes:
        rows_of.update(note.rows)
    shown = {key: found.plan.get(key) for key in ("format", "shape", "source", "seed", "production", "version")}
    done = {"finished": found.manifest is not None, "id": id, "images": found.images, "shards": len(found.notes)}
    return done | shown | {"classes": {name: rows_of[name] for name in found.classes}, "verified": verify}


def _folder(path: Path, recipe: Recipe, verify: bool, progress: Progress, page: str | Path | None = None) -> dict[str, Any]:
    import numpy as np

    from datagen.sources.scan import scan

    if page is not None:
        from datagen.evaluation import odd

        odd.check(Path(page))
    data = scan(path, recipe.changed("describe", allow_synthetic=True), progress=progress)
    train = np.bincount(data.labels[~data.test], minlength=len(data.classes))
    heights, widths = np.unique(data.sizes[:, 0]), np.unique(data.sizes[:, 1])
    value: dict[str, Any] = {
        "images": len(data),
        "test_images": int(data.test.sum()),
        "classes": {name: int(count) for name, count in zip(data.classes, train, strict=True)},
        "height": [int(heights[0]), int(heights[-1])],
        "width": [int(widths[0]), int(widths[-1])],
        "colour": "grey" if data.grey else "rgb",
        "fingerprint": data.fingerprint,
        "problems": [dict(problem) for problem in data.problems],
        "notes": list(data.notes),
    }
    if page is None:
        return value
    found, images = odd.find(data, recipe, progress)
    kept = {kind: [{key: each[key] for key in each if "row" not in key} for each in rows] if kind != "modes" else rows for kind, rows in found.items()}
    return value | {"odd": kept, "doubted": odd.divisible(data), "page": str(odd.write(Path(page), data, found, images, value["notes"]))}


def _text(value: dict[str, Any]) -> str:
    """Return what was found in lines: of what looks odd the first five of each kind, and which kinds were looked for in vain."""
    odd = {"labels": "{file}: in {label}, looks like {seems}", "pairs": "{file} and {other}: nearly the same"}
    odd |= {"sizes": "{file}: {width}x{height}, {orientation}", "brightness": "{file}: mean level {level:.0f}"}
    status = {key: each for key, each in value.get("status", {}).items() if key not in {"heartbeat", "pid"}}
    problems = value.get("problems", [])
    lines = [rows(value | {"status": status, "problems": [f"{len(problems):,}"] if problems else []}, ("odd", "doubted"))]
    lines += [f"  {printable(each['file'])}: {printable(each['problem'])}" for each in problems[:5]]
    found = value.get("odd", {})
    for kind, each in ((kind, each) for kind, each in found.items() if each):
        lines += [f"{kind}: {len(each):,}"] + [f"  {printable(odd[kind].format(**one) if kind in odd else one)}" for one in each[:5]]
    if none := [kind for kind, each in found.items() if not each and (kind != "labels" or value["doubted"])]:
        lines += [f"nothing found: {', '.join(none)}"]
    return "\n".join(lines)


def run(
    asked: Asked,
    path: Annotated[str, typer.Argument(metavar="RUN|SHARDS|FOLDER", help="what to describe")],
    verify: Annotated[bool, typer.Option("--verify", help="read every file anew and compare its hash")] = False,
    expect: Annotated[str | None, typer.Option("--expect", metavar="ID", help="with --verify: the ID of shards that synthesize said")] = None,
    preview: Annotated[str | None, typer.Option("--preview", metavar="FILE.png", help="write a grid of images by class")] = None,
    page: Annotated[str | None, typer.Option("--page", metavar="FILE.html", help="of a labelled folder: write what looks odd, with thumbnails")] = None,
) -> Outcome:
    """Print what is there."""
    settings = {key: getattr(asked.recipe, key) for key in VERB.settings()}
    value = describe(path, verify=verify, expect=expect, preview=preview, page=page, progress=asked.progress, **settings)
    return Outcome(value, _text(value), NEXT[value["kind"]].format(quoted(path)) if value.get("finished", True) else "")


VERB = Verb(run, "Say what a run, shards or a labelled folder holds.", (READ,), without=("dry_run",), example="datagen describe photos --page scan.html")
