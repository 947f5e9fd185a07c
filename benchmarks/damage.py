"""Which measure of `datagen evaluate` sees which damage of fresh digits, against real images in their place."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import damage

ROW = {"agreement": "agreement", "fidelity": "fidelity kernel recogniser", "coverage": "coverage recogniser", "separability": "separability recogniser"}
ROW |= {"copies": "copies", "duplicates": "duplicates", "balance": "balance", "drift": "drift sharpness"}
"""the finding whose estimate the table shows"""


def cell(name: str, kind: str, strength: int, each: int) -> str:
    """Return the estimate of a measure on one damage, in bold where any of its findings departs from the floor."""
    found = damage.findings(name, damage.context(each, kind, strength))
    text = f"{next(f.estimate for f in found if f.measure == ROW[name]):.3g}"
    return f"**{text}**" if any(f.details.get("departs") for f in found) else text


def expectation(name: str, kind: str) -> str:
    """Return in a word what is declared of a measure and a damage."""
    if kind in damage.BLIND[name]:
        return "blind"
    first = damage.MUST[name].get(kind)
    return f"must from {first}" if first else "may"


def table(each: int) -> list[str]:
    """Return the table as lines of Markdown."""
    heads = [f"{kind} ({', '.join(f'{s:g}' for s in found.strengths)}: {found.words})" for kind, found in damage.DAMAGES.items()]
    lines = ["| measure | fresh | " + " | ".join(heads) + " |", "| --- |" + " --- |" * (1 + len(heads))]
    for name in damage.MEASURES:
        cells = [", ".join(cell(name, kind, strength, each) for strength in (1, 2, 3)) + f" ({expectation(name, kind)})" for kind in damage.DAMAGES]
        lines.append(f"| {name} | {cell(name, '', 0, each)} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Print the table and write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=599, help="digits of each of the three sets (default and most 599)")
    parser.add_argument("--write", metavar="FILE.md", help="write the table to a file, too")
    asked = parser.parse_args()
    begun = time.perf_counter()
    words = (
        f"{asked.each} training, {asked.each} unseen and {asked.each} fresh images of scikit-learn's digits; the fresh ones stand for synthetic ones. "
        f"Shown are estimates ({', '.join(ROW.values())}) at three strengths, bold where any finding of the measure departs from what real images show "
        "among themselves. In brackets what tests/test_measures_damage.py holds: must be seen from that strength on, may be, or blind by nature."
    )
    lines = [words, "", *table(asked.each), "", f"Made in {time.perf_counter() - begun:.0f} s."]
    print("\n".join(lines))
    if asked.write:
        Path(asked.write).write_text("\n".join([f"# {__doc__}", "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
