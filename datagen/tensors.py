"""Tensors in files that others may have made: the header of safetensors is checked whole before memory is asked for."""

from __future__ import annotations

import json
import math
from typing import Any

from datagen.errors import ArtefactError

HEADER = 16 << 20
"""bytes that a header may have"""
COMMAS = 400_000
"""and commas in it: some 50,000 tensors"""
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""bytes of a number by its type; others are none of ours"""
DIMENSIONS = 8


def shapes(content: bytes, where: object) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file; its tensors lie side by side, without holes, overlap or rest.

    Args:
        content: the whole file.
        where: named by errors.

    Raises:
        ArtefactError: the file is no safetensors, or its header is larger than 16 MB, names a tensor twice or contradicts itself.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or 8 + min(size, HEADER) > len(content) or size > HEADER:
        raise ArtefactError("is cut, or is not safetensors" if size <= HEADER else "has too large a header, or is not safetensors", where=where)
    try:
        found = _tensors(content[8 : 8 + size])
        ends, shaped = [], {}
        for name, value in found.items():
            kind, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
            whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
            if len(value) != 3 or len(shape) > DIMENSIONS or not whole or end - begin != WIDTHS[kind] * math.prod(shape):
                raise ValueError(name)
            ends.append((begin, end))
            shaped[name] = shape
        ends.sort()
        if [begin for begin, _ in ends] != [0, *(end for _, end in ends)][: len(ends)] or max((end for _, end in ends), default=0) != len(content) - 8 - size:
            raise ValueError("holes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtefactError("is not safetensors, or its header contradicts itself", where=where) from error
    return shaped


def _tensors(header: bytes) -> dict[str, Any]:
    if header.count(b",") > COMMAS:
        raise ValueError("too many tensors")
    value = json.loads(header, object_pairs_hook=_once)
    said = value.pop("__metadata__", {})
    if not all(isinstance(text, str) for text in said.values()):
        raise ValueError("metadata")
    return dict(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def loaded(content: bytes, where: object) -> dict[str, Any]:
    """Return the torch tensors of a safetensors file by name; raises as `shapes`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    shapes(content, where)
    try:
        return load(content)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ArtefactError("is not safetensors", where=where) from error
