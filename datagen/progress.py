"""Progress on stderr (a live bar on a terminal, a line every ten seconds elsewhere) and in status.json."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from datagen import storage
from datagen.errors import printable

LINE_SECONDS = 10.0
BEAT_SECONDS = 5.0
FORETOLD = 0.005
"""share of a stage that is done before the time left is told: what its beginning costs would be taken for its rate"""


def span(seconds: float) -> str:
    """Return a time in words of two units at most: 8 s, 2 min 5 s, 3 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def many(count: int, one: str) -> str:
    """Return a number of things in words: 1 shard, 1,000 shards."""
    return f"{count:,} {one}" + ("" if count == 1 else "s")


class Progress:
    """Says what is going on; one object a verb.

    Args:
        folder: output folder that gets status.json; None writes none.
        quiet: say nothing on stderr but warnings.
    """

    def __init__(self, folder: str | Path | None = None, *, quiet: bool = False) -> None:
        self.folder = folder
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.stage_name, self.done, self.total, self.left = "", 0, 0, 0.0
        self._printed = self._began = 0.0
        self._first = 0
        self._bar: object = None

    @property
    def folder(self) -> Path | None:
        """The folder that gets status.json; another one is not ours until it was written there."""
        return self._folder

    @folder.setter
    def folder(self, folder: str | Path | None) -> None:
        """Name another folder for status.json, or none."""
        self._folder = Path(folder) if folder else None
        self._written = 0.0

    @property
    def started(self) -> bool:
        """Whether status.json was written by this object, so that its folder is known to be ours."""
        return self._written > 0

    def say(self, text: str = "") -> None:
        """Print one line on stderr, unless quiet."""
        if not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, quiet or not."""
        self._print(f"warning: {text}")

    def _print(self, text: str) -> None:
        line = "\n".join(printable(part) for part in text.split("\n"))
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)  # type: ignore[attr-defined]
        else:
            with contextlib.suppress(BrokenPipeError):
                print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Show one stage of `total` units of which `done` are done already."""
        self.stage_name, self.total, self.done, self._first = name, total, done, done
        self._began, self._printed, self.left = time.monotonic(), time.monotonic(), 0.0
        self.status(force=True)
        try:
            if self.live:
                with self._live(name, total):
                    yield self
            else:
                yield self
        finally:
            self._bar = None
            self.status(force=True)

    @contextlib.contextmanager
    def _live(self, name: str, total: int) -> Iterator[None]:
        from rich import progress as bars
        from rich.console import Console

        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(24),
            bars.TaskProgressColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[text]}", markup=False),
        )
        with bars.Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
            self._bar, self._task = bar, bar.add_task(name, total=total or None, completed=self.done, text="")
            yield

    def advance(self, count: int = 1, text: str = "") -> None:
        """Count units done in this stage and show a short text such as "812 images/s, loss 0.71"."""
        self.done += count
        now = time.monotonic()
        moved = self.done - self._first
        known = 0 < FORETOLD * (self.total - self._first) <= moved
        self.left = (self.total - self.done) * (now - self._began) / moved if known else 0.0
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, text=printable(text))  # type: ignore[attr-defined]
        elif now - self._printed >= LINE_SECONDS:
            self._printed = now
            share = f"{100 * self.done / self.total:.0f} %" if self.total else f"{self.done:,}"
            self.say(f"{self.stage_name}: {', '.join([share, *([f'{span(self.left)} left'] if known else []), *([text] if text else [])])}")
        self.status()

    def status(self, *, exit_code: int | None = None, force: bool = False) -> None:
        """Write status.json (stage, done, total, seconds_left, heartbeat, exit_code) at most every five seconds.

        An exit code alone never starts the file: a folder that was refused is left as it is.
        """
        now = time.monotonic()
        if self.folder is None or not self.folder.is_dir() or not (force or exit_code is not None or now - self._written >= BEAT_SECONDS):
            return
        if exit_code is not None and not self.started:
            return
        self._written = now
        value = {
            "stage": self.stage_name,
            "done": self.done,
            "total": self.total,
            "seconds_left": round(self.left, 1),
            "heartbeat": time.time(),
            "pid": os.getpid(),
            "exit_code": exit_code,
        }
        storage.write_json(self.folder / "status.json", value)
