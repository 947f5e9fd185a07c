"""Every file below a folder, without opening any and without following links out of it."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from datagen.errors import InputError
from datagen.pictures import looks_like_image
from datagen.sources.listing import Problem, problem

_TEXTS = ("txt", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "md", "rst", "html", "htm", "ini", "log", "toml", "cfg")
_PHONES = ("mov", "mp4", "m4v", "avi", "aae")
SIDECARS = frozenset((*_TEXTS, *_PHONES, "py", "ipynb", "db", "md5", "sha256", "url", "lnk"))
_DESKTOPS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", ".spotlight-v100", ".fseventsd")
_JUNK = frozenset((*_DESKTOPS, ".ipynb_checkpoints", ".git", ".svn", ".hg", ".cache", ".thumbnails", ".datagen"))
_JUNK_BEGINNINGS = ("._", ".trash", ".tmp-", ".nfs")

NAMES = 10_000


@dataclass
class Tree:
    """Everything below a folder: files and folders relative to it in code-point order, problems, and how many names were ignored.

    `outside` are the links to folders of images elsewhere, which are problems, too.
    """

    root: str
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    ignored: int = 0
    links: list[str] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)


def is_junk(name: str, *, folder: bool) -> bool:
    """Whether a name is of those that desktops, editors and version control leave behind; every dot file is."""
    low = name.casefold()
    return low in _JUNK or low.startswith(_JUNK_BEGINNINGS) or (not folder and name.startswith("."))


def walk(root: str) -> Tree:
    """List everything below a folder; nothing is opened, and what is no regular file becomes a problem.

    A link to something inside the folder is followed where it is not listed anyway (by device and inode); others are problems.

    Raises:
        InputError: the folder itself cannot be listed.
    """
    tree = Tree(os.path.realpath(root))
    try:
        os.scandir(tree.root).close()
    except OSError as error:
        raise InputError(f"cannot be listed ({error.strerror})", where=root, hint="check its permissions") from error
    _descend(tree, "")
    _drop_hidden(tree)
    if tree.links:
        _follow(tree)
    tree.files.sort()
    tree.folders.sort()
    return tree


def _drop_hidden(tree: Tree) -> None:
    """Take dot folders at the top out that hold no image by name: settings of programs, stores that links point to."""
    shown = {path.partition("/")[0] for path in tree.files if looks_like_image(path)}
    hidden = {name for name in tree.folders if name.startswith(".") and "/" not in name} - shown
    if hidden:
        gone = {os.stat(f"{tree.root}/{path}") for path in tree.folders if path.partition("/")[0] in hidden}
        tree.seen -= {(status.st_dev, status.st_ino) for status in gone}
        tree.files = [path for path in tree.files if path.partition("/")[0] not in hidden]
        tree.folders = [path for path in tree.folders if path.partition("/")[0] not in hidden]
        tree.ignored += len(hidden)


def _descend(tree: Tree, start: str) -> None:
    below = [start]
    while below:
        here = below.pop()
        path = f"{tree.root}/{here}"
        name = here.rstrip("/")
        try:
            status = os.stat(path)
            entries = list(os.scandir(path))
        except OSError as error:
            tree.folders.append(name)
            tree.problems.append(problem(name, f"folder cannot be listed ({error.strerror})", "check its permissions"))
            continue
        if (status.st_dev, status.st_ino) in tree.seen:
            tree.ignored += 1
            continue
        tree.seen.add((status.st_dev, status.st_ino))
        if here:
            tree.folders.append(name)
        below.extend(_sort_in(tree, here, entries))


def _sort_in(tree: Tree, here: str, entries: Sequence[os.DirEntry[str]]) -> Iterator[str]:
    for entry in entries:
        name = here + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_junk(entry.name, folder=is_folder):
            tree.ignored += 1
        elif is_folder:
            yield name + "/"
        elif entry.is_file(follow_symlinks=False):
            tree.files.append(name)
        elif entry.is_symlink():
            tree.links.append(name)
        else:
            tree.problems.append(problem(name, "is no regular file (pipe, socket or device)", "remove it"))


def _follow(tree: Tree) -> None:
    """Follow links in code-point order, each device and inode once; links found in linked folders are followed after them."""
    listed: set[tuple[int, int]] = set()
    for name in tree.files:
        _new(f"{tree.root}/{name}", listed)
    while tree.links:
        tree.links.sort(reverse=True)
        name = tree.links.pop()
        path = f"{tree.root}/{name}"
        try:
            status = os.stat(path)
        except OSError as error:
            tree.problems.append(problem(name, f"is a link that cannot be followed ({error.strerror})", "remove it"))
            continue
        if not inside(os.path.realpath(path), tree.root):
            if stat.S_ISDIR(status.st_mode) and _holds_images(path):
                tree.outside.append(name)
            tree.problems.append(problem(name, "is a link that leads out of the folder", "copy what it points to into the folder"))
        elif stat.S_ISDIR(status.st_mode):
            before = len(tree.files)
            _descend(tree, name + "/")
            tree.files[before:] = [n for n in tree.files[before:] if _new(f"{tree.root}/{n}", listed)]
        elif not stat.S_ISREG(status.st_mode):
            tree.problems.append(problem(name, "is a link to a pipe, socket or device", "remove it"))
        elif _new(path, listed):
            tree.files.append(name)
        else:
            tree.ignored += 1


def _holds_images(path: str) -> bool:
    """Whether a folder, or one below it, holds files that are called like images; so many names are looked at."""
    names = itertools.islice((name for _, _, names in os.walk(path) for name in names), NAMES)
    return any(map(looks_like_image, names))


def _new(path: str, listed: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return True
    before = len(listed)
    listed.add((status.st_dev, status.st_ino))
    return len(listed) > before


def inside(path: str, root: str) -> bool:
    """Whether a resolved path lies in a resolved folder or is it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
