"""Random numbers that depend on names and counts alone: one counter-based stream for each thing that is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def digest(*parts: object) -> bytes:
    """Return the SHA-256 (32 bytes) of the parts; text, integers and bytes are length-prefixed, so no two lists collide."""
    return digest_of(parts)


def digest_of(parts: Iterable[object]) -> bytes:
    """Return the digest of parts that need not all be in memory."""
    state = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        state.update(type(part).__name__[:1].encode() + len(raw).to_bytes(8, "big") + raw)
    return state.digest()


def stream(*parts: object) -> np.random.Generator:
    """Return a generator keyed by the parts (Philox 4x64, Salmon et al. 2011): equal parts, equal numbers, anywhere."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest(*parts)[:16], "little")))


def integer(*parts: object) -> int:
    """Return an integer in [0, 2**63) that depends on the parts alone; it seeds torch."""
    return int.from_bytes(digest(*parts)[:8], "little") >> 1


def fraction(*parts: object) -> float:
    """Return a number in [0, 1) that depends on the parts alone."""
    return int.from_bytes(digest(*parts)[:8], "little") / 2**64


def image_noise(seed: int, class_name: str, index: int, attempt: int, size: int) -> np.ndarray:
    """Return the standard normal noise of one image, float32 [size]; it depends on the four keys alone, on every machine."""
    return stream("image", int(seed), class_name, int(index), int(attempt)).standard_normal(size, dtype=np.float32)
