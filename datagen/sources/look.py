"""What one scan learns of every image (digest, size, grey or not, damage, AI mark), remembered so that the next scan need not look again."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from datagen import caching, storage
from datagen.errors import InputError, OutputError
from datagen.progress import Progress
from datagen.sources import decode, origin
from datagen.sources.decode import Decoded, UnknownFormat, Unreadable
from datagen.sources.listing import Listing

DIGEST = 16
_MARK = b"datagen scan 2\n"
_STAMPS = 4


def digest(pixels: np.ndarray) -> bytes:
    """Return 16 bytes of the SHA-256 of shape and pixels, uint8 [H, W] or [H, W, 3]; a grey image has one digest either way."""
    if pixels.ndim == 3 and decode.is_grey(pixels):
        pixels = pixels[..., 0]
    state = hashlib.sha256(np.array(pixels.shape, "<i8").tobytes())
    state.update(np.ascontiguousarray(pixels).data)
    return state.digest()[:DIGEST]


@dataclass
class Looks:
    """What is known of N images.

    Attributes:
        digests: uint8 [N, 16].
        sizes: int32 [N, 2], upright height and width in pixels; 0 where the image is refused.
        grey: bool [N], one channel or three equal ones.
        remarks: by image, {"notes": [...]} and {"made": its AI mark}, or {"what", "hint", "unknown"} where it is refused (unknown:
            no image at all).
        unread: images that could not be read this time and are to be tried again by the next scan.
    """

    digests: np.ndarray
    sizes: np.ndarray
    grey: np.ndarray
    remarks: dict[int, dict[str, Any]] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)

    @classmethod
    def blank(cls, count: int) -> Looks:
        """Return looks at nothing yet."""
        return cls(np.zeros((count, DIGEST), np.uint8), np.zeros((count, 2), np.int32), np.zeros(count, bool))

    def take(self, number: int, seen: Decoded | InputError) -> None:
        """Keep what there is to know of one image."""
        if isinstance(seen, InputError):
            self.remarks[number] = {"what": seen.what, "hint": seen.hint, "unknown": isinstance(seen, UnknownFormat)}
            if isinstance(seen, Unreadable):
                self.unread.append(number)
            return
        self.digests[number] = np.frombuffer(digest(seen.pixels), np.uint8)
        self.sizes[number] = seen.pixels.shape[:2]
        self.grey[number] = decode.is_grey(seen.pixels)
        if seen.notes or seen.made:
            self.remarks[number] = ({"notes": list(seen.notes)} if seen.notes else {}) | ({"made": seen.made} if seen.made else {})


def look(listing: Listing, progress: Progress, *, max_pixels: int, threads: int, anew: bool = False) -> tuple[Looks, str]:
    """Look at every listed image, opening those alone that changed since they were looked at.

    Args:
        listing: files or rows of Parquet.
        progress: gets one advance a chunk.
        max_pixels: larger images are refused from their header.
        threads: number of decoding threads.
        anew: open all of them.

    Returns:
        the looks, and a sentence where they could not be remembered ("" where they were).

    Raises:
        InputError: a whole Parquet file cannot be read.
    """
    base, paths = listing.base, listing.paths
    looks, stamps = Looks.blank(len(paths)), _stamps(base, paths)
    kept = caching.entry("scans", listing.root, base, max_pixels, decode.VERSION, PIL.__version__).with_suffix(".bin")
    known = np.zeros(len(paths), bool) if anew else _recall(kept, paths, stamps, looks)
    missing = np.flatnonzero(~known)
    progress.advance(int(known.sum()))
    places = [(base, paths[int(i)]) for i in missing]

    def take(number: int, seen: Decoded | InputError) -> None:
        looks.take(int(missing[number]), seen)

    for done in origin.each(places, take, max_pixels=max_pixels, threads=threads):
        progress.advance(len(done))
    return looks, _remember(kept, paths, stamps, looks) if len(missing) else ""


def _stamps(base: str, paths: Sequence[str]) -> np.ndarray:
    """Return int64 [N, 4]: size, mtime, ctime (ns) and inode of each image's file, zeros where it has none."""
    stamps = np.zeros((len(paths), _STAMPS), np.int64)
    files: dict[str, tuple[int, ...]] = {}
    for number, path in enumerate(paths):
        row = origin.row_of(base, path)
        if row is None:
            stamps[number] = _stamp(f"{base}/{path}")
        else:
            stamps[number] = files[row[0]] = files.get(row[0]) or _stamp(f"{base}/{row[0]}")
    return stamps


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return (0,) * _STAMPS
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (2**63 - 1)


def _remember(kept: Path, paths: Sequence[str], stamps: np.ndarray, looks: Looks) -> str:
    """Write the looks; returns a sentence where that is not possible. Images that could not be read are to be tried again."""
    stamps[looks.unread] = 0
    names = np.frombuffer(b"\0".join(os.fsencode(p) for p in paths), np.uint8)
    remarks = np.frombuffer(json.dumps({str(k): v for k, v in looks.remarks.items()}).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, names=names, stamps=stamps, digests=looks.digests, sizes=looks.sizes, grey=looks.grey, remarks=remarks)
    body = buffer.getvalue()
    try:
        storage.make_folder(kept.parent)
        caching.forget("scans")
        storage.replace(kept, _MARK + hashlib.sha256(body).digest() + body)
    except OutputError as error:
        return f"the scan could not be remembered and will be made again ({error})"
    return ""


def _recall(kept: Path, paths: Sequence[str], stamps: np.ndarray, looks: Looks) -> np.ndarray:
    """Fill in what is remembered of unchanged files; returns bool [N]. What is damaged or missing counts as never seen."""
    known = np.zeros(len(paths), bool)
    try:
        raw = kept.read_bytes()
    except OSError:
        return known
    body = memoryview(raw)[len(_MARK) + 32 :]
    if raw[: len(_MARK)] != _MARK or hashlib.sha256(body).digest() != raw[len(_MARK) : len(_MARK) + 32]:
        return known
    storage.used(kept)
    with np.load(io.BytesIO(body), allow_pickle=False) as old:
        names = {os.fsdecode(n): i for i, n in enumerate(old["names"].tobytes().split(b"\0"))}
        rows = np.array([names.get(path, -1) for path in paths], np.int64)
        known = (rows >= 0) & (old["stamps"][rows] == stamps).all(axis=1) & stamps.any(axis=1)
        for mine, theirs in ((looks.digests, old["digests"]), (looks.sizes, old["sizes"]), (looks.grey, old["grey"])):
            mine[known] = theirs[rows[known]]
        remarks = json.loads(old["remarks"].tobytes())
    numbers = {int(row): int(i) for i, row in zip(np.flatnonzero(known), rows[known], strict=True)}
    looks.remarks.update({numbers[int(k)]: v for k, v in remarks.items() if int(k) in numbers})
    return known
