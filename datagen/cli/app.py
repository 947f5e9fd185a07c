"""The verbs of the command line, their errors on one line and their exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import datagen
from datagen import machine, ranks, registry, storage
from datagen import recipe as recipes
from datagen.cli import describe, evaluate, export, fit, quickstart, synthesize
from datagen.cli import recipes as recipes_verb
from datagen.cli.options import SWITCHES, Asked, ByPanel, Outcome, Verb
from datagen.errors import DatagenError, ResourceError, Stopped, UsageError, nearest
from datagen.progress import Progress
from datagen.records import Recipe

VERBS: dict[str, Verb] = {
    "fit": fit.VERB,
    "synthesize": synthesize.VERB,
    "evaluate": evaluate.VERB,
    "describe": describe.VERB,
    "export": export.VERB,
    "quickstart": quickstart.VERB,
    "recipes": recipes_verb.VERB,
}

WIDTH = 100
"""characters of a line of help at most"""

CommandLineError: Any = typer.BadParameter.__base__


class Terminated(KeyboardInterrupt):
    """SIGTERM outside a loop that has its own way to stop."""


class _Verbs(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(f"unknown verb {args[0]!r}", hint=nearest(args[0], self.commands))
        return super().resolve_command(ctx, args)


def application() -> typer.Typer:
    """Return the Typer application with every verb."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}
    made = typer.Typer(name="datagen", cls=_Verbs, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=settings)

    @made.callback(invoke_without_command=True, help=datagen.__doc__)
    def _root(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
        if version:
            print(f"datagen {datagen.__version__}")
            raise typer.Exit()
        if context.invoked_subcommand is None:
            print(context.get_help())

    for name, verb in VERBS.items():
        made.command(name, cls=ByPanel, help=verb.help, epilog=f"Example: {verb.example}" if verb.example else None)(verb.command(_perform))
    return made


def main() -> None:
    """Run the command line of this process and leave with its exit code.

    Threads that wait for each other give their processor away soon: on a busy machine that is several times faster. Memory that
    is freed is kept for the next step.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    machine.keep_memory()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; prints results on stdout, progress and errors on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.platform == "win32":
        return _fail(ResourceError("Windows is not supported", hint="use datagen inside WSL 2"), json_wanted="--json" in arguments)
    try:
        with _sigterm():
            code = typer.main.get_command(application()).main(arguments, prog_name="datagen", standalone_mode=False)
        return int(code or 0)
    except CommandLineError as error:
        return _fail(_usage(error), json_wanted="--json" in arguments)
    except DatagenError as error:
        return _fail(error, json_wanted="--json" in arguments)


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _usage(error: Any) -> UsageError:
    """Return Typer's complaint in our form, with the nearest known option."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", "")
    verb = context.info_name if context is not None and context.parent is not None else ""
    hint = f"datagen {verb} --help".replace("  ", " ") + " lists the options"
    if option and type(error).__name__ == "NoSuchOption" and context is not None:
        known = [name for parameter in context.command.params for name in parameter.opts + parameter.secondary_opts if name.startswith("--")]
        return UsageError(f"unknown option {option}", where=verb, hint=nearest(option, known))
    return UsageError(" ".join(error.format_message().split()).rstrip("."), where=verb, hint=hint)


def _perform(verb: Verb, given: dict[str, Any]) -> None:
    switches = {name: given.pop(name, None) for name in SWITCHES}
    flags = {key: given.pop(key) for key in verb.settings()}
    progress = Progress(quiet=bool(switches["quiet"]) or ranks.rank() > 0)
    try:
        settings = recipes.gather(switches["recipe"], switches["set"], **flags)
        _check(verb, settings)
        asked = Asked(settings, progress, bool(switches["dry_run"]), bool(switches["json"]))
        outcome = verb.run(asked, **given)
        code = 0
    except BaseException as error:
        code = _fail(_known(error, progress), json_wanted=bool(switches["json"]), debug=bool(switches["debug"]))
        outcome = None
    with contextlib.suppress(DatagenError):
        progress.status(exit_code=code)
    if outcome is not None and not ranks.rank():
        _show(outcome, asked)
    raise typer.Exit(code)


def _check(verb: Verb, settings: Recipe) -> None:
    """Refuse unknown parts and missing devices before anything heavy is imported."""
    for key, kind in {"family": "families", "format": "formats"}.items():
        if key in verb.settings():
            registry.check(kind, getattr(settings, key))
    if settings.device not in {"auto", "cpu"}:
        machine.device(settings.device)


def _known(error: BaseException, progress: Progress) -> DatagenError:
    """Return the error a user can act on; an unknown one is written to a log file that the message names."""
    again = "the same command continues"
    if isinstance(error, DatagenError):
        return error
    if isinstance(error, Terminated):
        return Stopped("stopped by SIGTERM", hint=again)
    if isinstance(error, KeyboardInterrupt):
        return Stopped("stopped by Ctrl-C", hint=again, interrupted=True)
    if isinstance(error, MemoryError) or _of_memory(error):
        return ResourceError("out of memory", hint="a smaller --batch (evaluate: --judge-batch), --size or --workers needs less")
    return DatagenError(f"a fault of datagen: {type(error).__name__}: {error}", hint=f"please report it with {_log(progress)}")


def _of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, a GPU's or the processor's."""
    torch = sys.modules.get("torch")
    ours = torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)
    return ours or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _log(progress: Progress) -> Path:
    traced = traceback.format_exc().replace(str(Path.home()), "~") if Path.home() != Path("/") else traceback.format_exc()
    content = f"datagen {datagen.__version__}, Python {sys.version}\n\n{traced}".encode("utf-8", "backslashreplace")
    name = f"{storage.FAULT}{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in [*([progress.folder] if progress.started and progress.folder else []), Path(tempfile.gettempdir())]:
        with contextlib.suppress(DatagenError):
            storage.create(folder / name, content)
            return folder / name
    return Path("--debug")


def _fail(error: DatagenError, *, json_wanted: bool = False, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {error.line()}", file=sys.stderr, flush=True)
    if json_wanted:
        document = {"error": {"what": error.what, "where": error.where, "hint": error.hint}, "exit_code": error.code}
        print(json.dumps(document, indent=1), flush=True)
    return error.code


def _show(outcome: Outcome, asked: Asked) -> None:
    try:
        print(json.dumps(outcome.value, indent=1) if asked.json else outcome.text, flush=True)
    except BrokenPipeError:
        _silence(sys.stdout)
    if outcome.next:
        asked.progress.say(f"next: {outcome.next}")


def _silence(stream: Any) -> None:
    """Point a stream whose reader has gone at nothing, so that the interpreter's last flush is quiet."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    main()
