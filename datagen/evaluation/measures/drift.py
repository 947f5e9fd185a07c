"""Whether synthetic images are darker, duller, paler or blurrier than real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from datagen.evaluation import statistics
from datagen.evaluation.experiment import Context
from datagen.evaluation.measures import drawing, wording
from datagen.recogniser.search import luma
from datagen.records import Finding

LIMIT = 10_000
BLOCK = 512
FEWEST = 20
SMALL = 0.1
"""standardised difference that is worth a word"""
EDGE = 32.0
"""grey levels a pixel from which on a pixel lies on an edge"""


def brightness(images: np.ndarray) -> np.ndarray:
    """Return float64 [N], the mean luma, 0 to 255, of images uint8 [N, H, W, C]."""
    found: np.ndarray = luma(images)[..., 0].mean((1, 2))
    return found


def contrast(images: np.ndarray) -> np.ndarray:
    """Return float64 [N], the standard deviation of the luma, 0 to 127.5 (Peli 1990, J. Opt. Soc. Am. A 7, eq. 2, without its division)."""
    found: np.ndarray = luma(images)[..., 0].std((1, 2))
    return found


def colourfulness(images: np.ndarray) -> np.ndarray:
    """Return float64 [N], at least 0 (109 is very colourful), of images uint8 [N, H, W, 3]; NaN for grey ones.

    sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2) with rg = R - G, yb = (R + G) / 2 - B (Hasler & Suesstrunk 2003,
    Proc. SPIE 5007, section 7).
    """
    if images.shape[3] < 3:
        return np.full(len(images), np.nan)
    red, green, blue = (images[..., i].astype(np.float64) for i in range(3))
    opponents = (red - green, (red + green) / 2 - blue)
    spread = np.sqrt(sum(part.var((1, 2)) for part in opponents))
    found: np.ndarray = spread + 0.3 * np.sqrt(sum(part.mean((1, 2)) ** 2 for part in opponents))
    return found


def sharpness(images: np.ndarray) -> np.ndarray:
    """Return float64 [N], log(1 + variance of the Laplacian of the luma) (Pech-Pacheco et al. 2000, ICPR, eq. 6), of images of 3x3 pixels at least.

    The Laplacian is the sum of the four neighbours minus four times the pixel; without the outermost pixels. The logarithm
    keeps a few very sharp images from ruling the mean.
    """
    y = luma(images)[..., 0]
    middle = y[:, 1:-1, 1:-1]
    around = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]
    found: np.ndarray = np.log1p((around - 4 * middle).var((1, 2)))
    return found


def edges(images: np.ndarray) -> np.ndarray:
    """Return float64 [N], the share of pixels, the outermost left out, where the luma changes by more than 32 grey levels a pixel (central differences)."""
    y = luma(images)[..., 0]
    down, right = (y[:, 2:, 1:-1] - y[:, :-2, 1:-1]) / 2, (y[:, 1:-1, 2:] - y[:, 1:-1, :-2]) / 2
    found: np.ndarray = (np.hypot(down, right) > EDGE).mean((1, 2))
    return found


STATISTICS: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], str, str]] = {
    "brightness": (brightness, "brighter", "darker"),
    "contrast": (contrast, "of more contrast", "of less contrast"),
    "colourfulness": (colourfulness, "more colourful", "paler"),
    "sharpness": (sharpness, "sharper", "blurrier"),
    "edges": (edges, "richer in edges", "poorer in edges"),
}
"""what is computed of each image, and what more and less of it is called"""

_KEYS = {
    "difference": "mean of the synthetic images minus that of unseen real ones, by the standard deviation of those, as many of each class from both",
    "difference.value": "in standard deviations; 0.2 is small, 0.8 large (Cohen 1988)",
    "difference.error": "its standard error",
    "difference.low": "lower end of its 95 % interval",
    "difference.high": "upper end",
    "floor": "the same of real training images",
    "floor.value": "in standard deviations",
    "floor.error": "its standard error",
    "floor.low": "lower end of its 95 % interval",
    "floor.high": "upper end",
    "synthetic": "mean of the synthetic images",
    "unseen": "mean of the unseen real images",
    "images": "on each side",
    "word": "which way: darker, blurrier and so on; null where no difference was seen",
    "departs": "whether the interval lies beyond 0.1 and beyond the floor by more than chance",
}


class Drift:
    """Brightness, contrast, colourfulness, sharpness and edges of synthetic images beside those of unseen real ones."""

    keys: Mapping[str, str] = wording.documented("drift_*", _KEYS)

    def measure(self, context: Context) -> Iterator[Finding]:
        """Yield "drift NAME" for each of `STATISTICS`: the difference of means by the real images' deviation (Glass 1976; Hedges 1981, J. Educ. Stat. 6)."""
        parts = {part: getattr(context, part).labels[context.rows(part, LIMIT)] for part in ("synthetic", "real", "test")}
        pairs = {part: drawing.shared(parts["test"], parts[part], LIMIT, context.seed) for part in ("synthetic", "real")}
        fewest = min(len(rows[0]) for rows in pairs.values())
        for name in STATISTICS:
            if fewest < FEWEST or min(context.test.images.shape[1:3]) < 3:
                yield wording.unmeasured(f"drift {name}", f"{fewest} images on each side, of 3x3 pixels at least, are too few", images=fewest)
            elif name == "colourfulness" and context.test.images.shape[3] < 3:
                yield wording.unmeasured(f"drift {name}", "grey images have no colour", images=fewest)
            else:
                yield _finding(context, name, pairs)


def _values(context: Context, part: str, rows: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    places = context.rows(part, LIMIT)[rows]
    images = getattr(context, part).images
    return np.concatenate([of(images[places[start : start + BLOCK]]) for start in range(0, len(places), BLOCK)])


def _finding(context: Context, name: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Finding:
    of, more, less = STATISTICS[name]
    values = {part: (_values(context, "test", rows[0], of), _values(context, part, rows[1], of)) for part, rows in pairs.items()}
    (value, error), (floor, floor_error) = (standardised(*values[part]) for part in ("synthetic", "real"))
    low, high = value - statistics.Z * error, value + statistics.Z * error
    apart = abs(value - floor) > statistics.Z * math.hypot(error, floor_error)
    departs = (low > SMALL or high < -SMALL) and apart
    word = (more if value > 0 else less) if departs else None
    unseen, made = (float(side.mean()) for side in values["synthetic"])
    text = f"Synthetic images are {word} than unseen real ones" if departs else f"Synthetic images differ little from unseen real ones in {name}"
    sentence = f"{text}: by {value:+.2f} standard deviations (95 % interval {low:+.2f} to {high:+.2f}; real training images {floor:+.2f})."
    details = {
        "difference": wording.around(value, error),
        "floor": wording.around(floor, floor_error),
        "synthetic": wording.number(made),
        "unseen": wording.number(unseen),
        "images": len(values["synthetic"][0]),
        "word": word,
        "departs": bool(departs),
    }
    return Finding(f"drift {name}", value, low, high, sentence.replace("-", "−"), details)


def standardised(base: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the mean of other [M] minus that of base [N], by the standard deviation of base, and its standard error.

    Glass's difference with the error of Hedges & Olkin 1985, p. 80, for unequal variances:
    sqrt(1/N + (s_M / s_N)^2 / M + d^2 / (2 (N - 1))). Where base does not vary, it is measured in units of 1e-6.
    """
    deviation = max(float(base.std(ddof=1)), 1e-6)
    value = float(other.mean() - base.mean()) / deviation
    ratio = float(other.var(ddof=1)) / deviation**2
    return value, math.sqrt(1 / len(base) + ratio / len(other) + value**2 / (2 * (len(base) - 1)))
