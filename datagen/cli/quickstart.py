"""`datagen quickstart`: the whole journey on scikit-learn's 1,797 handwritten digits, without a download."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from datagen import storage
from datagen.cli.evaluate import summary
from datagen.cli.options import Asked, Outcome, Verb
from datagen.cli.show import quoted
from datagen.errors import OutputError
from datagen.progress import Progress
from datagen.records import ANY

PER_CLASS = 1000
MARK = ".quickstart"
"""a file that says whose folder this is"""
TEST_KEY = "quickstart test half"


def write_digits(folder: Path, progress: Progress) -> int:
    """Write the digits as PNG files folder/{train,test}/DIGIT/INDEX.png, half of every class each, the same half always; returns how many.

    The images are 8x8 grey; values 0 to 16 become 0 to 255. Files that are there and whole are left alone.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    from datagen import seeds

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        test[seeds.stream(TEST_KEY, digit).permutation(members)[: len(members) // 2]] = True
    if not folder.exists():
        progress.say(f"writing {len(labels):,} digits to {folder}")
    storage.create_all(folder, ((f"{'test' if test[i] else 'train'}/{labels[i]}/{i:04d}.png", _png(images[i])) for i in range(len(labels))))
    return len(labels)


def _png(image: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def run(asked: Asked, out: Annotated[str, typer.Option("--out", metavar="DIR", help="folder of everything that is made")] = "quickstart") -> Outcome:
    """Write the digits, fit, synthesize, evaluate."""
    from datagen.evaluation.run import evaluate
    from datagen.synthesis.run import synthesize
    from datagen.training.run import fit

    root, progress = Path(out), asked.progress
    data, fitted, shards, report = root / "data", root / "run", root / "shards", root / "report"
    steps = [
        f"datagen fit {quoted(data)} --recipe digits --out {quoted(fitted)}",
        f"datagen synthesize {quoted(fitted)} --per-class {PER_CLASS} --out {quoted(shards)}",
        f"datagen evaluate {quoted(shards)} --run {quoted(fitted)} --out {quoted(report)}",
    ]
    if asked.dry_run:
        return Outcome({"plan": steps}, "\n".join(steps))
    if root.exists() and not root.is_dir():
        raise OutputError("is a file", where=out, hint="give another --out")
    if root.exists() and any(root.iterdir()) and not (root / MARK).is_file() and not (fitted / "recipe.json").is_file():
        raise OutputError("is not empty", where=out, hint="give another --out")
    storage.make_folder(root)
    storage.replace(root / MARK, b"what datagen quickstart made is here\n")
    write_digits(data, progress)
    calls: list[Callable[[], dict[str, Any]]] = [
        lambda: fit(data, fitted, asked.recipe, progress=progress),
        lambda: synthesize(fitted, shards, asked.recipe.changed("quickstart", per_class=PER_CLASS), progress=progress),
        lambda: evaluate([shards], run=fitted, out=report, recipe=asked.recipe, progress=progress),
    ]
    made = {}
    for place, (step, call) in enumerate(zip(steps, calls, strict=True), 1):
        progress.say(f"{place} of {len(steps)}: {step}")
        made[step.split()[1]] = call()
        progress.status(exit_code=0)
    value = {"out": str(root), "report": str(report / "report.html"), **made}
    return Outcome(value, summary(made["evaluate"]), "datagen fit YOUR_FOLDER --out run")


VERB = Verb(
    run, "Try everything on 1,797 handwritten digits; needs no download.", (ANY,), defaults={"recipe": "digits"}, example="datagen quickstart --out quickstart"
)
