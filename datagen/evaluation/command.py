"""The user's own training as judge: images into folders, their command run on them, their predictions read back and checked."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from datagen import registry, seeds, storage
from datagen.contracts import Rows
from datagen.errors import InputError, ResourceError, Stopped, UsageError, nearest
from datagen.progress import span

if TYPE_CHECKING:
    from datagen.evaluation.arms import Advances, Labelled

WHERE = "--train-command"
NEEDED, ALLOWED = ("train", "test", "predictions"), ("train", "test", "predictions", "seed")
LOG, PREDICTIONS, FOLDER = "train-command.log", "train-command-predictions.csv", "train-command-images"
"""what one run of the command leaves in the folder of the report: its output; while it fails its predictions; while it runs the images"""
COLUMNS = ("file", "class")
SEEDS = 2**31
"""seeds are below it, as every library takes them"""
POLL, PATIENCE = 0.1, 5.0
"""seconds between two looks at the command, and that it has to end when it is asked to"""
LINE_BYTES = 4096
"""a file of predictions has no more for each image"""


CODE = (".py", ".sh", ".r", ".jl", ".pl", ".lua", ".toml", ".yaml", ".yml", ".cfg", ".ini")
"""how files of code and settings end"""


def parse(command: str) -> list[str]:
    """Return a command as its words, split as a shell would without being run by one.

    Raises:
        UsageError: it is empty, a quotation is open, {train}, {test} or {predictions} is missing, or another {placeholder} is there.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"cannot be split into words ({str(error).lower()})", where=WHERE, hint="check its quotes") from error
    found = {name for word in words for name in re.findall(r"\{(\w*)\}", word)}
    if unknown := sorted(found - set(ALLOWED)):
        hint = nearest(unknown[0], ALLOWED)
        raise UsageError(f"has an unknown placeholder {{{unknown[0]}}}", where=WHERE, hint=hint)
    if missing := [name for name in NEEDED if name not in found]:
        hint = 'for example "python train.py {train} {test} {predictions}"'
        raise UsageError(f"lacks {', '.join(f'{{{name}}}' for name in missing)}", where=WHERE, hint=hint)
    return words


def decided_by(command: str | None) -> str:
    """Return 64 hex digits decided by a command and by the content of its program and of the code and settings that it names.

    What else it names, a log or weights, may be what it writes itself. "" without a command; InputError where such a file cannot be read.
    """
    if command is None:
        return ""
    words = shlex.split(command)
    read = [word for place, word in enumerate(words) if os.path.isfile(word) and (place == 0 or word.lower().endswith(CODE))]
    try:
        return seeds.digest(command, *map(storage.hash_file, read)).hex()
    except OSError as error:
        raise InputError(f"names a file that cannot be read ({error.strerror})", where=str(error.filename), hint="check its permissions") from error


def run(
    command: str, parts: Sequence[Labelled], test: Labelled, classes: Sequence[str], *, seed: int, work: Path, progress: Advances | None = None
) -> np.ndarray:
    """Train with the user's command and return what it says of the test images.

    The command gets, as words of its own: {train}, a folder with a folder of PNG files a class (beside it classes.json has the
    class of each folder, which differs from its name where that is unsafe); {test}, a folder of PNG files 000000.png and so on
    in a seeded random order, without labels; {predictions}, the file it must write: CSV with the header file,class, or Parquet
    with these columns, one row for each test image, the class by its name or its folder's; {seed}, also DATAGEN_SEED in its
    environment. It runs in the current folder. One run at a time is possible in a folder of a report.

    Args:
        command: as the user gave it.
        parts: sets of images uint8 [N, H, W, C] with labels int64 [N], all trained on together.
        test: unseen images; their labels are not written anywhere.
        classes: names by label.
        seed: decides the order of the test images; the command is told it modulo 2**31.
        work: folder of the report. The images are removed afterwards, train-command.log stays.
        progress: its heartbeat goes on while the command runs; no units are counted.

    Returns:
        the class given to each test image, int64 [T].

    Raises:
        UsageError: the command cannot be started, or its placeholders are wrong.
        ResourceError: it failed, or wrote no predictions; its last lines are in the message.
        InputError: the predictions are not one known class for every test image; the line is named.
        Stopped: SIGTERM, where nothing else handles it; the command is stopped at it and at Ctrl-C, with all that it started.
    """
    words, folder, seed = parse(command), work.absolute() / FOLDER, seed % SEEDS
    log, predictions = work.absolute() / LOG, work.absolute() / PREDICTIONS
    order = seeds.stream("train-command", seed).permutation(len(test))
    names = [f"{place:06d}.png" for place in range(len(test))]
    folders = _folders(classes)
    for left in (folder, log, predictions):
        storage.remove(left)
    try:
        storage.make_folder(folder / "test")
        storage.write_all(folder / "train", _training(parts, folders))
        storage.write_all(folder / "test", ((name, _png(test.images[row])) for name, row in zip(names, order.tolist(), strict=True)))
        storage.write_json(folder / "classes.json", dict(zip(folders, classes, strict=True)))
        values = {"train": folder / "train", "test": folder / "test", "predictions": predictions, "seed": seed}
        filled = [re.sub(r"\{(\w*)\}", lambda found: str(values[found[1]]), word) for word in words]
        _performed(filled, log, seed, progress)
        known = {name: label for label, name in enumerate(classes)} | {name: label for label, name in enumerate(folders)}
        given = _read(predictions, log, folder / "test", names, known)
    finally:
        storage.remove(folder)
    storage.remove(predictions)
    found = np.empty(len(test), np.int64)
    found[order] = given
    return found


def _folders(classes: Sequence[str]) -> list[str]:
    """Return the folder name of each class, as the format "folder" has it."""
    nothing = np.arange(len(classes))
    rows = Rows([b""] * len(classes), nothing, tuple(classes), nothing, nothing, nothing)
    return [PurePosixPath(name).parent.name for name, _ in registry.load("formats", "folder")().files(rows)]


def _training(parts: Sequence[Labelled], folders: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    number = 0
    for part in parts:
        for row, label in enumerate(part.labels.tolist()):
            yield f"{folders[label]}/{number:06d}.png", _png(part.images[row])
            number += 1


def _png(image: np.ndarray) -> bytes:
    """Return uint8 [H, W, 1 or 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _performed(words: Sequence[str], log: Path, seed: int, progress: Advances | None) -> None:
    """Run the command to its end, its output into the log; ResourceError where it fails."""
    begun, process = time.monotonic(), None
    with _terminable(), storage.opened_log(log) as output:
        try:
            process = _started(words, output, seed)
            while _running(process):
                if progress is not None:
                    progress.advance(0, f"train command, {span(time.monotonic() - begun)}")
        finally:
            _stop(process)
    if code := process.returncode:
        ended = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        raise ResourceError(f"the train command {ended}{_last(log)}", where=log, hint="its whole output is there")


def _started(words: Sequence[str], output: Any, seed: int) -> subprocess.Popen[bytes]:
    variables = {**os.environ, "DATAGEN_SEED": str(seed)}
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables, start_new_session=True)
    except (OSError, ValueError) as error:
        hint = "the command runs in the current folder, without a shell"
        raise UsageError(f"{words[0]!r} cannot be started ({error})", where=WHERE, hint=hint) from error


def _running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL)
    except subprocess.TimeoutExpired:
        return True
    return False


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    """End a command that still runs and all that it started: first asked, then killed."""
    if process is None or process.poll() is not None:
        return
    try:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    finally:
        _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into Stopped where it would end this process at once, so that the command does not outlive it."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Stopped("stopped by SIGTERM", hint="the same command continues")

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _last(log: Path) -> str:
    """Return the last three lines of a log after a colon, "" where there is nothing."""
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - LINE_BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    told = " | ".join(lines[-3:])
    return f": {told if len(told) <= 150 else '…' + told[-150:]}" if told else ""


def _read(file: Path, log: Path, folder: Path, names: Sequence[str], known: Mapping[str, int]) -> np.ndarray:
    """Return the label for each of `names`, int64 [T]; InputError where the file does not say exactly one for each."""
    if not file.is_file():
        hint = "it must write file,class for each test image to the path that stands for {predictions}"
        raise ResourceError(f"the train command ended without writing {file.name}{_last(log)}", where=log, hint=hint)
    if os.path.getsize(file) > LINE_BYTES * (len(names) + 16):
        raise InputError(f"is too large for {len(names):,} predictions", where=file, hint="write file,class alone")
    with open(file, "rb") as start:
        rows = _parquet(file) if start.read(4) == b"PAR1" else _csv(file)
    place, lines = {name: i for i, name in enumerate(names)}, [0] * len(names)
    found = np.full(len(names), -1, np.int64)
    for line, name, title in rows:
        number = place.get(name.removeprefix(f"{folder}{os.sep}"), -1)
        if number < 0:
            raise InputError(f"line {line} has the file {name!r}, which is no test image", where=file, hint="give the names in {test}")
        if title not in known:
            raise InputError(f"line {line} has the class {title!r}, which is none", where=file, hint=nearest(title, known))
        if lines[number]:
            raise InputError(f"line {line} has {name!r} again, first in line {lines[number]}", where=file, hint="one row for each test image")
        lines[number], found[number] = line, known[title]
    if missing := int((found < 0).sum()):
        first = names[int((found < 0).argmax())]
        raise InputError(f"lacks {missing:,} of {len(names):,} test images, first {first}", where=file, hint="one row for each test image")
    return found


def _csv(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, file and class of each row of a CSV file."""
    try:
        rows = csv.reader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        columns = _columns(file, [name.strip() for name in next(rows, [])])
        for row in rows:
            if row and len(row) != len(COLUMNS):
                raise InputError(f"line {rows.line_num} has {len(row)} fields, not 2", where=file, hint="a row is file,class")
            if row:
                yield rows.line_num, row[columns[0]], row[columns[1]]
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", where=file, hint="write it as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"line {rows.line_num} is no CSV ({error})", where=file, hint="check its quotes") from error


def _columns(file: Path, header: Iterable[str]) -> tuple[int, int]:
    header = list(header)
    if sorted(header) != sorted(COLUMNS):
        shown = ",".join(header)[:60]
        raise InputError(f"line 1 is {shown!r}, not the header file,class", where=file, hint="no other columns (pandas: to_csv(..., index=False))")
    return header.index(COLUMNS[0]), header.index(COLUMNS[1])


def _parquet(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield row (from 1), file and class of each row of a Parquet file; whole numbers count as the names they spell."""
    import pyarrow
    import pyarrow.parquet as pq

    try:
        table: Any = pq.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot be read as Parquet ({str(error)[:80]})", where=file, hint="write CSV instead") from error
    columns = _columns(file, table.column_names)
    values = [table.column(i).to_pylist() for i in columns]
    for line, (name, title) in enumerate(zip(*values, strict=True), 1):
        if not isinstance(name, str) or not isinstance(title, str | int):
            raise InputError(f"line {line} holds no text", where=file, hint="file and class are text")
        yield line, name, str(title)
