"""The user's own training as judge: what its command is given, what it may answer, and how it ends when it must."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_recogniser import bars

from datagen.errors import DatagenError, InputError, ResourceError, UsageError
from datagen.evaluation import command
from datagen.evaluation.arms import Labelled
from datagen.progress import Progress

NEAREST_MEAN = """
import csv, os, sys
import numpy as np
from PIL import Image
train, test, predictions, seed = sys.argv[1:]
assert os.environ["DATAGEN_SEED"] == seed
read = lambda folder: {n: np.asarray(Image.open(os.path.join(folder, n)), float) for n in sorted(os.listdir(folder))}
means = {name: np.mean(list(read(os.path.join(train, name)).values()), axis=0) for name in sorted(os.listdir(train))}
print("classes", list(means))
with open(predictions, "w", newline="") as file:
    out = csv.writer(file)
    out.writerow(["file", "class"])
    for name, image in read(test).items():
        out.writerow([name, min(means, key=lambda c: ((means[c] - image) ** 2).sum())])
"""
ARGUMENTS = "{train} {test} {predictions} {seed}"
CLASSES = ("a", "b", "c")


def script(folder: Path, text: str, arguments: str = ARGUMENTS) -> str:
    """Write a script into a folder with a blank in its name and return the command that runs it."""
    file = folder / "my scripts" / "train.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(file))} {arguments}"


def parts(count: int = 30, channels: int = 1) -> tuple[list[Labelled], Labelled]:
    return [Labelled(*bars(count, channels=channels)), Labelled(*bars(12, channels=channels, seed=1))], Labelled(*bars(20, channels=channels, seed=2))


def answer(folder: Path, writes: str, names: tuple[str, ...] = CLASSES) -> np.ndarray:
    """Run a script of which only the way it answers differs; `out` is the path, `test` the folder, `files` its names."""
    text = f"import os, sys\ntrain, test, out = sys.argv[1:]\nfiles = sorted(os.listdir(test))\n{writes}\n"
    training, test = parts()
    return command.run(script(folder, text, "{train} {test} {predictions}"), training, test, names, seed=5, work=folder / "report")


def refused(kind: type[DatagenError], folder: Path, writes: str) -> str:
    (folder / "report").mkdir(exist_ok=True)
    with pytest.raises(kind) as caught:
        answer(folder, writes)
    assert caught.value.code == kind.code and "\n" not in caught.value.line() and len(caught.value.line()) <= 300
    return f"{caught.value.what}; {caught.value.hint}"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_script_that_learns_is_right(channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAGEN_SEED", "1")
    training, test = parts(channels=channels)
    before = dict(os.environ)
    found = command.run(script(tmp_path, NEAREST_MEAN), training, test, CLASSES, seed=3, work=tmp_path, progress=Progress(quiet=True))
    assert found.dtype == np.int64 and np.array_equal(found, test.labels)
    assert "classes ['a', 'b', 'c']" in (tmp_path / command.LOG).read_text()
    assert {p.name for p in tmp_path.iterdir()} == {command.LOG, "my scripts"}, "the images and the predictions are gone"
    assert dict(os.environ) == before


LISTS = """
import json, os, hashlib, sys
from PIL import Image
train, test, out, seed = sys.argv[1:]
pixels = lambda *p: Image.open(os.path.join(*p)).tobytes().hex()
said = {"train": {c: [pixels(train, c, f) for f in sorted(os.listdir(os.path.join(train, c)))] for c in sorted(os.listdir(train))}}
said |= {"test": {f: pixels(test, f) for f in sorted(os.listdir(test))}, "names": json.load(open(os.path.join(train, "..", "classes.json"))), "seed": seed}
print("SAID" + json.dumps(said))
first = sorted(said["names"])[0]
open(out, "w").write("class,file\\n" + "".join(first + "," + f + "\\n" for f in said["test"]))
"""


def test_it_gets_all_training_images_by_class_and_the_unseen_ones_shuffled_without_a_label(tmp_path: Path) -> None:
    training, test = parts()
    told = []
    for seed in (2**62 + 9, 2**62 + 9, 4):
        found = command.run(script(tmp_path, LISTS), training, test, CLASSES, seed=seed, work=tmp_path)
        assert not found.any()
        told.append(json.loads((tmp_path / command.LOG).read_text().partition("SAID")[2]))
    assert told[0] == told[1] and list(told[0]["test"].values()) != list(told[2]["test"].values())
    assert told[0]["seed"] == "9"
    for label, name in enumerate(CLASSES):
        wanted = [image.tobytes().hex() for part in training for image, mark in zip(part.images, part.labels, strict=True) if mark == label]
        assert sorted(told[0]["train"][name]) == sorted(wanted)
    assert list(told[0]["test"]) == [f"{i:06d}.png" for i in range(20)]
    rows = {image.tobytes().hex(): row for row, image in enumerate(test.images)}
    order = [rows[pixels] for pixels in told[0]["test"].values()]
    assert sorted(order) == list(range(20)) != order


def test_unsafe_class_names_get_safe_folders_and_either_may_be_answered(tmp_path: Path) -> None:
    names = ("../a", "b\udc80", 'c, "d"\n')
    training, test = parts()
    found = command.run(script(tmp_path, LISTS), training, test, names, seed=0, work=tmp_path)
    told = json.loads((tmp_path / command.LOG).read_text().partition("SAID")[2])
    assert told["names"] == {"0000_a": "../a", "0001_b": "b\udc80", "0002_c-d": 'c, "d"\n'}
    assert sorted(told["train"]) == sorted(told["names"]) and not found.any()
    (tmp_path / "report").mkdir()
    by_name = "import csv\nw = csv.writer(open(out, 'w', newline=''))\nw.writerow(['file', 'class'])\nfor f in files: w.writerow([f, 'c, \"d\"\\n'])"
    assert (answer(tmp_path, by_name, names) == 2).all()


ROWS = "open(out, 'w').write('file,class\\n' + ''.join(f + ',b\\n' for f in files)"


def test_what_counts_as_an_answer(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    parquet = "import pyarrow as pa, pyarrow.parquet as pq\npq.write_table(pa.table({'class': NAMES, 'file': files}), out)"
    numbers = parquet.replace("NAMES", "[1] * len(files)")
    for writes in (ROWS + ")", ROWS.replace("f + ',b", "os.path.join(test, f) + ',b") + ")", parquet.replace("NAMES", "['b'] * len(files)")):
        assert (answer(tmp_path, writes) == 1).all()
    assert (answer(tmp_path, numbers, ("0", "1", "2")) == 1).all()


def test_what_does_not_is_named_with_its_line(tmp_path: Path) -> None:
    more = ROWS + " + '{}')"
    assert "lacks 3 of 20 test images, first 000000.png" in refused(InputError, tmp_path, ROWS.replace("in files", "in files[3:]") + ")")
    assert "line 22 has '000000.png' again, first in line 2" in refused(InputError, tmp_path, more.format("000000.png,b"))
    assert "line 22 has the file 'x.png'" in refused(InputError, tmp_path, more.format("x.png,b"))
    assert "line 22 has 3 fields" in refused(InputError, tmp_path, more.format("000000.png,b,c"))
    assert "line 2 has the class 'B', which is none" in refused(InputError, tmp_path, ROWS.replace(",b", ",B") + ")")
    assert "line 1 is ',file,class'" in refused(InputError, tmp_path, ROWS.replace("'file", "',file") + ")")
    assert "line 1 is ''" in refused(InputError, tmp_path, "open(out, 'w')")
    assert "is no CSV" in refused(InputError, tmp_path, more.format('000000.png,"b'))
    assert "is not UTF-8" in refused(InputError, tmp_path, "open(out, 'wb').write(b'file,class\\n\\xff')")
    assert "is too large" in refused(InputError, tmp_path, "open(out, 'w').write('x' * 10**6)")
    assert "cannot be read as Parquet" in refused(InputError, tmp_path, "open(out, 'wb').write(b'PAR1nothing')")
    assert (tmp_path / "report" / command.PREDICTIONS).read_bytes() == b"PAR1nothing", "it stays to be looked at"
    pq.write_table(pa.table({"file": ["000000.png"], "class": [None]}), tmp_path / "null.parquet")
    assert "line 1 holds no text" in refused(InputError, tmp_path, f"import shutil; shutil.copy({str(tmp_path / 'null.parquet')!r}, out)")


def test_a_script_that_fails_is_quoted(tmp_path: Path) -> None:
    assert "ended with exit code 1: " in refused(ResourceError, tmp_path, "raise RuntimeError('no such layer')")
    assert "RuntimeError: no such layer" in refused(ResourceError, tmp_path, "raise RuntimeError('no such layer')")
    assert "exit code 7: out | err" in refused(ResourceError, tmp_path, "print('out', flush=True); print('err', file=sys.stderr); sys.exit(7)")
    assert "was killed by signal 9" in refused(ResourceError, tmp_path, "os.kill(os.getpid(), 9)")
    assert "without writing train-command-predictions.csv: forgot" in refused(ResourceError, tmp_path, "print('forgot')")
    assert [p.name for p in (tmp_path / "report").iterdir()] == [command.LOG], "what stays is the log of the last run"


def test_an_old_answer_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / command.PREDICTIONS).write_text("file,class\n" + "".join(f"{i:06d}.png,b\n" for i in range(20)))
    (report / command.FOLDER / "train" / "old").mkdir(parents=True)
    assert "without writing" in refused(ResourceError, tmp_path, "assert sorted(os.listdir(train)) == ['a', 'b', 'c']")


def test_wrong_commands_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    wrong = {
        "python t.py {train} {test}": "lacks {predictions}",
        "": "lacks {train}, {test}, {predictions}",
        "python t.py {train} {test} {predictoins}": "did you mean 'predictions'",
        "python t.py {train} {test} {predictions} {}": "unknown placeholder {}",
        "python 't.py {train} {test} {predictions}": "no closing quotation",
        "no-such-program-at-all {train} {test} {predictions}": "cannot be started",
    }
    training, test = parts()
    for text, said in wrong.items():
        with pytest.raises(UsageError) as caught:
            command.run(text, training, test, CLASSES, seed=0, work=tmp_path)
        assert said in caught.value.line() and caught.value.code == 2
        assert {p.name for p in tmp_path.iterdir()} <= {command.LOG}
    words = ["sh", "-c", "x {train} '{test}'", '--json={"lr": 1}', "{predictions}"]
    assert command.parse(shlex.join(words)) == words


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[4] + ".tmp", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[4] + ".tmp", sys.argv[4])
time.sleep(600)
"""
CALLER = """
import sys
from pathlib import Path
import numpy as np
from datagen.errors import DatagenError
from datagen.evaluation import command
from datagen.evaluation.arms import Labelled
command.PATIENCE = 0.5
part = Labelled(np.zeros((3, 8, 8, 1), np.uint8), np.arange(3))
try:
    command.run(sys.argv[1], [part], part, ("a", "b", "c"), seed=0, work=Path(sys.argv[2]))
except DatagenError as error:
    print(error.code)
except KeyboardInterrupt:
    print("interrupted")
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


@pytest.mark.parametrize(("number", "said"), [(signal.SIGTERM, "75\n"), (signal.SIGINT, "interrupted\n")])
def test_a_signal_ends_the_command_and_all_that_it_started(number: int, said: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    asked = script(tmp_path, STUBBORN, "{train} {test} {predictions} " + shlex.quote(str(pids)))
    caller = subprocess.Popen([sys.executable, "-c", CALLER, asked, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    while not pids.exists() and caller.poll() is None:
        time.sleep(0.05)
    started = [int(pid) for pid in pids.read_text().split()]
    assert all(map(alive, started))
    caller.send_signal(number)
    assert caller.communicate(timeout=60)[0] == said
    until = time.monotonic() + 30
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, started))
    assert not (tmp_path / command.FOLDER).exists()
