"""What an evaluation of the same generator's images said, for the card of a set."""

from __future__ import annotations

from pathlib import Path

from datagen import storage
from datagen.errors import ArtefactError, UsageError, printable

REPORT = "report.json"


def said(report: str | Path, production: str) -> str:
    """Return the sentence that an evaluation ended with.

    Args:
        report: folder that `datagen evaluate` wrote.
        production: id of the images that are being made; those judged must be of the same one.

    Raises:
        ArtefactError: there is no report, or it cannot be read.
        UsageError: it judged images of another generator, or made with other settings.
    """
    path = Path(report) / REPORT
    value = storage.read_json(path)
    try:
        found = value["verdict"]
        sentence, judged = str(found["sentence"]), str(value["data"]["synthetic"][found["set"]].get("production"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtefactError("has no verdict on a set of shards", where=path, hint="give the folder that datagen evaluate wrote") from error
    if judged != production:
        what = f"judged images of another production ({judged[:16]}, not {production[:16]})"
        raise UsageError(what, where=report, hint="evaluate a set that this generator made with the same settings; its size may differ")
    return printable(sentence)
