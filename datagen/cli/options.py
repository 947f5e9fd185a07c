"""The options of a verb, made from the fields of Recipe, and what one command line asked for."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from datagen.progress import Progress
from datagen.records import ANY, FIT, JUDGE, MAKE, NETS, READ, Recipe, Size, group_of

PANELS = {READ: "Reading images", FIT: "Training", MAKE: "Making images", JUDGE: "Judging", NETS: "Computing", ANY: "Computing"}
"""heading in a verb's help, by the group of a setting"""
GENERAL = "Settings and output"
METAVARS = {int: "N", float: "X", str: "TEXT"}


def _general(kind: Any, flag: str, help: str, metavar: str | None = None) -> Any:
    return Annotated[kind, typer.Option(flag, metavar=metavar, help=help, rich_help_panel=GENERAL)]


SWITCHES: Mapping[str, tuple[Any, Any]] = {
    "recipe": (_general(str | None, "--recipe", "settings to start from (datagen recipes lists them)", "NAME|FILE.toml"), None),
    "set": (_general(list[str] | None, "--set", "any setting of the recipe; repeatable", "KEY=VALUE"), None),
    "dry_run": (_general(bool, "--dry-run", "print what would be done, and do nothing"), False),
    "json": (_general(bool, "--json", "one JSON document on stdout instead of text"), False),
    "quiet": (_general(bool, "--quiet", "no progress on stderr, warnings and errors only"), False),
    "debug": (_general(bool, "--debug", "show the traceback of an error"), False),
}


class ByPanel(TyperCommand):
    """A command whose help shows its options under headings, those without one first."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, each under its heading."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (row := parameter.get_help_record(ctx)) is not None:
                heading = "Arguments" if parameter.param_type_name == "argument" else getattr(parameter, "rich_help_panel", None) or "Options"
                panels.setdefault(heading, []).append(row)
        for heading, rows in panels.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


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
        usual: settings that its help shows first, beside the verb's own arguments.
        without: switches that mean nothing to it.
        defaults: values of switches that differ from those of the other verbs.
        example: a command line that its help ends with.
    """

    run: Callable[..., Outcome]
    help: str
    groups: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    example: str = ""

    def settings(self) -> list[str]:
        """Return the keys of Recipe that are flags of this verb, those of its groups without the verb's own arguments."""
        own = inspect.signature(self.run).parameters
        wanted = {k for k, f in Recipe.model_fields.items() if group_of(f) in self.groups} | set(self.keys)
        return [k for k in Recipe.model_fields if k in wanted and k not in own]

    def signature(self) -> inspect.Signature:
        """Return the parameters that Typer sees: the verb's own, the flags of its settings, the switches."""
        own = list(inspect.signature(self.run, eval_str=True).parameters.values())[1:]
        groups = {key: group_of(Recipe.model_fields[key]) for key in self.settings()}
        rest = sorted((key for key in groups if key not in self.usual), key=lambda key: self.groups.index(groups[key]))
        flags = [*(_flag(key) for key in self.usual), *(_flag(key, PANELS[groups[key]]) for key in rest)]
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


def _flag(key: str, panel: str | None = None) -> inspect.Parameter:
    info = Recipe.model_fields[key]
    if info.annotation is bool:
        names = f"{flag_name(key)}/--no-{key.replace('_', '-')}"
        return _keyword(key, Annotated[bool | None, typer.Option(names, help=info.description, show_default=False, rich_help_panel=panel)], None)
    text = f"{info.description} (default {info.default})" if info.default is not None else info.description
    declared = typer.Option(flag_name(key), metavar=_metavar(key), help=text, show_default=False, rich_help_panel=panel)
    return _keyword(key, Annotated[str | None, declared], None)


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
