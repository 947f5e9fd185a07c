"""Shards and labelled folders as a torch Dataset, or whole as arrays."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from datagen import colour, machine, untrusted
from datagen.contracts import Rows
from datagen.errors import ArtefactError, InputError, UsageError, nearest, printable
from datagen.formats import encode
from datagen.formats.folder import Folder, image_names
from datagen.reading import soft
from datagen.reading.located import Found, Located, locate
from datagen.reading.manifest import ShardSet, is_set, open_set
from datagen.reading.remote import CACHE_BYTES
from datagen.reading.turns import Turns
from datagen.reading.verify import verify, whole
from datagen.silence import silence

__all__ = ["Loaded", "ShardDataset", "decoded", "load", "picture", "verify"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
PIECE = 256
"""images decoded by one thread at a time"""


def picture(content: bytes, where: object, of: Found | None = None) -> Image.Image:
    """Return an image file upright, as mode L or RGB in sRGB, on white where it is transparent; ArtefactError where it cannot be decoded."""
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        encode.bearable(image, content)
        with silence() if image.format == "TIFF" else nullcontext():
            image = colour.load(image)
        if image.mode in {"L", "RGB"} and _plain(image):
            return image
        return Image.fromarray(colour.eight_bits(ImageOps.exif_transpose(image), []))
    except Exception as error:  # Pillow's plug-ins raise whatever a damaged file makes them trip over
        own = "remove it, or save it anew" if isinstance(of, Located) and of.hashes is None else None
        raise ArtefactError("cannot be decoded", where=where, hint=own or untrusted.VERIFY) from error


def _plain(image: Image.Image) -> bool:
    """Return whether nothing in an image file says how it is to be turned or what shows through; XMP such as ours may be there."""
    said = {**image.info}
    packets = [said.pop(key, b"") for key in ("xmp", "XML:com.adobe.xmp")]
    turned = any(b"Orientation" in (each if isinstance(each, bytes) else str(each).encode()) for each in packets)
    return not turned and not set(said) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


class ShardDataset(Dataset[Any]):
    """Labelled images of shards in any format, or of any folder with a folder a class, for a DataLoader.

    `dataset[i]` is (image, label): the image a Pillow image (mode L or RGB) through `transform`, or without one a tensor
    uint8 [C, H, W]; the label an int, the place of the class in `classes` (sorted names, as every other reader numbers them).
    No file stays open, so worker processes may be forked or spawned.

    Args:
        path: folder of shards, s3://BUCKET/PREFIX of shards, or labelled folder.
        transform: called with the Pillow image.
        allow_partial: take the shards committed so far of an unfinished set, fixed at opening.
        rotate: an epoch is a part of the set, other images each time (`set_epoch(n)`), all before any again. They come shuffled: load
            them in order. `state_dict(seen=n)` and `load_state_dict` go on within an epoch.
        per_epoch: images of such an epoch, one shard's by default.
        seed: of the order of `rotate`.
        cache_bytes: of a URL: shards are fetched when they are wanted and kept below the cache folder ($DATAGEN_CACHE), all sets together up to
            so many bytes; the one used longest ago goes first. Of a larger set load the images in order: shuffled, shards come again and again.
        on_bad: "raise", or "skip" to leave out shards that are missing or damaged: a warning and `skipped` say how many images of each
            class those were.

    Raises:
        ArtefactError: the set is damaged, or unfinished without `allow_partial`.
        ResourceError: an object store cannot be reached or refuses, or its package is missing.
        InputError: no images are there.
        UsageError: `per_epoch` without `rotate`, or below 1; `on_bad` is neither.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        transform: Callable[[Image.Image], Any] | None = None,
        allow_partial: bool = False,
        rotate: bool = False,
        per_epoch: int | None = None,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
        on_bad: str = "raise",
    ) -> None:
        if on_bad not in {"raise", "skip"}:
            raise UsageError(f"{on_bad!r} is unknown", where="on_bad", hint=nearest(on_bad, ("raise", "skip")))
        self.path, self.transform, self.probabilities = str(path), transform, False
        self._weight = soft.WEIGHT
        self._located = locate(path, allow_partial=allow_partial, skip=on_bad == "skip", cache_bytes=cache_bytes)
        self.skipped: Mapping[str, int] = self._located.skipped if isinstance(self._located, Located) else {}
        if self.skipped:
            warnings.warn(f"{path}: shards with {sum(self.skipped.values()):,} images are left out: {printable(dict(self.skipped))}", stacklevel=2)
        self.classes: tuple[str, ...] = self._located.classes
        if per_epoch is not None and not (rotate and per_epoch >= 1):
            raise UsageError(f"{per_epoch} images an epoch", where="per_epoch", hint="a number from 1, with rotate=True")
        total, shards = len(self._located), max(1, self._located.shards)
        self._turns = Turns(total, per_epoch or -(-total // shards), "rotate", seed) if rotate else None
        self._head = b""
        if is_set(path):
            found = open_set(path, allow_partial=allow_partial)
            mark = found.plan.get("mark", "")
            self._head = encode.png_head(_shape(found), mark) if mark in ("", *encode.MARKS.values()) else b""

    @property
    def labels(self) -> np.ndarray:
        """int64 [N], index into `classes`; of a URL every shard is fetched for it the first time."""
        return self._located.labels

    def __len__(self) -> int:
        return len(self._located) if self._turns is None else len(self._turns)

    def soft(self, weight: float = soft.WEIGHT) -> ShardDataset:
        """Return the dataset with soft labels float32 [classes], which add up to 1, in place of labels; every byte is read for them once.

        They are between an image's class and the probabilities by the generator's filter, and what torch.nn.CrossEntropyLoss takes.

        Args:
            weight: of the filter's probabilities, 0 to 1; the class has the rest. The default is what `datagen evaluate` tries.

        Raises:
            InputError: there are no probabilities.
            ArtefactError: the set changed since it was opened.
            UsageError: it lies on an object store, or the weight is not from 0 to 1.
        """
        other = copy.copy(self)
        other._weight = soft.checked(weight)
        other._located, other.probabilities = locate(self.path, allow_partial=True, skip=bool(self.skipped), soft=True), True
        if not np.array_equal(other.labels, self.labels):
            raise ArtefactError("changed since it was opened", where=self.path, hint="open it again")
        return other

    def set_epoch(self, epoch: int) -> None:
        """Take the next images from now on, with `rotate`; loader workers that are kept alive hear of it."""
        if self._turns is not None:
            self._turns.set_epoch(epoch)

    def state_dict(self, seen: int = 0) -> dict[str, int]:
        """Return where an epoch of `rotate` stands after `seen` images were taken in order; UsageError for some without `rotate`."""
        if self._turns is not None:
            return self._turns.state_dict(seen)
        return self._unrotated({"epoch": 0, "seen": seen})

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Leave out the images of an epoch of `rotate` that were seen; UsageError for some without `rotate`."""
        if self._turns is not None:
            self._turns.load_state_dict(state)
        else:
            self._unrotated(state)

    def _unrotated(self, state: Mapping[str, int]) -> dict[str, int]:
        if state["seen"]:
            what = f"cannot go on after {state['seen']:,} images: their order is not of this dataset, but of your sampler"
            raise UsageError(what, where=self.path, hint="give rotate=True, or keep the sampler's state")
        return {"epoch": 0, "seen": 0}

    def share(self, rank: int, ranks: int, *, equal: bool = False) -> Share:
        """Return the part of one of several processes that train together; raises as `Share`."""
        return Share(self, rank, ranks, equal)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row = int(row) % len(self)
        row = row if self._turns is None else self._turns.row(row)
        content, label = self._located.content(row), self._label(row)
        if self.transform is None and self._head and encode.is_own_png(content, self._head) and (pixels := _own(content)) is not None:
            return pixels, label
        image = picture(content, self._located.name(row), self._located)
        return (self.transform(image), label) if self.transform is not None else (_tensor(image), label)

    def _label(self, row: int) -> Any:
        if self.probabilities:
            given = self._located.probabilities[None, row]  # type: ignore[union-attr,index]
            return torch.from_numpy(soft.labels(given, self.labels[[row]], self._weight)[0])
        return self._located.label(row)


class Share(Dataset[Any]):
    """What one of several processes takes of an epoch of a dataset: every `ranks`-th image, so that each image comes once.

    Args:
        data: the same in every process.
        rank: of this process, from 0.
        ranks: number of processes.
        equal: give every process as many images, as DistributedDataParallel wants it: `padded` images (less than `ranks`), the first
            ones, come twice.

    Raises:
        UsageError: there is no such process.
    """

    def __init__(self, data: ShardDataset, rank: int, ranks: int, equal: bool = False) -> None:
        if not 0 <= rank < ranks:
            raise UsageError(f"process {rank} of {ranks}", where="rank", hint="processes are counted from 0")
        self.data, self.classes, self.rank, self.ranks, self.equal = data, data.classes, rank, ranks, equal

    @property
    def padded(self) -> int:
        """Images of an epoch that come twice, over all processes."""
        return -len(self.data) % self.ranks if self.equal else 0

    def __len__(self) -> int:
        return len(range(self.rank, len(self.data) + self.padded, self.ranks))

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self.data[(self.rank + self.ranks * (place % len(self))) % len(self.data)]


def _shape(found: ShardSet) -> tuple[int, int, int]:
    channels, height, width = found.plan["shape"]
    return height, width, channels


def _own(content: bytes) -> torch.Tensor | None:
    """Return uint8 [C, H, W] of a PNG file of ours by OpenCV, in a third of Pillow's time; None where that is not installed or fails."""
    try:
        import cv2
    except ImportError:
        return None
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        return None
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)))


def _tensor(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class Loaded:
    """Labelled images in memory.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int64 [N], index into `classes`.
        classes: names in code-point order.
        manifest: of a set of shards, None for a labelled folder.
        names: FILE#ROW or FILE of each image, relative to the folder that was read.
        probabilities: float16 [N, classes] that a teacher gave, None where the shards have none.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    manifest: Mapping[str, Any] | None
    names: list[str]
    probabilities: np.ndarray | None = None


def load(path: str | Path, *, verify: bool = True, limit: int | None = None) -> Loaded:
    """Read a finished set of shards, or a labelled folder of images of one size, into memory.

    Args:
        path: the set or the folder.
        verify: compare every shard with its SHA-256 first.
        limit: at most so many images, equally many a class as far as they go: those with the lowest index.

    Raises:
        ArtefactError: the set is not finished or damaged, or an image cannot be decoded.
        InputError: no images, or images of different sizes.
    """
    return _load_set(open_set(path), verify, limit) if is_set(path) else _load_folder(path, limit)


def _load_set(found: ShardSet, verify: bool, limit: int | None) -> Loaded:
    shape = _shape(found)
    each = None if limit is None else -(-limit // len(found.classes))
    parts, labels, names, soft = [], [], [], []
    for note in found.notes:
        row = 0
        with whole(found, note) if verify else found.place.fetched(note.file) as path:
            for rows in found.format.read(path):
                keep = np.arange(len(rows.labels)) if each is None else np.flatnonzero(rows.indices < each)
                parts.append(decoded([rows.images[i] for i in keep.tolist()], shape, found.place.where(note.file)))
                labels.append(rows.labels[keep])
                names += _names(found, note.file, rows, row, keep)
                soft += [] if rows.probabilities is None else [rows.probabilities[keep]]
                row += len(rows.labels)
    numbers = np.concatenate(labels)
    images = np.empty((len(numbers), *shape), np.uint8)
    for place in np.cumsum([0, *map(len, labels)])[:-1].tolist():
        part = parts.pop(0)
        images[place : place + len(part)] = part
    if numbers.max(initial=0) >= len(found.classes):
        raise ArtefactError("has labels that are no class", where=str(found.place))
    probabilities = np.concatenate(soft)[:limit] if soft and sum(map(len, soft)) == len(images) else None
    return Loaded(images[:limit], numbers[:limit], found.classes, found.manifest, names[:limit], probabilities)


def _names(found: ShardSet, file: str, rows: Rows, first: int, keep: np.ndarray) -> list[str]:
    if isinstance(found.format, Folder):
        every = image_names(rows)
        return [every[i] for i in keep]
    return [f"{file}#{first + i}" for i in keep]


def decoded(contents: Sequence[bytes], shape: tuple[int, int, int], where: object) -> np.ndarray:
    """Return uint8 [N, H, W, C] of image files that all have one shape (H, W, C); ArtefactError where one has another."""
    if len(contents) and encode.decode(contents[0], where).shape != shape:
        raise ArtefactError(f"holds an image of another shape than {shape}", where=where)
    images = np.empty((len(contents), *shape), np.uint8)

    def piece(first: int) -> None:
        for i in range(first, min(first + PIECE, len(contents))):
            pixels = encode.decode(contents[i], where)
            if pixels.shape != shape:
                raise ArtefactError(f"holds an image of shape {pixels.shape}, not {shape}", where=where)
            images[i] = pixels

    with ThreadPoolExecutor(machine.processors()) as pool:
        list(pool.map(piece, range(0, len(contents), PIECE)))
    return images


def _load_folder(path: str | Path, limit: int | None) -> Loaded:
    located = locate(path)
    rows = np.arange(len(located.labels))
    if limit is not None:
        each = -(-limit // len(located.classes))
        place = rows - np.searchsorted(located.labels, located.labels)
        rows = rows[place < each][:limit]
    pixels = []
    for row in rows.tolist():
        image = np.asarray(picture(located.content(row), located.name(row), located))
        pixels.append(image[..., None] if image.ndim == 2 else image)
    shapes = {image.shape for image in pixels}
    if {shape[:2] for shape in shapes} != {pixels[0].shape[:2]}:
        raise InputError(f"has images of {len(shapes)} sizes", where=path, hint="bring them to one size, or use ShardDataset with a transform")
    if len(shapes) > 1:
        pixels = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in pixels]
    names = [located.name(row).removeprefix(located.root + "/") for row in rows.tolist()]
    return Loaded(np.stack(pixels), located.labels[rows], located.classes, None, names)
