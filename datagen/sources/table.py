"""A CSV of path and label: which column is which, and every line checked before any image is opened."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from datagen.errors import InputError, nearest
from datagen.sources import trust
from datagen.sources.folder import inside
from datagen.sources.listing import SPLITS, Listing, part_of, parts_said

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
_DELIMITERS = (",", ";", "\t", "|")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LINE_END = re.compile(r"\r\n|\r|\n")
_HEADER = "the first line must be a header such as path,label"


def list_csv(file: Path, group: str | None) -> Listing:
    """List the images of a CSV file with a header; paths are relative to its folder and stay inside it.

    Args:
        file: comma, semicolon, tab or bar between fields; UTF-8, or UTF-16 with its mark. A column split, set, subset or partition
            that says train and test (or val) of every line is heeded.
        group: a column's name, kept where there is one so called.

    Returns:
        images in the order of the lines; lines that cannot be used are errors with their number.

    Raises:
        InputError: the file cannot be read, is no text, or its header names no path or no label.
    """
    text = _text(file)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=(delimiter := _delimiter(file, text)), strict=True)
    header = _header(file, rows)
    path_column, label_column = _column(file, header, PATH_COLUMNS), _column(file, header, LABEL_COLUMNS)
    group_column = header.index(group) if group in header else None
    base = os.path.realpath(file.parent)
    listing = Listing(str(file), base, columns=tuple(header), groups=None if group_column is None else [])
    split_column = next((place for place, name in enumerate(header) if name.casefold() in SPLITS and place != label_column), None)
    said: list[str] = []
    source_columns = [place for place, name in enumerate(header) if name.casefold() == trust.COLUMN]
    made: set[str] = set()
    known: dict[str, str] = {}
    check = _PathCheck(base)
    try:
        for row in rows:
            if not row:
                continue
            wrong = _wrong(row, header, delimiter) or check(row[path_column]) or ("has no label" if not row[label_column] else "")
            path = os.path.normpath(row[path_column]) if not wrong else ""
            label = row[label_column] if not wrong else ""
            if not wrong and any(trust.says_so(row[column]) for column in source_columns):
                made.add(path)
            said_here = "" if wrong or split_column is None else row[split_column].strip()
            what = repr(label) + (f" in {part}" if (part := part_of(said_here)) else "")
            if not wrong and known.setdefault(path, what) != what:
                wrong = f"gives {path!r} the label {what}, an earlier one {known[path]}"
            if wrong:
                listing.errors.append(InputError(f"line {rows.line_num} {wrong}", where=file, hint="correct or remove the line"))
            elif len(known) > len(listing.paths):
                listing.paths.append(path)
                listing.names.append(label)
                said.append(said_here)
                if listing.groups is not None and group_column is not None:
                    listing.groups.append(row[group_column])
    except csv.Error as error:
        raise InputError(f"line {rows.line_num} is no CSV ({error})", where=file, hint="check its quotes") from error
    parts = None if split_column is None else parts_said(said, listing, header[split_column])
    listing.test = parts or [False] * len(listing.paths)
    listing.made = {number for number, path in enumerate(listing.paths) if path in made}
    return listing


def _text(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=file, hint="check its permissions") from error
    kind, coding = ("UTF-16", "utf-16") if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("UTF-8", "utf-8-sig")
    try:
        text = raw.decode(coding)
    except UnicodeDecodeError as error:
        line = len(_LINE_END.findall(raw[: error.start].decode(coding, "ignore"))) + 1
        raise InputError(f"line {line} is not {kind}", where=file, hint="save it as UTF-8") from error
    if "\0" in text:
        line = len(_LINE_END.findall(text[: text.index("\0")])) + 1
        raise InputError(f"line {line} holds zero bytes, so it is no text", where=file, hint="save it as UTF-8")
    return text


def _delimiter(file: Path, text: str) -> str:
    first = _LINE_END.split(text, maxsplit=1)[0]
    if not first.strip():
        raise InputError("line 1 has no header", where=file, hint=_HEADER)
    return max(_DELIMITERS, key=first.count)


def _header(file: Path, rows: Iterator[list[str]]) -> list[str]:
    try:
        return [name.strip() for name in next(rows)]
    except csv.Error as error:
        raise InputError(f"line 1 is no CSV ({error})", where=file, hint="check its quotes") from error


def _column(file: Path, header: list[str], wanted: tuple[str, ...]) -> int:
    low = [name.casefold() for name in header]
    found = [name for name in wanted if name in low]
    if not found:
        raise InputError(f"line 1 has no column {wanted[0]!r}", where=file, hint=f"{_HEADER}; {nearest(wanted[0], header)}")
    if low.count(found[0]) > 1:
        raise InputError(f"line 1 has two columns {found[0]!r}", where=file, hint="rename one of them")
    return low.index(found[0])


def _wrong(row: list[str], header: list[str], delimiter: str) -> str:
    return "" if len(row) == len(header) else f"has {len(row)} fields, the header {len(header)} (between them {delimiter!r})"


class _PathCheck:
    """Says what is wrong with a path of a table, opening nothing; the folders on the way are resolved once each."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if not path or "\0" in path:
            return "has no path"
        if _URL.match(path) or os.path.isabs(path):
            return f"has {path!r}, a URL or absolute path; paths are relative to the CSV's folder"
        folder, name = os.path.split(f"{self.base}/{path}")
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        place = f"{self.folders[folder]}/{name}"
        if name in ("", ".", "..") or not inside(self.folders[folder], self.base):
            return f"has {path!r}, which leads out of the CSV's folder"
        return self._missing(place, path)

    def _missing(self, place: str, path: str) -> str:
        try:
            status = os.lstat(place)
            if stat.S_ISLNK(status.st_mode):
                if not inside(os.path.realpath(place), self.base):
                    return f"has {path!r}, a link that leads out of the CSV's folder"
                status = os.stat(place)
        except OSError as error:
            return f"has {path!r}, which cannot be found ({error.strerror})"
        return "" if stat.S_ISREG(status.st_mode) else f"has {path!r}, which is no regular file"
