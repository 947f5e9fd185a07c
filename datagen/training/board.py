"""Losses for TensorBoard: event files that name neither the machine nor its user."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path

from datagen import storage


class Board:
    """One event file below a folder, begun anew at every start; TensorBoard reads all of them in the order of their names.

    Args:
        folder: RUN/tb.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._record = event_pb2.Event, summary_pb2.Summary, RecordWriter
        began = int(time.time())
        while (path := storage.make_folder(folder) / f"events.out.tfevents.{began:010d}.datagen").exists():
            began += 1
        self.path = path
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, values: Mapping[str, float], images: int) -> None:
        """Write named numbers at a number of images seen."""
        rows = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(self._event(wall_time=time.time(), step=images, summary=self._summary(value=rows)))

    def _write(self, event: object) -> None:
        framed = io.BytesIO()
        self._record(framed).write(event.SerializeToString())  # type: ignore[attr-defined]
        with storage.opened_log(self.path) as file:
            file.write(framed.getvalue())
