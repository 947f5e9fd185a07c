"""The options of a verb, made from the fields of Recipe, and what one command line asked for."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from datagen.progress import Progress
from datagen.records import Recipe, Size, group_of

METAVARS = {int: "N", float: "X", str: "TEXT"}

SWITCHES: Mapping[str, tuple[Any, Any]] = {
    "recipe": (Annotated[str | None, typer.Option("--recipe", metavar="NAME|FILE.toml", help="settings to start from (datagen recipes lists them)")], None),
    "set": (Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any setting of the recipe; repeatable")], None),
    "json": (Annotated[bool, typer.Option("--json", help="one JSON document on stdout instead of text")], False),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="no progress on stderr, warnings and errors only")], False),
    "debug": (Annotated[bool, typer.Option("--debug", help="show the traceback of an error")], False),
    "dry_run": (Annotated[bool, typer.Option("--dry-run", help="print what would be done, and do nothing")], False),
}


@dataclass(frozen=True)
class Asked:
    """What one command line asked for.

    Attributes:
        recipe: all settings, checked.
        progress: where to say what is going on.
        dry_run: whether only the plan is wanted.
        json: whether stdout gets one JSON document.
    """

    recipe: Recipe
    progress: Progress
    dry_run: bool = False
    json: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a verb gives back.

    Attributes:
        value: the JSON document.
        text: the same for people, printed on stdout without --json.
        next: the next command to type, "" where there is none.
    """

    value: Mapping[str, Any]
    text: str
    next: str = ""


@dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Attributes:
        run: takes Asked and the verb's own arguments, returns Outcome.
        help: one line.
        groups: the groups of settings that the verb has flags for.
        keys: single settings beside those.
        without: switches that mean nothing to it.
        defaults: values of switches that differ from those of the other verbs.
    """

    run: Callable[..., Outcome]
    help: str
    groups: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> list[str]:
        """Return the keys of Recipe that are flags of this verb, those of its groups without the verb's own arguments."""
        own = inspect.signature(self.run).parameters
        wanted = {k for k, f in Recipe.model_fields.items() if group_of(f) in self.groups} | set(self.keys)
        return [k for k in Recipe.model_fields if k in wanted and k not in own]

    def signature(self) -> inspect.Signature:
        """Return the parameters that Typer sees: the verb's own, the flags of its settings, the switches."""
        own = list(inspect.signature(self.run, eval_str=True).parameters.values())[1:]
        flags = [_flag(key) for key in self.settings()]
        switches = [_keyword(name, kind, self.defaults.get(name, value)) for name, (kind, value) in SWITCHES.items() if name not in self.without]
        return inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags + switches)

    def command(self, perform: Callable[[Verb, dict[str, Any]], None]) -> Callable[..., None]:
        """Return the function that Typer calls; it hands what was given to `perform`."""

        def call(**given: Any) -> None:
            perform(self, given)

        call.__signature__ = self.signature()  # type: ignore[attr-defined]
        call.__annotations__ = {}
        call.__doc__ = self.help
        return call


def flag_name(key: str) -> str:
    """Return the flag of a setting: per_class is --per-class."""
    return "--" + key.replace("_", "-")


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag(key: str) -> inspect.Parameter:
    info = Recipe.model_fields[key]
    if info.annotation is bool:
        names = f"{flag_name(key)}/--no-{key.replace('_', '-')}"
        return _keyword(key, Annotated[bool | None, typer.Option(names, help=info.description, show_default=False)], None)
    text = f"{info.description} (default {info.default})" if info.default is not None else info.description
    return _keyword(key, Annotated[str | None, typer.Option(flag_name(key), metavar=_metavar(key), help=text, show_default=False)], None)


def _metavar(key: str) -> str:
    info = Recipe.model_fields[key]
    for option in _options(info.annotation):
        if get_origin(option) is Literal:
            return "|".join(map(str, get_args(option)))
        if option == get_args(Size)[0]:
            return "HxW"
        if option in METAVARS:
            return METAVARS[option]
    return "TEXT"


def _options(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _options(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _options(option)
    else:
        yield annotation
