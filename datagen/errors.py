"""Every error a user can meet: what is wrong, where, what to do, and the exit code.

DatagenError
├── UsageError      2  command line or recipe
├── InputError      3  input data refused
├── ArtefactError   4  artefact damaged, hostile or too new
├── OutputError     5  output: exists, locked, full, read-only, I/O error
├── ResourceError   6  resource missing or failing (GPU, memory, worker)
├── SafetyError     7  refused for safety
├── FailedUnder     8  a --fail-under condition does not hold
└── Stopped        75  stopped by SIGTERM (130 after Ctrl-C); the same command continues
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

LINE_LIMIT = 300

EXIT_CODES = {
    0: "done",
    1: "a fault of datagen itself; the log's path is named",
    2: "command line or recipe",
    3: "input data refused",
    4: "artefact damaged, hostile or too new",
    5: "output: exists, locked, full, read-only, I/O error",
    6: "resource missing or failing (GPU, memory, worker)",
    7: "refused for safety: test images or copies among the synthetic ones, or too few accepted",
    8: "a --fail-under condition does not hold",
    75: "stopped by SIGTERM; the same command continues",
    130: "stopped by Ctrl-C; the same command continues",
}


def printable(text: object) -> str:
    """Return text with control, bidirectional and undecodable characters escaped, so that it is safe on a terminal."""
    out = []
    for char in str(text):
        code = ord(char)
        if char.isprintable() and not 0xD800 <= code <= 0xDFFF:
            out.append(char)
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        else:
            out.append(char.encode("unicode_escape", "surrogatepass").decode("ascii"))
    return "".join(out)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as "did you mean 'size'?" for the known name closest to `name`, or the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close and close[0] != name and unicodedata.normalize("NFC", close[0]) == unicodedata.normalize("NFC", name):
        return f"{close[0]!r} is there, its letters composed otherwise (Unicode): take the name from where it is listed"
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


class DatagenError(Exception):
    """An error with a place, a cause and a remedy.

    Args:
        what: what is wrong, without a full stop.
        where: file, option or class it is about; empty when there is none.
        hint: what to do about it; empty when nothing is known.
    """

    code = 1

    def __init__(self, what: str, *, where: object = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, str(where), hint
        super().__init__(self.line())

    def line(self) -> str:
        """Return `WHERE: what; hint` on one line of at most 300 characters, control characters escaped."""
        where = printable(self.where)
        if len(where) > LINE_LIMIT // 3:
            where = "…" + where[-LINE_LIMIT // 3 :]
        text = ": ".join(filter(None, [where, printable(self.what)]))
        text = "; ".join(filter(None, [text, printable(self.hint)]))
        room = LINE_LIMIT - len("error: ")
        return text if len(text) <= room else text[: room - 1] + "…"


class UsageError(DatagenError):
    """The command line or the recipe is wrong."""

    code = 2


class InputError(DatagenError):
    """The input data cannot be used."""

    code = 3


class ArtefactError(DatagenError):
    """A generator, checkpoint, manifest or shard is damaged, hostile or too new."""

    code = 4


class OutputError(DatagenError):
    """The output exists, is locked, full, read-only or fails."""

    code = 5


class ResourceError(DatagenError):
    """A GPU, memory, a worker or an optional package is missing or failing."""

    code = 6


class SafetyError(DatagenError):
    """A safety gate is closed: leaked test images, too few accepted images."""

    code = 7


class FailedUnder(DatagenError):
    """A condition given by --fail-under does not hold."""

    code = 8


class Stopped(DatagenError):
    """The work was stopped from outside; the same command continues it."""

    code = 75

    def __init__(self, what: str, *, where: object = "", hint: str = "", interrupted: bool = False) -> None:
        super().__init__(what, where=where, hint=hint)
        if interrupted:
            self.code = 130
