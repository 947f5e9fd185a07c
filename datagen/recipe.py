"""Settings from defaults, recipe files, the environment and flags, checked and merged into one Recipe."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datagen.errors import UsageError, nearest
from datagen.records import FIT, NETS, Recipe, group_of

ENVIRONMENT = "DATAGEN_"
WAYS = ("per_class", "count", "quota", "balance_with")
"""of saying how many images to make"""
EXCLUSIVE = (*itertools.combinations(WAYS, 2), ("images", "budget"), ("test", "holdout"), ("quick", "steps"), ("quick", "full"))
"""pairs of which one layer gives one only; the later layer's one replaces the earlier layer's other"""
NOT_SETTINGS = {"DATAGEN_CACHE", "DATAGEN_DEBUG", "DATAGEN_QUIET", "DATAGEN_JSON"}


def keys() -> dict[str, Any]:
    """Return every setting's pydantic field by name, in the order of Recipe."""
    return {name: field for name, field in Recipe.model_fields.items() if group_of(field)}


def allowed(key: str) -> str:
    """Return in words what a setting takes, such as "one of crop, pad, stretch" or "a whole number from 1"."""
    schema = Recipe.model_json_schema(mode="validation")["properties"][key]
    options = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    return " or ".join(_option(s) for s in options)


def _option(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "prefixItems" in schema:
        side = schema["prefixItems"][0]
        return f"a size from {side['minimum']} to {side['maximum']} pixels, such as 64 or 48x64"
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    low, high = (schema.get(k) for k in ("minimum", "maximum"))
    above = schema.get("exclusiveMinimum")
    words = [kind.get(str(schema.get("type")), str(schema.get("type")))]
    words += [f"above {above}"] if above is not None else [f"from {low}"] if low is not None else []
    words += [f"to {high:g}"] if high is not None and high < 10**8 else []
    *first, last = schema.get("examples", [""])
    return " ".join(words) + (f", such as {', '.join(first)} or {last}" if last else "")


def merge(*layers: tuple[str, Mapping[str, Any]]) -> Recipe:
    """Return the recipe of the layers, later ones winning; None in a layer means not given there.

    Args:
        layers: pairs of where the values come from (shown to the user) and the values by key.

    Raises:
        UsageError: an unknown key, a wrong type or a value out of range; names the key, where it stood, and what is allowed.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in layer.items():
            if key not in keys():
                raise UsageError(f"unknown key {key!r}", where=origin, hint=nearest(key, keys()))
            if value is not None:
                values[key], origins[key] = value, origin
        _settle(origin, {k: v for k, v in layer.items() if v is not None and v is not False}, values, origins)
    try:
        return _consistent(Recipe(**values, origins=origins))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        why = f" ({first['ctx']['error']})" if first["type"] == "value_error" else ""
        message = f"{key} = {values.get(key)!r} is not allowed{why}"
        origin = origins.get(key, "")
        raise UsageError(message, where="--" + key.replace("_", "-") if origin == "flag" else origin, hint=f"{key} takes {allowed(key)}") from error


def _settle(origin: str, layer: Mapping[str, Any], values: dict[str, Any], origins: dict[str, str]) -> None:
    for pair in EXCLUSIVE:
        given = [key for key in pair if key in layer]
        if len(given) == 2:
            first, second = (f"--{key} {layer[key]}" if origin == "flag" else f"{key} = {layer[key]}" for key in pair)
            raise UsageError(f"{first} and {second} contradict each other", where=origin.removeprefix("flag"), hint="give one of them")
        for other in set(pair) - set(given) if given else ():
            values.pop(other, None)
            origins.pop(other, None)


def _consistent(recipe: Recipe) -> Recipe:
    """Return the recipe, unless settings that are each allowed contradict each other."""
    for key, fixed in {"precision": "fp32", "layout": "contiguous"}.items():
        value = getattr(recipe, key)
        if recipe.deterministic and value not in {"auto", fixed}:
            raise UsageError(f"deterministic = true and {key} = {value} contradict each other", hint=f"give one of them; deterministic takes {fixed}")
    if recipe.group is not None:
        try:
            re.compile(recipe.group)
        except re.error as error:
            raise UsageError(
                f"group = {recipe.group!r} is no regular expression ({error})", hint="a column's name or a pattern such as (patient\\d+)_"
            ) from error
    return recipe


def builtin_folder() -> Path:
    """Return the folder of the recipes that come with datagen: inside the wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


def builtin() -> dict[str, Path]:
    """Return the recipes that come with datagen by name."""
    return {p.stem: p for p in sorted(builtin_folder().glob("*.toml"))}


def text(name: str) -> str:
    """Return the TOML text of a recipe by name or of a file; UsageError where there is none."""
    path = Path(name) if name.endswith(".toml") or os.sep in name else builtin().get(name)
    if path is None:
        raise UsageError(f"unknown recipe {name!r}", where="--recipe", hint=nearest(name, builtin()))
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(error.strerror or "cannot be read", where=path, hint="--recipe takes a name or a TOML file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"is not TOML: {error}", where=path) from error


def read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a recipe by name or from a TOML file; returns (settings, the table "about").

    Raises:
        UsageError: no such recipe or file, not TOML, or nested tables other than "about".
    """
    try:
        table = tomllib.loads(text(name))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not TOML: {error}", where=name) from error
    about = table.pop("about", {})
    return table, about


def environment(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the settings given as DATAGEN_KEY in the environment, text turned into the key's type where it can be.

    Raises:
        UsageError: a name is nearly a setting's, and none.
    """
    variables = os.environ if variables is None else variables
    found = {}
    for name, value in variables.items():
        if name.startswith(ENVIRONMENT) and name not in NOT_SETTINGS:
            key = name.removeprefix(ENVIRONMENT).lower()
            if key in keys():
                found[key] = value
            elif close := difflib.get_close_matches(key, keys(), n=1, cutoff=0.8):
                raise UsageError("is no setting", where=name, hint=f"did you mean {ENVIRONMENT}{close[0].upper()}?")
    return found


def assignments(pairs: list[str]) -> dict[str, Any]:
    """Turn `--set key=value` texts into settings; UsageError where the equals sign is missing."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"{pair!r} is not key=value", where="--set", hint="for example --set batch=64")
        found[key.strip().replace("-", "_")] = value.strip()
    return found


def gather(recipe: str | None = None, sets: list[str] | None = None, /, **flags: Any) -> Recipe:
    """Return the recipe of defaults, recipe file, environment, `--set` and flags, later ones winning; raises as `merge`."""
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if recipe is not None:
        layers.append((f"recipe {recipe}", read(recipe)[0]))
    layers.append(("environment", environment()))
    layers.append(("--set", assignments(sets or [])))
    layers.append(("flag", flags))
    return merge(*layers)


def fitting(shape: tuple[int, int, int], images: int, device: str) -> str | None:
    """Return the name of the built-in recipe whose "fits" (in its table "about") holds for some data, None where none does.

    Args:
        shape: channels, height, width in pixels.
        images: training images.
        device: cpu, cuda or mps.
    """
    facts: dict[str, Any] = {"pixels": shape[1] * shape[2], "channels": shape[0], "images": images, "device": device}
    for name in builtin():
        fits = read(name)[1].get("fits", {})
        if fits and all(_holds(facts[key], wanted) for key, wanted in fits.items()):
            return name
    return None


def _holds(fact: Any, wanted: Any) -> bool:
    """Return whether a fact equals what is wanted, or lies in the range [least, most]."""
    return bool(wanted[0] <= fact <= wanted[1]) if isinstance(wanted, list) else bool(fact == wanted)


def suited(made: Recipe, shape: tuple[int, int, int], images: int, device: str) -> Recipe:
    """Return the recipe with what is still at its default filled from the built-in recipe that fits the data, unless one was given.

    Only settings of the nets and their training are taken; how images are read and how long to train is left alone.
    """
    if any(origin.startswith("recipe ") for origin in made.origins.values()):
        return made
    name = fitting(shape, images, device)
    own = set(made.settings(FIT, NETS)) - {"images", "budget"}
    open_ = {k for k in own if made.origins.get(k, "default") == "default" and getattr(made, k) == Recipe.model_fields[k].default}
    fresh = {k: v for k, v in (read(name)[0] if name else {}).items() if k in open_}
    return made.changed(f"recipe {name}", **fresh)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return "key: OLD, now NEW" for each setting that differs between two `Recipe.settings()`."""
    return [f"{k}: {old[k]}, now {new[k]}" for k in new if k in old and old[k] != new[k]]
