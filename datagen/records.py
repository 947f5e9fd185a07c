"""The eight frozen records that carry everything from one stage to the next."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1


def parse_size(value: Any) -> Any:
    """Turn 64, "64" or "48x64" (height x width) into (height, width) in pixels; anything else is returned for refusal."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d{1,5})(?:\s*[xX×]\s*(\d{1,5}))?\s*", value)):
        return (int(found[1]), int(found[2] or found[1]))
    return tuple(value) if isinstance(value, list) else value


def parse_count(value: Any) -> Any:
    """Turn "20k", "2M" or "1.5M" into a whole number; anything else is returned for refusal."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kKmMgG]?)\s*", value)):
        count = Decimal(found[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[found[2].lower()]
        return int(count) if count == int(count) else value
    return value


def parse_seconds(value: Any) -> Any:
    """Turn "90", "90s", "10m", "1h30m" or "2d" into seconds; anything else is returned for refusal."""
    if isinstance(value, str) and re.fullmatch(r"\s*(\d+(\.\d+)?\s*[smhd]\s*)+", value.lower()):
        units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
        return sum(float(n) * units[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)\s*([smhd])", value.lower()))
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value.strip())
    return value


Side = Annotated[int, Field(ge=8, le=1024)]
Size = Annotated[tuple[Side, Side], BeforeValidator(parse_size), PlainSerializer(lambda s: f"{s[0]}x{s[1]}")]
Count = Annotated[int, Field(ge=1, le=10**12, examples=["5000", "20k", "2M"]), BeforeValidator(parse_count)]
Seconds = Annotated[float, Field(ge=1, le=10**8, allow_inf_nan=False, examples=["90s", "10m", "1h30m"]), BeforeValidator(parse_seconds)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

ANY, READ, FIT, NETS, MAKE, JUDGE = "computing", "reading images", "fit", "fit and synthesize", "synthesize", "evaluate"


def setting(group: str, help: str, default: Any = None, **limits: Any) -> Any:
    """Declare one setting: its group (a verb, or what it is about), its help in one line, its default (None: planned)."""
    return Field(default, description=help, json_schema_extra={"group": group}, **limits)


AUGMENT = r"^(none|(translate|cutout|colour)(,(translate|cutout|colour))*)$"


class Recipe(BaseModel):
    """All settings, checked, with where each came from; None means planned from the data and the device."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)

    seed: int = setting(ANY, "everything random follows from it", 0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(ANY, "where to compute; auto takes CUDA where there is one", "auto")
    deterministic: bool = setting(ANY, "fp32 and fixed layout: equal bytes across machines of one kind", False)
    threads: int | None = setting(ANY, "compute threads; planned by a short timing", ge=1, le=1024)

    size: Size | None = setting(READ, "height x width in pixels (64 or 48x64); planned from the images, at most 64 a side")
    resize: Literal["crop", "pad", "stretch"] = setting(READ, "how another aspect is brought to the size", "crop")
    colour: Literal["auto", "rgb", "grey"] = setting(READ, "auto: grey where every image is grey", "auto")
    test: str | None = setting(READ, "labelled folder, CSV or Parquet of unseen test images")
    holdout: float = setting(READ, "share of the images kept as test where no test images are given", 0.15, ge=0, le=0.9, allow_inf_nan=False)
    group: str | None = setting(READ, "regular expression on the path, or a column: images of one group stay on one side of every split")
    on_conflict: Literal["refuse", "drop"] = setting(READ, "the same pixels under two classes or in train and test: refuse, or drop them", "refuse")
    drop_small: bool = setting(READ, "leave out classes with fewer than two images instead of refusing", False)
    strict_input: bool = setting(READ, "refuse the whole input at the first image that must be skipped", False)
    allow_synthetic: bool = setting(READ, "take images that say they are synthetic (AI mark, source column, our own shards) as real ones", False)
    verify_data: bool = setting(READ, "read every image anew, also where nothing about its file changed since the last scan", False)
    max_pixels: Count = setting(READ, "images with more pixels are skipped", 64_000_000)

    family: str = setting(FIT, "vae, cvae, gan, dcgan, or FILE.py:Class", "vae")
    images: Count | None = setting(FIT, "training images to show, counting repeats (2M); planned from the budget")
    budget: Seconds | None = setting(FIT, "time for the whole fit, scan to exit (10m, 1h30m)")
    sampling: Literal["balanced", "natural"] = setting(FIT, "balanced shows every class equally often; natural as the folder has them", "balanced")
    batch: int | None = setting(FIT, "images a step", ge=2, le=65536)
    learning_rate: Positive | None = setting(FIT, "step size of the optimiser at its peak", le=1)
    width: int | None = setting(FIT, "channels of the widest resolution", ge=4, le=2048)
    latent: int | None = setting(FIT, "numbers of noise or latent an image", ge=1, le=4096)
    beta: NotNegative | None = setting(FIT, "weight of the KL term of a VAE, 1 is the plain ELBO")
    texture: int | None = setting(FIT, "numbers of what vae's decoder leaves out of an image, drawn with its latent", ge=0, le=4096)
    prior: Literal["auto", "flow", "local"] = setting(FIT, "of vae's latents: a flow, or local Gaussians; auto: a flow on a GPU", "auto")
    gamma: NotNegative | None = setting(FIT, "weight of gan's R1 and R2 penalties")
    loss: Literal["non-saturating", "minimax"] = setting(FIT, "generator's loss of dcgan (Goodfellow et al. 2014)", "non-saturating")
    augment: str | None = setting(
        FIT,
        "of what the critics of gan and dcgan see: none, or some of translate,cutout,colour",
        pattern=AUGMENT,
    )
    flips: bool = setting(FIT, "mirror training images; only where mirrored images keep their label", False)
    half_life: Count | None = setting(FIT, "half-life of the moving average of the weights, in images")
    layout: Literal["auto", "contiguous", "channels-last"] = setting(FIT, "memory layout; auto: timed on this machine", "auto")
    checkpoint_every: Count | None = setting(FIT, "images between two checkpoints; planned: about one a minute")
    grid_every: Count | None = setting(FIT, "images between two sample grids; planned: about one a minute")

    precision: Literal["auto", "fp32", "bf16"] = setting(NETS, "auto: what fit timed as faster; synthesize on another kind of chip takes fp32", "auto")

    per_class: Count | None = setting(MAKE, "images of each class")
    count: Count | None = setting(MAKE, "images of all classes together, see proportions")
    proportions: Literal["balanced", "real"] = setting(MAKE, "how count is shared: evenly, or as the training images are", "balanced")
    quota: str | None = setting(MAKE, "JSON or CSV file of class and images")
    balance_with: str | None = setting(MAKE, "labelled folder, CSV or Parquet: makes what each class lacks to as many images as the largest has")
    classes: str | None = setting(MAKE, 'only these classes, divided by commas (those with commas in "quotes"); labels stay as they are')
    format: str = setting(MAKE, "parquet, webdataset or folder", "parquet")
    encoder: Literal["png", "jpeg"] = setting(MAKE, "png is lossless; jpeg (quality 95, 4:4:4) is smaller", "png")
    mark: bool = setting(MAKE, "say in every image file that it is synthetic (IPTC digital source type, in XMP)", True)
    license: str | None = setting(MAKE, "licence of the set for its card: an SPDX name or a URL; never guessed")
    origin: str | None = setting(MAKE, "what the real images were, for the card: a name or a URL; never guessed")
    report: str | None = setting(MAKE, "REPORT of an evaluation of this generator's images: its verdict goes into the card")
    shard_images: Count = setting(MAKE, "images a shard, about, in multiples of 64; orders below 80,000 images get smaller shards", 5_000)
    workers: int | None = setting(MAKE, "worker processes; planned from the processors", ge=1, le=256)
    engine: str = setting(MAKE, "local, ranks (RANK and WORLD_SIZE say which shards are this process's), or ray; auto: ranks under torchrun", "auto")
    mode: Literal["replace", "augment"] = setting(
        MAKE, "replace: to train on synthetic images alone; augment: beside the real ones (spread and confidence that fit chose for it)", "replace"
    )
    min_confidence: float | None = setting(MAKE, "least confidence of the filter in an image's label; planned: what fit chose", ge=0, le=0.999)
    keep_near_copies: bool = setting(MAKE, "take images that nearly repeat a training image, unchecked", False)
    reference: str | None = setting(MAKE, "RUN to take reference/ from, where generator/ was copied without it")
    spread: Positive | None = setting(MAKE, "scale of the noise, 1 is as trained; planned: what fit chose", le=10)
    guidance: NotNegative | None = setting(MAKE, "class guidance, 0 is none; planned: what fit chose", le=20)

    recogniser: str = setting(JUDGE, "small, a torchvision model's name, FILE.py:Class, or MODULE:FUNCTION", "small")
    weights: str | None = setting(JUDGE, "file of weights (.safetensors) that every arm begins with; its last linear layer may be of other classes")
    train_command: str | None = setting(JUDGE, 'your own training instead of the recogniser: "python train.py {train} {test} {predictions}", {seed} too')
    repeats: int | None = setting(JUDGE, "independent repeats of every arm; planned: 5 with fewer than 1,000 unseen images, else 3", ge=1, le=1000)
    steps: Count | None = setting(JUDGE, "optimisation steps of every arm; planned from the real set")
    judge_batch: int | None = setting(JUDGE, "images a step of the recogniser; planned: 32, 64 or 128 by the real images", ge=2, le=65536)
    judge_learning_rate: Positive | None = setting(JUDGE, "of the recogniser at its peak; chosen on validation", le=10)
    quick: bool = setting(JUDGE, "three repeats, a fifth of the steps (200 at least), nothing chosen; for a first look", False)
    full: bool = setting(JUDGE, "also sweep ratio and amount of synthetic images, and repeat the learning curve", False)
    labels: Literal["auto", "hard", "soft"] = setting(
        JUDGE, "soft: half the class, half the shards' probabilities; auto: soft for synthetic images alone, unless labels do better on validation", "auto"
    )
    focus: str | None = setting(JUDGE, "a class whose recall at equal false alarms is judged, and whether blur is its shortcut")
    replicates: bool = setting(JUDGE, "several SHARDS are fits of one recipe: judge them as one set, each repeat takes the next", False)
    features: str | None = setting(JUDGE, "MODULE:FUNCTION or FILE.py:FUNCTION: further features for the measures, from images uint8 [N, H, W, C]")
    share: bool = setting(JUDGE, "write the report without a single real pixel", False)
    fail_under: str | None = setting(JUDGE, "such as both-real>=0: exit 8 where the lower end of the interval is below")

    origins: Mapping[str, str] = Field(default_factory=dict, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: Any) -> Any:
        fields = cls.model_fields
        return {k: str(v) if isinstance(v, bool) and k in fields and fields[k].annotation is not bool else v for k, v in values.items()}

    def settings(self, *groups: str) -> dict[str, Any]:
        """Return the settings of the groups (all without an argument) as plain JSON values."""
        fields = type(self).model_fields
        chosen = {k for k, f in fields.items() if k != "origins" and (not groups or group_of(f) in groups)}
        return self.model_dump(mode="json", include=chosen)

    def planned(self, **values: Any) -> Recipe:
        """Return a recipe where values still None are filled by the plan, with the origin "plan"; others are left alone."""
        fresh = {k: v for k, v in values.items() if getattr(self, k) is None or (getattr(self, k) == "auto" and v is not None)}
        return self.changed("plan", **fresh)

    def changed(self, origin: str, **values: Any) -> Recipe:
        """Return a checked copy with other values, remembering where they came from."""
        known = {k: getattr(self, k) for k in type(self).model_fields if k != "origins"}
        return type(self)(**known | values, origins={**self.origins, **dict.fromkeys(values, origin)})


def group_of(info: Any) -> str:
    """Return the group that a field of Recipe was declared with, "" for fields that are no settings."""
    extra = info.json_schema_extra
    return extra.get("group", "") if isinstance(extra, dict) else ""


@dataclass(frozen=True)
class Dataset:
    """Labelled real images after the scan; no pixels.

    Attributes:
        root: folder or file that was read.
        paths: one a image, relative to its origin's root, "/" between parts; "FILE#ROW" for rows of Parquet.
        labels: int64 [N], index into `classes`.
        classes: names in code-point order.
        groups: one string an image, or None where nothing groups them.
        digests: uint8 [N, 16], from the SHA-256 of the upright pixels.
        sizes: int32 [N, 2], upright height and width in pixels.
        grey: whether all images have three equal channels or one.
        test: bool [N], True for images of the test folder; all False where none was given.
        fingerprint: hex, decided by the digests, labels and classes.
        roots: the folder or file of the training and of the test images ("" where none).
        problems: one mapping (file, problem, remedy) for each image that was skipped or needs a look.
        notes: sentences about the set to show before the work starts.
    """

    root: str
    paths: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None
    digests: np.ndarray
    sizes: np.ndarray
    grey: bool
    test: np.ndarray
    fingerprint: str
    roots: tuple[str, str] = ("", "")
    problems: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class GeneratorCard:
    """What a generator is and what made it; written beside its weights as card.json.

    Attributes:
        family: a registry name, or FILE.py:Class with its hash in `family_hash`.
        classes: names in the order of the labels.
        shape: channels, height, width in pixels.
        counts: training images of each class.
        images_seen: training images shown, counting repeats.
        settings: the recipe's values of the group "fit" that build the nets.
        chosen: what `fit` chose (spread, confidence, guidance, the precision of drawing) with its reason.
        data: fingerprint and counts of the training data; no path and no name of a file.
        hashes: SHA-256 of each file beside the card.
        noise: numbers of noise an image.
    """

    family: str
    family_hash: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    counts: tuple[int, ...]
    images_seen: int
    settings: Mapping[str, Any]
    chosen: Mapping[str, Any]
    data: Mapping[str, Any]
    hashes: Mapping[str, str]
    noise: int
    schema: int = SCHEMA
    version: str = ""


@dataclass(frozen=True)
class ShardTask:
    """One shard to make.

    Attributes:
        id: place in the plan, from 0.
        file: final name, relative to the output folder.
        tiles: (class index, first index, images wanted: 1 to 64) of each tile, in the order of computing.
        probe: whether these few images are only looked at, before any shard is begun.
    """

    id: int
    file: str
    tiles: tuple[tuple[int, int, int], ...]
    probe: bool = False


@dataclass(frozen=True)
class Batch:
    """Labelled images on their way into a shard.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        seeds: (seed, index, attempt) int64 [N, 3].
        scores: named float arrays [N], such as confidence and nearest_real; empty where nothing scored them.
        mask: uint8 [N, H, W] or None.
        boxes: float32 [N, 4] (left, top, right, bottom in pixels) or None.
    """

    images: np.ndarray
    labels: np.ndarray
    seeds: np.ndarray
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None


@dataclass(frozen=True)
class ShardNote:
    """The proof that a shard is whole; written after it, beside the plan.

    Attributes:
        id: the task's id.
        file: relative name.
        rows: images of each class by name.
        accepted: images accepted.
        tried: images computed.
        forced: images taken though no attempt was accepted.
        near_copies: images thrown away since they repeat a training image.
        bytes: size of the file (of all files in the folder format).
        sha256: of the file (in the folder format of the list of names and hashes).
        production: id of the production that it belongs to; "" in notes of datagen 0.1.0.
    """

    id: int
    file: str
    rows: Mapping[str, int]
    accepted: int
    tried: int
    forced: int
    bytes: int
    sha256: str
    near_copies: int = 0
    production: str = ""


@dataclass(frozen=True)
class ArmResult:
    """One recogniser trained on one arm, tested on the unseen real images.

    Attributes:
        arm: real, synthetic, both, or another arm's name.
        repeat: from 0.
        predicted: int64 [T], the class given to each test image.
        correct: bool [T].
        steps: optimisation steps taken.
        images: training images of the arm.
        seconds: wall time of training and testing.
        set: name of the synthetic set the arm is about, "" where all sets share it.
        loss: mean cross-entropy on the test images, nats.
        scores: float32 [T], probability of the class in focus; None without one.
        blurred: int64 [T], the class given to each test image once it is blurred; None without a class in focus.
    """

    arm: str
    repeat: int
    predicted: np.ndarray
    correct: np.ndarray
    steps: int
    images: int
    seconds: float
    set: str = ""
    loss: float = math.nan
    scores: np.ndarray | None = None
    blurred: np.ndarray | None = None


@dataclass(frozen=True)
class Finding:
    """One measured number with its interval and its meaning.

    Attributes:
        measure: the measure's name.
        estimate: the number; NaN where it could not be measured (the sentence says why).
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        sentence: what it means, in words.
        details: further JSON values of the measure.
    """

    measure: str
    estimate: float
    low: float = math.nan
    high: float = math.nan
    sentence: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
