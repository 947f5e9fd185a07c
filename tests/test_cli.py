"""The command line: help without heavy imports, errors on one line, exit codes, streams, signals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

import datagen
from datagen.cli import app
from datagen.cli.options import GENERAL, PANELS, SWITCHES, Outcome, Verb, flag_name
from datagen.errors import EXIT_CODES, LINE_LIMIT, FailedUnder, SafetyError
from datagen.records import Recipe, group_of

HEAVY = {"torch", "torchvision", "numpy", "pyarrow", "sklearn", "scipy", "pandas", "albumentations", "PIL", "rich", "jinja2", "tensorboard", "safetensors"}
Captured = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    return app.run([str(a) for a in arguments])


def refused(captured: Captured, *arguments: str) -> tuple[int, str]:
    """Run a command line that must fail; returns its exit code and its one line."""
    code = run(*arguments)
    err = captured.readouterr().err.splitlines()
    assert len(err) == 1, err
    assert err[0].startswith("error: ")
    assert len(err[0]) <= LINE_LIMIT
    return code, err[0]


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "datagen", *arguments], capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Outcome]], None]:
    """Return a function that puts another `run` behind `datagen recipes`; logs of faults go to `tmp_path`."""
    monkeypatch.setattr(app.tempfile, "gettempdir", lambda: str(tmp_path))

    def put(run: Callable[..., Outcome]) -> None:
        monkeypatch.setitem(app.VERBS, "recipes", Verb(run, "Stand in.", without=("recipe", "set", "dry_run")))

    return put


PROBE = """
import json, sys
from datagen.cli import app
code = app.run(sys.argv[1:])
print("\\n" + json.dumps([code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--version"], *([verb, "--help"] for verb in app.VERBS), ["recipes"], ["fit", "x", "--bach", "1"]], ids=" ".join
)
def test_help_and_refusals_load_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=60, check=True)
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == (2 if "--bach" in arguments else 0)
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_every_verb_is_in_the_help(capsys: Captured) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in app.VERBS)


@pytest.mark.parametrize("name", app.VERBS)
def test_the_help_of_a_verb_lists_its_options_with_the_words_of_the_recipe(name: str, capsys: Captured) -> None:
    assert run(name, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for key in app.VERBS[name].settings():
        assert flag_name(key) in text
        assert str(Recipe.model_fields[key].description) in text
    assert all(flag_name(switch) in text for switch in SWITCHES if switch not in app.VERBS[name].without)


@pytest.mark.parametrize("name", app.VERBS)
def test_the_help_of_a_verb_begins_with_what_is_usual_and_ends_with_an_example(name: str, capsys: Captured) -> None:
    verb = app.VERBS[name]
    assert run(name, "--help") == 0
    text = capsys.readouterr().out
    first, *others = re.split(r"\n(?=[A-Z][a-z ]+:\n)", text.split("\nOptions:\n")[1])
    assert set(verb.usual) <= set(verb.settings()) and all(f"  {flag_name(key)} " in first for key in verb.usual)
    rest = [key for key in verb.settings() if key not in verb.usual]
    assert not any(f"  {flag_name(key)} " in first for key in rest)
    headings = list(dict.fromkeys(PANELS[group] for group in verb.groups if any(group_of(Recipe.model_fields[key]) == group for key in rest)))
    assert [part.split(":")[0] for part in others] == [*headings, GENERAL]
    assert text.rstrip().endswith(f"Example: {verb.example}")
    program, called, *words = shlex.split(verb.example)
    assert (program, called) == ("datagen", name)
    assert all(f"  {word} " in text for word in words if word.startswith("--"))


def test_the_version(capsys: Captured) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"datagen {datagen.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fti"], ["unknown verb 'fti'", "did you mean 'fit'?"]),
        (["fit", "x", "--famly", "gan"], ["--famly", "did you mean '--family'?"]),
        (["--qiet"], ["--qiet"]),
        (["fit"], ["FOLDER", "datagen fit --help"]),
        (["fit", "x", "--batch"], ["--batch"]),
        (["fit", "x", "y"], ["y", "datagen fit --help"]),
        (["fit", "x", "--set", "bach=3"], ["--set", "unknown key 'bach'", "did you mean 'batch'?"]),
        (["fit", "x", "--set", "batch"], ["--set", "key=value"]),
        (["fit", "x", "--recipe", "digit"], ["unknown recipe 'digit'", "did you mean 'digits'?"]),
        (["fit", "x", "--recipe", "none.toml"], ["none.toml"]),
        (["fit", "x", "--batch", "1"], ["--batch", "a whole number from 2 to 65536"]),
        (["fit", "x", "--family", "gna"], ["unknown family 'gna'", "did you mean 'gan'?"]),
        (["synthesize", "x", "--format", "zip"], ["unknown format 'zip'", "webdataset"]),
        (["fit", "x", "--images", "2M", "--budget", "3m"], ["--images 2M", "--budget 3m", "contradict"]),
        (["fit", "x", "--test", "y", "--holdout", "0.2"], ["--test y", "--holdout 0.2", "contradict"]),
        (["evaluate", "x", "--quick", "--steps", "30"], ["quick", "--steps 30", "contradict"]),
        (["fit", "x", "--deterministic", "--precision", "bf16"], ["deterministic", "precision = bf16"]),
        (["fit", "x", "--group", "("], ["group", "regular expression"]),
        (["recipes", "none"], ["unknown recipe 'none'"]),
    ],
    ids=lambda v: " ".join(v) if v and not v[0][0].isupper() else "",
)
def test_a_wrong_command_line_is_exit_2_on_one_line(arguments: list[str], words: list[str], capsys: Captured) -> None:
    code, line = refused(capsys, *arguments)
    assert code == 2
    for word in words:
        assert word in line


BAD_VALUES = {"integer": ["nan", "1.5", "x", "-1", "1e999"], "number": ["nan", "inf", "x", "-1", "1e999"], "boolean": ["maybe", "2", "nan", "-1", "yess"]}
BAD_TEXT = {
    "size": ["7", "64x", "x64", "2000", "64x64x3"],
    "group": ["(", "[", "*", "(?P<a", "\\"],
    "augment": ["flip", "translate,", ",", "cutout;colour", "nonee"],
    "family": ["gna", "GAN", "", "dc-gan", "gan2"],
    "format": ["zip", "Parquet", "", "tar", "pq"],
    "engine": ["rays", "Local", "", "slurm", "torchrun"],
}
FREE_TEXT = {
    "report",
    "quota",
    "balance_with",
    "classes",
    "reference",
    "test",
    "recogniser",
    "weights",
    "train_command",
    "focus",
    "features",
    "fail_under",
    "license",
    "origin",
}


def bad_values(key: str) -> list[str]:
    if key in BAD_TEXT:
        return BAD_TEXT[key]
    schema = Recipe.model_json_schema()["properties"][key]
    option = next(s for s in schema.get("anyOf", [schema]) if s.get("type") != "null")
    return ["x", "", "AUTO", "1", "nan"] if "enum" in option else BAD_VALUES[option["type"]]


def test_every_setting_refuses_five_bad_values_at_once(capsys: Captured) -> None:
    """Row C1."""
    begun = time.monotonic()
    for key in set(Recipe().settings()) - FREE_TEXT:
        verb = "synthesize" if key in {"format", "engine"} else "fit"
        for value in bad_values(key):
            if (key, value) == ("family", "none.py:Mine/x"):
                continue
            code, line = refused(capsys, verb, "nowhere", "--set", f"{key}={value}")
            assert code == 2, (key, value)
            assert key in line, (key, value, line)
    assert time.monotonic() - begun < 60


def test_json_is_one_document_on_stdout(capsys: Captured) -> None:
    assert run("recipes", "--json") == 0
    out = capsys.readouterr()
    assert set(json.loads(out.out)) >= {"digits", "grey28", "colour32", "colour64"}
    assert run("fit", "x", "--batch", "1", "--json") == 2
    out = capsys.readouterr()
    document = json.loads(out.out)
    assert document["exit_code"] == 2
    assert document["error"]["where"] == "--batch"
    assert out.err.startswith("error: --batch")
    assert run("fit", "--json", "--bach", "1") == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_flags_win_over_set_environment_and_recipe(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, stand_in: Any) -> None:
    seen: list[Recipe] = []

    def note(asked: Any) -> Outcome:
        seen.append(asked.recipe)
        return Outcome({}, "")

    monkeypatch.setitem(app.VERBS, "recipes", Verb(note, "Stand in.", ("fit",)))
    file = tmp_path / "mine.toml"
    file.write_text("batch = 10\nwidth = 11\nlatent = 12\nbeta = 0.5\n[about]\ntitle = 'x'\n")
    monkeypatch.setenv("DATAGEN_WIDTH", "21")
    monkeypatch.setenv("DATAGEN_LATENT", "22")
    assert run("recipes", "--recipe", str(file), "--set", "latent=32", "--set", "batch=30", "--batch", "40") == 0
    recipe = seen[0]
    assert (recipe.beta, recipe.width, recipe.latent, recipe.batch) == (0.5, 21, 32, 40)
    assert [recipe.origins[k] for k in ("beta", "width", "latent", "batch")] == [f"recipe {file}", "environment", "--set", "flag"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SafetyError("leaked", where="a.png", hint="drop it"), 7, "a.png: leaked; drop it"),
        (FailedUnder("too low"), 8, "too low"),
        (MemoryError(), 6, "out of memory"),
        (KeyboardInterrupt(), 130, "the same command continues"),
        (ZeroDivisionError("deep\ninside \x1b[31m"), 1, "deep\\ninside \\x1b[31m"),
    ],
)
def test_what_goes_wrong_has_its_exit_code(error: BaseException, code: int, words: str, capsys: Captured, stand_in: Any) -> None:
    def fail(asked: Any) -> Outcome:
        raise error

    stand_in(fail)
    got, line = refused(capsys, "recipes")
    assert got == code
    assert got in EXIT_CODES
    assert words in line


def test_a_fault_of_ours_leaves_a_log_with_the_traceback(tmp_path: Path, capsys: Captured, stand_in: Any) -> None:
    def fail(asked: Any, out: str = "") -> Outcome:
        with asked.progress.stage("working", 1):
            raise ZeroDivisionError("deep inside")

    stand_in(fail)
    assert run("recipes") == 1
    (log,) = tmp_path.glob("*.log")
    assert str(log) in capsys.readouterr().err
    assert "ZeroDivisionError: deep inside" in log.read_text()
    assert run("recipes", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_exit_code_is_in_status_json_of_a_folder_that_was_begun(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(asked: Any, out: str) -> Outcome:
        if out.endswith("ours"):
            asked.progress.folder = out
            with asked.progress.stage("working", 1):
                raise SafetyError("stop here")
        raise SafetyError("not ours")

    def verb(asked: Any, out: Annotated[str, typer.Option("--out")]) -> Outcome:
        return work(asked, out)

    monkeypatch.setitem(app.VERBS, "recipes", Verb(verb, "Stand in.", without=("recipe", "set", "dry_run")))
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        assert run("recipes", "--out", str(tmp_path / name)) == 7
    assert json.loads((tmp_path / "ours" / "status.json").read_text())["exit_code"] == 7
    assert not list((tmp_path / "theirs").iterdir()), "a folder that was refused is left as it is"


def test_results_go_to_stdout_and_the_next_command_to_stderr(capsys: Captured, stand_in: Any) -> None:
    stand_in(lambda asked: Outcome({"a": 1}, "a 1", "datagen more"))
    assert run("recipes") == 0
    out = capsys.readouterr()
    assert (out.out, out.err) == ("a 1\n", "next: datagen more\n")
    assert run("recipes", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m datagen recipes --json | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.replace("next: datagen recipes NAME\n", "")) == (0, "")


@pytest.mark.parametrize("language", ["C", "POSIX", ""])
def test_plain_languages_and_no_terminal(language: str, tmp_path: Path) -> None:
    environment = os.environ | {"LANG": language, "LC_ALL": language, "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "ascii"}
    done = program("fit", "不在\x1b[31m", cwd=tmp_path, env=environment)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert "\x1b" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


WAIT = """
import sys, time
from datagen.cli import app
from datagen.cli.options import Outcome, Verb
def wait(asked):
    print("ready", flush=True)
    time.sleep(30)
app.VERBS["recipes"] = Verb(wait, "Wait.", without=("recipe", "set", "dry_run"))
sys.exit(app.run(["recipes"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_signals_have_their_exit_codes(number: int, code: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == code
        assert process.stderr.read().count("\n") == 1


def test_a_missing_gpu_is_exit_6_at_once(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row C5."""
    monkeypatch.setattr("datagen.machine.DRIVERS", ())
    begun = time.monotonic()
    code, line = refused(capsys, "fit", "x", "--device", "cuda")
    assert code == 6
    assert "--device auto" in line
    assert time.monotonic() - begun < 2


def test_windows_is_refused_in_one_sentence(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.sys, "platform", "win32")
    assert refused(capsys, "recipes") == (6, "error: Windows is not supported; use datagen inside WSL 2")


def test_the_program_is_the_module(tmp_path: Path) -> None:
    done = program("recipes", "digits", cwd=tmp_path)
    assert done.returncode == 0
    assert "[about]" in done.stdout
