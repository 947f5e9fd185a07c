"""W11: shards on an object store, each request failing in each way, and read back through a bounded cache."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import store_server
import synthetic
from store_server import BUCKET, FAULTS, Proxy, client, objects, served
from torch.utils.data import DataLoader

import datagen
from datagen import objects as module
from datagen import storage
from datagen.cli.app import run as command_line
from datagen.errors import ArtefactError, DatagenError, OutputError, ResourceError, UsageError
from datagen.progress import Progress
from datagen.reading import remote
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
        for key in (["data/train-00000-of-00002.parquet", ".datagen/notes/00000.json", ".datagen/plan.json"] if begun else []):
            store.put_object(Bucket=BUCKET, Key=f"{prefix(base)}-{name}/{key}", Body=golden[key], Metadata=stated(golden[key]))
        store.put_object(Bucket=BUCKET, Key=f"{prefix(base)}-{name}/data/theirs.txt", Body=b"not ours")
        return f"{base}-{name}"

    proxy.reset()
    small(rule, place("counted"))
    total, cases = len(proxy.requests), []
    assert total > 12
    for at in range(1, total + 1):
        cases += [(at, at, fault) for fault in FAULTS] + [(at, 10**6, fault) for fault in FAULTS if fault != "slow"]
    for at, last, fault in cases[:: step]:
        out = place(str(number := number + 1))
        proxy.reset(fault, at, last)
        try:
            small(rule, out)
            ended = True
        except OutputError as error:
            ended = False
            assert len(error.line()) < 300
        proxy.reset()
        assert ended or at <= last
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
    assert sweep(tmp_path, behind, proxy, 19, begun) >= 9


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True])
def test_every_request_fails_in_every_way(tmp_path: Path, behind: int, proxy: Proxy, begun: bool) -> None:
    assert sweep(tmp_path, behind, proxy, 1, begun) > 150
