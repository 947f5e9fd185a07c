"""The parts of README.md that are made from the code; `python tests/readme.py` writes them anew."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from typer.models import ArgumentInfo

from datagen import recipe, registry
from datagen.cli.app import VERBS
from datagen.cli.options import SWITCHES, Verb
from datagen.errors import EXIT_CODES
from datagen.records import group_of

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def sentence(module: Path) -> str:
    """Return the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]


def map_of_tree() -> str:
    """Return every package and module of datagen with its sentence, as one code block."""
    lines = []
    package = ROOT / "datagen"
    for path in sorted(package.rglob("*.py"), key=lambda p: (p.parent.relative_to(package).parts, p.name != "__init__.py", p.name)):
        parts = path.relative_to(package).parts
        depth, name = (len(parts) - 1, f"{path.parent.name}/") if path.name == "__init__.py" else (len(parts), path.name)
        lines.append(f"{'  ' * depth + name:30} {sentence(path)}")
    return "\n".join(["```", *lines, "```"])


def usage(name: str, verb: Verb) -> str:
    """Return a verb's own arguments and options as a code block; its settings are in the table of settings."""
    own, lines = [], []
    for parameter in verb.signature().parameters.values():
        if parameter.name not in {*verb.settings(), *SWITCHES}:
            lines.append(line(parameter.annotation))
            own += [lines[-1][0]] * (not lines[-1][0].startswith("-"))
    return "\n".join([f"**`{' '.join(['datagen', name, *own])}`** {verb.help}", "", *aligned(lines)])


def line(annotation: Any) -> tuple[str, str]:
    """Return an argument's or option's name with its metavar, and its help."""
    info = next(m for m in get_args(annotation) if hasattr(m, "param_decls"))
    flag = "" if isinstance(info, ArgumentInfo) else info.default if isinstance(info.default, str) else next(iter(info.param_decls))
    return " ".join(filter(None, [flag, info.metavar])), info.help


def aligned(lines: list[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in lines) + 2
    return ["```", *(f"{left:{width}}{text}" for left, text in lines), "```"]


def verbs() -> str:
    """Return the usage of every verb, then the switches that they share."""
    shared = ["**Switches** of every verb that they mean something to:", "", *aligned([line(kind) for kind, _ in SWITCHES.values()])]
    return "\n\n".join([*(usage(name, verb) for name, verb in VERBS.items()), "\n".join(shared)])


def settings() -> str:
    """Return the table of every setting of Recipe, group by group, with the verbs that have a flag for it."""
    parts = []
    for group in dict.fromkeys(group_of(f) for f in recipe.keys().values()):
        takers = [name for name, verb in VERBS.items() if group in verb.groups]
        parts += [f"*{group}* (flags of {', '.join(takers)})", "", "| key | takes | default | |", "| --- | --- | --- | --- |"]
        for key, field in recipe.keys().items():
            if group_of(field) == group:
                default = "–" if field.default is None else shown(field.default)
                parts.append(f"| `{key}` | {escaped(recipe.allowed(key))} | {default} | {escaped(field.description or '')} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def shown(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def exit_codes() -> str:
    """Return the table of exit codes."""
    return "\n".join(["| code | meaning |", "| --- | --- |", *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())])


def parts() -> str:
    """Return the table of every part by name."""
    rows = [f"| {registry.singular(kind)} | `{name}` | {row.help} |" for kind, table in registry.KINDS.items() for name, row in table.items()]
    return "\n".join(["| kind | name | |", "| --- | --- | --- |", *rows])


def recipes() -> str:
    """Return the table of recipes, each with what was measured where."""
    about = {name: recipe.read(name)[1] for name in recipe.builtin()}
    rows = [f"| `{name}` | {a['title']} | {a['suits']} | {a['measured']} |" for name, a in about.items()]
    return "\n".join(["| recipe | | suits | measured |", "| --- | --- | --- | --- |", *rows])


def report() -> str:
    """Return the table of what report.json holds."""
    from datagen.evaluation.report.schema import KEYS

    return "\n".join(["| key | |", "| --- | --- |", *(f"| `{key}` | {escaped(meaning)} |" for key, meaning in KEYS.items())])


SECTIONS: dict[str, Callable[[], str]] = {
    "map": map_of_tree,
    "verbs": verbs,
    "settings": settings,
    "exit-codes": exit_codes,
    "parts": parts,
    "recipes": recipes,
    "report": report,
}


def renewed(text: str) -> str:
    """Return the README's text with every marked section made anew; ValueError where a marker is missing."""
    for name, make in SECTIONS.items():
        start, end = f"<!-- {name}: made by tests/readme.py -->\n", f"\n<!-- /{name} -->"
        head, rest = text.split(start)
        _, tail = rest.split(end)
        text = head + start + make() + end + tail
    return text


def block(text: str, after: str, language: str = "python") -> str:
    """Return the first code block of a language after a heading or marker."""
    return text.split(after, 1)[1].split(f"```{language}\n", 1)[1].split("\n```", 1)[0] + "\n"


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")
