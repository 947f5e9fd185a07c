"""The listed images decoded in parallel, from files or from rows of Parquet, in order and with bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TypeVar

from datagen.errors import InputError
from datagen.silence import silence
from datagen.sources.decode import Decoded, decode
from datagen.sources.parquet import ROW, row_bytes

CHUNK = 64
Result = TypeVar("Result")
Content = str | bytes | InputError
Work = Callable[[int, Decoded | InputError], Result]


def base_of(root: str) -> str:
    """Return the resolved folder that the paths of a root are relative to: itself, or the folder that a table lies in."""
    real = os.path.realpath(root)
    return real if os.path.isdir(real) else os.path.dirname(real)


def threads_of(wanted: int | None) -> int:
    """Return the number of decoding threads: what the recipe says, else the processors that this process may use."""
    if wanted:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_of(base: str, path: str) -> tuple[str, int] | None:
    """Return (Parquet file, row) where a path means a row, None where it is a file of its own."""
    found = ROW.fullmatch(path) if "#" in path else None
    return (found[1], int(found[2])) if found and not os.path.lexists(f"{base}/{path}") else None


def each(places: Sequence[tuple[str, str]], work: Work[Result], *, max_pixels: int, threads: int) -> Iterator[list[tuple[int, Result]]]:
    """Decode every image and yield what `work` makes of it, in lists, in order.

    Pillow decodes outside Python's global lock, so threads suffice; at most a few chunks a thread are in memory.

    Args:
        places: (base folder, path relative to it) of each image.
        work: called in a thread with the image's number and its pixels, or the error that refuses it.
        max_pixels: larger images are refused from their header.
        threads: number of decoding threads.

    Raises:
        InputError: a whole Parquet file cannot be read; anything that `work` raises.
    """

    def run(chunk: list[tuple[int, Content]]) -> list[tuple[int, Result]]:
        return [(i, work(i, _decoded(content, max_pixels))) for i, content in chunk]

    waiting: deque[Future[list[tuple[int, Result]]]] = deque()
    with silence(), ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for chunk in _chunks(places):
                waiting.append(pool.submit(run, chunk))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decoded(content: Content, max_pixels: int) -> Decoded | InputError:
    if isinstance(content, InputError):
        return content
    try:
        return decode(content, max_pixels=max_pixels)
    except InputError as error:
        return error


def _chunks(places: Sequence[tuple[str, str]]) -> Iterator[list[tuple[int, Content]]]:
    chunk: list[tuple[int, Content]] = []
    for numbered in _contents(places):
        chunk.append(numbered)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _contents(places: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Content]]:
    def source(numbered: tuple[int, tuple[str, str]]) -> tuple[str, str | None]:
        base, path = numbered[1]
        row = row_of(base, path)
        return base, row[0] if row else None

    for (base, file), run in groupby(enumerate(places), source):
        if file is None:
            yield from ((i, f"{base}/{path}") for i, (_, path) in run)
            continue
        numbers = {int(path.rpartition("#")[2]): i for i, (_, path) in run}
        for row, content in row_bytes(base, file, sorted(numbers)):
            yield numbers[row], content
