"""The shape of the tree: who may import whom, how long a file may grow, what every docstring says, who may touch files."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "evaluation": {"sources", "reading", "recogniser"},
    "synthesis": {"formats", "reading", "recogniser", "sources"},
    "training": {"sources", "recogniser"},
    "generators": set(),
    "recogniser": set(),
    "rules": set(),
    "sources": set(),
    "reading": {"formats"},
    "formats": set(),
    "cli": {"evaluation", "synthesis", "training", "generators", "recogniser", "rules", "sources", "reading", "formats"},
    "__main__": {"cli"},
}
"""packages above the base by who may import them; a base module imports none"""
TORCH_AT_TOP = {"training", "evaluation", "generators", "recogniser", "reading"}
TOP_LEVEL = {"datagen", "recipes", "tests", "benchmarks"}
TOP_FILES = {"pyproject.toml", "README.md", "Makefile", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt"}
LINES, FUNCTION_LINES, ARGUMENTS, DEPTH = 400, 60, 8, 4

MODULES = sorted((ROOT / "datagen").rglob("*.py"))
FILES = sorted(itertools.chain(MODULES, (ROOT / "tests").rglob("*.py"), (ROOT / "benchmarks").rglob("*.py")))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT / "datagen").parts[0].removesuffix(".py")


def imports(tree: ast.Module, path: Path) -> Iterator[tuple[bool, str]]:
    """Yield (runs when the module is imported?, dotted name) for every import that is not for type checkers alone."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    for node, top in walk(tree, True):
        if isinstance(node, ast.Import):
            yield from ((top, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*(parts[: len(parts) - node.level] if node.level else []), *filter(None, [node.module])])
            yield from ((top, f"{base}.{alias.name}") for alias in node.names)


def walk(node: ast.AST, top: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child, top
        yield from walk(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports(path: Path) -> None:
    here, found = package_of(path), []
    for top, dotted in imports(tree_of(path), path):
        first, _, rest = dotted.partition(".")
        if top and first in {"torch", "torchvision"} and here not in TORCH_AT_TOP and name(path) != "datagen/synthesis/stream.py":
            found.append(f"imports {dotted} when it is imported")
        there = rest.split(".")[0]
        if first != "datagen" or there not in MAY_IMPORT or there == here:
            continue
        if there not in MAY_IMPORT.get(here, set()):
            found.append(f"{here} may not import {there} ({dotted})")
        if top and here == "cli":
            found.append(f"cli imports {dotted} outside a function")
    assert not found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_sizes(path: Path) -> None:
    tree = tree_of(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES
    for function in functions(tree):
        given = function.args
        count = len(given.posonlyargs + given.args + given.kwonlyargs) - (bool(given.args) and given.args[0].arg in {"self", "cls"})
        assert (function.end_lineno or 0) - function.lineno + 1 <= FUNCTION_LINES, function.name
        assert count <= ARGUMENTS, f"{function.name} has {count} arguments; pass a record"
        assert deepest(function.body) <= DEPTH, f"{function.name} nests deeper than {DEPTH}"


def deepest(body: list[ast.stmt]) -> int:
    """Return how deep blocks nest in a function's body; a chain of elif is one block, functions within count anew."""
    depth = 0
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        chain = isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)
        blocks = [getattr(node, part, None) or [] for part in ("body", "finalbody", *(() if chain else ("orelse",)))]
        blocks += [part.body for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]]
        depth = max(depth, *(1 + deepest(block) if block else 0 for block in blocks), deepest(node.orelse) if chain else 0)
    return depth


@pytest.mark.parametrize("path", FILES, ids=name)
def test_modules_say_what_they_are_in_one_sentence(path: Path) -> None:
    text = ast.get_docstring(tree_of(path))
    assert text, "no docstring"
    first = text.split("\n\n")[0]
    assert "\n" not in first, "the first sentence takes one line"
    assert first.rstrip()[-1] in ".:", "a sentence ends with a full stop"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_functions_say_what_they_do(path: Path) -> None:
    silent = []
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            silent += [node.name] * (not ast.get_docstring(node))
            members = node.body if isinstance(node, ast.ClassDef) else []
            public = [m for m in members if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
            silent += [f"{node.name}.{m.name}" for m in public if not ast.get_docstring(m) and m.name != "forward" and not contract(m.name)]
    assert not silent, "of a net's forward the class says the shapes"


def contract(method: str) -> bool:
    """Whether a method's shapes and errors are stated in contracts.py, where they hold for every part."""
    protocols = [node for node in tree_of(ROOT / "datagen" / "contracts.py").body if isinstance(node, ast.ClassDef)]
    return any(isinstance(m, ast.FunctionDef) and m.name == method for node in protocols for m in node.body)


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "torch.jit.load", "np.save", "pd.read_pickle"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_that_is_read_is_executed(path: Path) -> None:
    tree = tree_of(path)
    assert not {dotted.split(".")[0] for _, dotted in imports(tree, path)} & FORBIDDEN_MODULES
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {ast.unparse(call.func) for call in calls} & FORBIDDEN_CALLS
    for call in calls:
        pickles = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "allow_pickle"]
        assert pickles == ["False"] * (ast.unparse(call.func) in {"np.load", "numpy.load"} or bool(pickles)), ast.unparse(call)


WRITERS = {"write_text", "write_bytes", "touch", "mkdir", "makedirs", "rename", "renames", "unlink", "rmdir", "rmtree", "removedirs", "symlink_to"}
WRITERS |= {"hardlink_to", "copyfile", "copy2", "copytree", "move", "truncate", "fsync", "mkstemp", "mkdtemp", "save_file", "tofile"}
WRITERS |= {"NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "mkfifo"}
OS_WRITERS = {"os.replace", "os.remove", "os.link", "os.symlink", "os.write", "shutil.copy"}
MAY_WRITE = {
    "datagen/storage.py": "all writes",
    "datagen/objects.py": "all writes to object stores",
    "datagen/sources/cache.py": "the pixel cache's memory map",
}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_storage_writes_files(path: Path) -> None:
    if name(path) in MAY_WRITE:
        return
    found = [f"line {node.lineno}: {ast.unparse(node)[:80]}" for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call) and writes(node)]
    assert not found


def writes(call: ast.Call) -> bool:
    """Whether a call opens a file for writing, or moves, makes or deletes one."""
    function = ast.unparse(call.func)
    last = function.rsplit(".", 1)[-1]
    if function in OS_WRITERS or (last in WRITERS and not function.startswith(("storage.", "self."))):
        return True
    if function == "os.open":
        return bool(re.search("O_(WRONLY|RDWR|CREAT|APPEND|TRUNC)", ast.unparse(call))) and "devnull" not in ast.unparse(call)
    if function != "open" and last not in {"open", "memmap", "open_memmap", "NamedTemporaryFile", "ZipFile", "fdopen"}:
        return False
    if function.startswith(("Image.", "tarfile.", "storage.")):
        return False
    position = 1 if function in {"open", "io.open", "gzip.open", "os.fdopen"} else 0
    mode = next((k.value for k in call.keywords if k.arg == "mode"), call.args[position] if len(call.args) > position else None)
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(set(mode.value) & set("wax+"))


def test_the_top_level_holds_nothing_else() -> None:
    found = {p.name + ("/" if p.is_dir() else "") for p in ROOT.iterdir() if not p.name.startswith(".")}
    left_over = {"build/", "dist/", "tmp/", "quickstart/", "__pycache__/"} | {n for n in found if n.endswith(".egg-info/")}
    assert found - left_over <= {f"{n}/" for n in TOP_LEVEL} | TOP_FILES


def test_no_module_is_a_drawer() -> None:
    assert not {p.stem for p in MODULES} & {"utils", "util", "helpers", "common", "misc", "tools"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open('x', 'w')", True),
        ("open('x')", False),
        ("open('x', mode='ab')", True),
        ("p.open('xb')", True),
        ("p.open()", False),
        ("p.write_text('a')", True),
        ("os.replace(a, b)", True),
        ("name.replace('a', 'b')", False),
        ("np.memmap(p, mode='w+')", True),
        ("storage.remove(p)", False),
        ("Image.open(p)", False),
        ("os.open(p, os.O_RDONLY | os.O_NOFOLLOW)", False),
        ("os.open(p, os.O_RDONLY | os.O_CREAT)", True),
        ("shutil.rmtree(p)", True),
    ],
)
def test_the_check_for_writes_sees_them(code: str, expected: bool) -> None:
    call = ast.parse(code).body[0]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert writes(call.value) is expected


def test_the_check_for_depth_counts_blocks() -> None:
    body = ast.parse("for a in b:\n if a:\n  pass\n elif c:\n  with d:\n   pass\n else:\n  pass").body
    assert deepest(body) == 3
