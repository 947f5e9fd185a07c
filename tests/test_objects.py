"""W11: shards on an object store, each request failing in each way, and read back through a bounded cache."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import synthetic
from store_server import BUCKET, FAULTS, Proxy, client, objects, served
from torch.utils.data import DataLoader

import datagen
from datagen import objects as module
from datagen import storage
from datagen.cli.app import run as command_line
from datagen.errors import ArtefactError, DatagenError, OutputError, ResourceError, UsageError
from datagen.evaluation.inputs import Asked
from datagen.progress import Progress
from datagen.reading import remote
from datagen.reading.shards import load
from datagen.reading.verify import verify
from datagen.synthesis.export import export
from datagen.synthesis.run import synthesize

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def behind() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        keys(patch)
        with served() as port:
            yield port


def keys(patch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}.items():
        patch.setenv(f"AWS_{name}", value)


@pytest.fixture(scope="module")
def one_proxy(behind: int) -> Iterator[Proxy]:
    proxy = Proxy(behind)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(one_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """The store as the product sees it: impatient, and with a cache of its own."""
    keys(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{one_proxy.port}")
    monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "WAIT", 0.0)
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    monkeypatch.setitem(module.TIMEOUTS, "read_timeout", 1)
    one_proxy.reset()
    yield one_proxy
    assert "DELETE" not in {method for method, _ in one_proxy.requests}
    one_proxy.reset()


def url(path: Path) -> str:
    """Return a prefix of a test's own."""
    return f"s3://{BUCKET}/{path.parent.name}/{path.name}"


def prefix(url: str) -> str:
    return url.removeprefix(f"s3://{BUCKET}/")


def small(rule: str, out: str | Path, **settings: Any) -> dict[str, Any]:
    return synthesize(rule, out, **{"per_class": 2, "shard_images": 4, "workers": 1} | settings)


@pytest.mark.parametrize(("format", "workers"), [("parquet", 2), ("webdataset", 1)])
def test_a_store_gets_the_bytes_of_a_folder(tmp_path: Path, behind: int, proxy: Proxy, format: str, workers: int) -> None:
    rule, out = synthetic.rule(tmp_path), url(tmp_path)
    small(rule, tmp_path / "golden", format=format, per_class=70, shard_images=64)
    value = small(rule, out, format=format, per_class=70, shard_images=64, workers=workers)
    assert objects(behind, prefix(out)) == synthetic.tree(tmp_path / "golden")
    assert (value["out"], value["images"], value["finished"]) == (out, 350, False)
    proxy.reset()
    assert small(rule, out, format=format, per_class=70, shard_images=64)["finished"]
    assert {method for method, path in proxy.requests if not path.endswith("plan.json")} == {"GET", "HEAD"}
    assert not [path for _, path in proxy.requests if "list-type" in path], "no listing is trusted"
    with closing(client(behind)) as store:
        said = store.head_object(Bucket=BUCKET, Key=f"{prefix(out)}/manifest.json")["Metadata"]
    assert set(said) == {module.HASH, module.WRITER}


def sweep(tmp_path: Path, behind: int, proxy: Proxy, step: int, begun: bool) -> int:
    """Let request n fail in each way, once and from then on, in a new or a begun set; returns how many cases there were."""
    rule, number = synthetic.rule(tmp_path, classes=CLASSES), 0
    small(rule, tmp_path / "golden")
    golden = synthetic.tree(tmp_path / "golden")
    base = url(tmp_path)
    store = client(behind)

    def place(name: str) -> str:
        for key in ["data/train-00000-of-00002.parquet", ".datagen/notes/00000.json", ".datagen/plan.json"] if begun else []:
            store.put_object(Bucket=BUCKET, Key=f"{prefix(base)}-{name}/{key}", Body=golden[key], Metadata=stated(golden[key]))
        store.put_object(Bucket=BUCKET, Key=f"{prefix(base)}-{name}/data/theirs.txt", Body=b"not ours")
        return f"{base}-{name}"

    proxy.reset()
    small(rule, place("counted"))
    total, cases = len(proxy.requests), []
    assert total > 12
    for at in range(1, total + 1):
        cases += [(at, at, fault) for fault in FAULTS] + [(at, 10**6, fault) for fault in FAULTS if fault != "slow"]
    for at, last, fault in cases[::step]:
        out = place(str(number := number + 1))
        proxy.reset(fault, at, last)
        try:
            small(rule, out)
            ended = True
        except OutputError as error:
            ended = False
            assert len(error.line()) < 300
        proxy.reset()
        assert ended == (at == last), "one failure is survived, a store that stays away is not"
        small(rule, out)
        found = objects(behind, prefix(out))
        assert found.pop("data/theirs.txt") == b"not ours"
        assert found == golden, (at, last, fault)
        assert "DELETE" not in {method for method, _ in proxy.requests}
    store.close()
    return number


def stated(content: bytes) -> dict[str, str]:
    return {module.HASH: hashlib.sha256(content).hexdigest(), module.WRITER: "0" * 32}


@pytest.mark.parametrize("begun", [False, True])
def test_some_requests_fail(tmp_path: Path, behind: int, proxy: Proxy, begun: bool) -> None:
    assert sweep(tmp_path, behind, proxy, 29, begun) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True])
def test_every_request_fails_in_every_way(tmp_path: Path, behind: int, proxy: Proxy, begun: bool) -> None:
    assert sweep(tmp_path, behind, proxy, 1, begun) > 150


def refused(kind: type[DatagenError], words: str, rule: str, out: str, **settings: Any) -> None:
    with pytest.raises(kind, match=words) as caught:
        small(rule, out, **settings)
    assert len(caught.value.line()) < 300
    assert "\n" not in caught.value.line()


def test_what_is_there_already_is_left_as_it_is(tmp_path: Path, behind: int, proxy: Proxy) -> None:
    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    shard = "data/train-00001-of-00002.parquet"
    with closing(client(behind)) as store:
        store.put_object(Bucket=BUCKET, Key=f"{prefix(out)}/{shard}", Body=b"theirs")
    refused(OutputError, f"{shard}: is there already with other bytes; nothing was changed", rule, out)
    assert objects(behind, prefix(out))[shard] == b"theirs"
    refused(UsageError, "was begun with other settings", rule, out, per_class=3)
    with closing(client(behind)) as store:
        store.delete_object(Bucket=BUCKET, Key=f"{prefix(out)}/{shard}")
        small(rule, tmp_path / "golden")
        store.put_object(Bucket=BUCKET, Key=f"{prefix(out)}/{shard}", Body=synthetic.tree(tmp_path / "golden")[shard])
    assert small(rule, out)["continued"], "equal bytes count as ours, whoever put them there"
    golden = synthetic.tree(tmp_path / "golden")
    assert objects(behind, prefix(out)) == golden
    other = golden[shard][:-1] + b"?"
    with closing(client(behind)) as store:
        store.delete_object(Bucket=BUCKET, Key=f"{prefix(out)}/manifest.json")
        store.put_object(Bucket=BUCKET, Key=f"{prefix(out)}/{shard}", Body=other, Metadata=stated(other))
    refused(OutputError, f"{shard}: is there already with other bytes", rule, out)
    assert objects(behind, prefix(out)) == {name: content for name, content in golden.items() if name != "manifest.json"} | {shard: other}


def test_two_writers_of_one_set(tmp_path: Path, behind: int, proxy: Proxy) -> None:
    rule, out = synthetic.rule(tmp_path), url(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        values = [each.result() for each in [pool.submit(small, rule, out, per_class=70, shard_images=64) for _ in range(2)]]
    assert [value["images"] for value in values] == [350, 350]
    small(rule, tmp_path / "golden", per_class=70, shard_images=64)
    assert objects(behind, prefix(out)) == synthetic.tree(tmp_path / "golden")


@pytest.mark.slow
def test_kills_at_random_times(tmp_path: Path, behind: int, proxy: Proxy) -> None:
    rule, rng = synthetic.rule(tmp_path), random.Random(3)
    code = "import sys; from datagen.synthesis.run import synthesize; synthesize(*sys.argv[1:], per_class=70, shard_images=64, workers=1)"
    small(rule, tmp_path / "golden", per_class=70, shard_images=64)
    cut = 0
    for number in range(12):
        out = f"{url(tmp_path)}-{number}"
        process = subprocess.Popen([sys.executable, "-c", code, rule, out], env={**os.environ, "RULE_SLEEP": "0.002"})
        proxy.reset()
        until, wanted = time.monotonic() + 60, rng.randrange(1, 16)
        while len(proxy.requests) < wanted and time.monotonic() < until and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
        cut += "manifest.json" not in objects(behind, prefix(out))
        small(rule, out, per_class=70, shard_images=64)
        assert objects(behind, prefix(out)) == synthetic.tree(tmp_path / "golden")
    assert cut > 6


def test_refusals(tmp_path: Path, behind: int, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import s3fs

    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    refused(OutputError, "there is no such bucket", rule, "s3://nowhere/x")
    refused(UsageError, "no place for a file an image; --format parquet or webdataset", rule, out, format="folder")
    refused(UsageError, "gs:// is not known; s3://", rule, "gs://bucket/x")
    refused(UsageError, "names no bucket", rule, "s3:///x")
    with pytest.raises(OutputError, match="is a URL, a folder is needed"):
        small(rule, Path(out))
    for fault, words in ((403, "access is denied; s3:GetObject"), (501, "does not know conditional puts"), (503, "does not answer")):
        proxy.reset(fault, 1, 10**6, "PUT" if fault == 501 else "")
        refused(OutputError, words, rule, out)
    proxy.reset()
    assert objects(behind, prefix(out)) == {}
    for path in (out, "s3://nowhere/x"):
        with pytest.raises((ArtefactError, ResourceError), match=r"is no set of shards|no such bucket"):
            datagen.ShardDataset(path)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    refused(OutputError, "no credentials were found; set AWS_PROFILE", rule, out)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert command_line(["synthesize", rule, "--per-class", "2", "--out", out]) == 6
    assert capsys.readouterr().err == f"error: {out}: needs a package that is missing (s3fs); pip install 'datagen[s3]'\n"


def test_a_store_that_overwrites_is_refused(tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    monkeypatch.setattr(proxy, "strip", "if-none-match")
    refused(OutputError, "overwrites what is there: it does not hold conditional puts", rule, out)
    assert not [path for _, path in proxy.requests if "/data/" in path]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_reading_through_a_small_cache(tmp_path: Path, behind: int, proxy: Proxy, method: str) -> None:
    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    small(rule, out, per_class=70, shard_images=64)
    small(rule, tmp_path / "golden", per_class=70, shard_images=64)
    bound = 100_000
    data, local = datagen.ShardDataset(out, cache_bytes=bound), datagen.ShardDataset(tmp_path / "golden")
    packs = tmp_path / "cache" / "objects"
    assert not packs.exists(), "nothing is fetched before it is wanted"
    expected = [(image.tolist(), label) for image, label in local]
    for _ in range(2):
        assert [(image.tolist(), label) for image, label in data] == expected
        sizes = [path.stat().st_size for path in packs.glob("*.pack")]
        assert 0 < sum(sizes) <= bound
        assert len(sizes) < data._located.shards
    assert data.labels.tolist() == local.labels.tolist()
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=method)
    assert [(image.tolist(), label) for image, label in loader] == expected
    assert sum(path.stat().st_size for path in packs.glob("*.pack")) <= bound
    assert not [path for path in packs.iterdir() if path.name.startswith(storage.TEMPORARY)]
    with pytest.raises(UsageError, match="cache_bytes: a shard takes"):
        datagen.ShardDataset(out, cache_bytes=1000)[0]
    mixed = datagen.mix(tmp_path / "golden", out, ratio=0.5)
    assert (mixed.real, mixed.synthetic) == (210, 105)


def test_the_shard_used_longest_ago_goes_first(tmp_path: Path, proxy: Proxy) -> None:
    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    small(rule, out, per_class=64, shard_images=64)
    data = datagen.ShardDataset(out)
    for row in (0, 64, 128):
        assert data[row]
    found: Any = data._located
    packs = [found._pack(shard) for shard in range(3)]
    for age, pack in zip((30, 10, 20), packs, strict=True):
        os.utime(pack, (age, age))
    stale = packs[0].parent / f"{storage.TEMPORARY}dead"
    stale.write_bytes(b"half")
    os.utime(stale, (0, 0))
    found._bound = sum(pack.stat().st_size for pack in packs)
    found._make_room(1)
    assert [pack.exists() for pack in packs] == [True, False, True]
    assert not stale.exists()
    assert data[64], "a shard that was deleted is fetched again"
    assert remote.CACHE_BYTES > 10**9


@pytest.mark.parametrize("how", ["cut", "flipped", "missing"])
def test_damage_is_found_before_use(tmp_path: Path, behind: int, proxy: Proxy, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    small(rule, out)
    shard = "data/train-00000-of-00002.parquet"
    assert command_line(["describe", out, "--verify"]) == 0
    content = objects(behind, prefix(out))[shard]
    said = stated(content)
    with closing(client(behind)) as store:
        if how == "missing":
            store.delete_object(Bucket=BUCKET, Key=f"{prefix(out)}/{shard}")
        else:
            worse = content[:-1] if how == "cut" else content[:99] + bytes([content[99] ^ 1]) + content[100:]
            store.put_object(Bucket=BUCKET, Key=f"{prefix(out)}/{shard}", Body=worse, Metadata=said)
    words = "is missing" if how == "missing" else "differs from its SHA-256"
    with pytest.raises(ArtefactError, match=words):
        datagen.ShardDataset(out)[0]
    assert not list((tmp_path / "cache" / "objects").glob("*.pack"))
    assert verify(out) == [f"{shard}: {words}"]
    capsys.readouterr()
    assert command_line(["describe", out, "--verify", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["exit_code"] == 4


def test_a_set_goes_to_a_store_and_back(tmp_path: Path, behind: int, proxy: Proxy) -> None:
    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    small(rule, tmp_path / "golden")
    export(tmp_path / "golden", out, format="webdataset")
    small(rule, tmp_path / "tars", format="webdataset")
    assert objects(behind, prefix(out)) == synthetic.tree(tmp_path / "tars")
    export(out, tmp_path / "back", format="parquet")
    assert synthetic.tree(tmp_path / "back") == synthetic.tree(tmp_path / "golden")
    assert datagen.describe(out, verify=True, preview=tmp_path / "seen.png")["images"] == 6
    assert load(out).images.shape == (6, 8, 8, 3)
    assert Asked((out,)).written()["shards"] == {out: hashlib.sha256(objects(behind, prefix(out))["manifest.json"]).hexdigest()}


def test_a_reader_survives_what_a_store_does(tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    small(rule, out)
    expected = [(image.tolist(), label) for image, label in datagen.ShardDataset(out)]
    for number, (fault, last) in enumerate([("lost", 0), (503, 0), (412, 0), ("closed", 1), (500, 1)]):
        for at in (2, 4):
            monkeypatch.setenv("DATAGEN_CACHE", str(tmp_path / f"cache-{number}-{at}"))
            proxy.reset(fault, at, 10**6 if last else at)
            try:
                found = [(image.tolist(), label) for image, label in datagen.ShardDataset(out)]
                assert found == expected
            except ResourceError as error:
                assert last, error
                proxy.reset()
                assert [(image.tolist(), label) for image, label in datagen.ShardDataset(out)] == expected


def test_progress_says_what_was_looked_at(tmp_path: Path, behind: int, proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    rule, out = synthetic.rule(tmp_path, classes=CLASSES), url(tmp_path)
    small(rule, out)
    with closing(client(behind)) as store:
        for name in ("manifest.json", "data/train-00000-of-00002.parquet"):
            store.delete_object(Bucket=BUCKET, Key=f"{prefix(out)}/{name}")
    small(rule, out, progress=Progress())
    assert "continues: 1 of 2 shards are there, as the store states (describe --verify reads every byte)" in capsys.readouterr().err
    assert verify(out) == []
