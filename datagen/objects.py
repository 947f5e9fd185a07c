"""A prefix of an S3 store as a place: one conditional put a file, a look where its outcome is in doubt, and nothing is ever deleted."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from datagen import caching, storage
from datagen.errors import ArtefactError, DatagenError, OutputError, ResourceError

T = TypeVar("T")
ATTEMPTS, WAIT, LONGEST = 8, 0.2, 8.0
"""requests until a failing store is given up; seconds before the second, twice as long before each later one, and at most"""
PIECE = 1 << 24
LARGEST = 5 << 30
"""bytes that one put takes: S3's limit"""
HASH, WRITER = "datagen-sha256", "datagen-write"
"""metadata of every object of ours"""
TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 0}}
_NEEDS = "s3:GetObject, s3:PutObject and s3:ListBucket are needed there"
_KEYS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_OTHER = "use a store with conditional writes, or a local --out and copy it"
REFUSALS = {
    "NoCredentialsError": ("no credentials were found", _KEYS),
    "PartialCredentialsError": ("the credentials are not whole", _KEYS),
    "ProfileNotFound": ("the profile was not found", _KEYS),
    "InvalidAccessKeyId": ("the access key is not known there", _KEYS),
    "SignatureDoesNotMatch": ("the secret key is wrong", _KEYS),
    "RequestTimeTooSkewed": ("the clock of this machine is wrong", "set it"),
    "ExpiredToken": ("the credentials have expired", _KEYS),
    "AccessDenied": ("access is denied", _NEEDS),
    "403": ("access is denied", _NEEDS),
    "NoSuchBucket": ("there is no such bucket", "make it, or give another URL"),
    "InvalidBucketName": ("is no name of a bucket", "s3://BUCKET/PREFIX"),
    "ParamValidationError": ("is no name of a bucket", "s3://BUCKET/PREFIX"),
    "PermanentRedirect": ("the bucket is in another region", "set AWS_DEFAULT_REGION to it"),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", "set AWS_DEFAULT_REGION to it"),
    "NotImplemented": ("the store does not know conditional puts", _OTHER),
    "501": ("the store does not know conditional puts", _OTHER),
}
"""by error code or class: what no second request will change, and what to do"""


@dataclass(frozen=True)
class Found:
    """What a store states of an object: bytes, and of ours the SHA-256 and the id of the write, "" for others."""

    size: int
    sha256: str
    writer: str


class Store:
    """A prefix of a bucket as a Place.

    Args:
        bucket: its name.
        prefix: before every name, "" for none.
        failing: the kind of error where the store cannot be reached or refuses.
    """

    folder: Path | None = None
    many = False
    abreast = 16
    replaces = False
    trust = "there, as the store states (describe --verify reads every byte)"

    def __init__(self, bucket: str, prefix: str, failing: type[DatagenError] = OutputError) -> None:
        self.bucket, self.prefix, self.failing = bucket, prefix, failing
        self._system: tuple[int, Any] = (0, None)
        self._client()

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_system": (0, None)}

    def _client(self) -> Any:
        """Return fsspec's S3 file system of this process: a forked one makes its own."""
        if self._system[0] != os.getpid():
            try:
                import fsspec
                import s3fs  # noqa: F401
            except ImportError as error:
                raise ResourceError(f"needs a package that is missing ({error.name or error})", where=self, hint="pip install 'datagen[s3]'") from error
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            made = fsspec.filesystem("s3", endpoint_url=endpoint, config_kwargs=TIMEOUTS, max_concurrency=1)
            made.retries = 1
            self._system = (os.getpid(), made)
        return self._system[1]

    def _key(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{name}" if self.prefix else name}

    def where(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self}/{name}"

    def _once(self, operation: str, name: str, request: Callable[[], T]) -> T | None:
        """Send one request; None where there is no such object, FileExistsError where one is in the way, otherwise what it answered.

        Raises:
            DatagenError: of kind `failing`, where another request would be refused likewise.
            ConnectionError: it is not known whether it was done.
        """
        if storage.hook is not None:
            storage.hook(operation, self.where(name))
        try:
            return request()
        except Exception as error:  # of four libraries, which share no class
            kinds = _kinds(error)
            refusal = next((REFUSALS[kind] for kind in kinds if kind in REFUSALS), None)
            if refusal is not None:
                raise self.failing(refusal[0], where=self, hint=refusal[1]) from error
            if isinstance(error, PermissionError):
                raise self.failing("access is denied", where=self, hint=_NEEDS) from error
            if isinstance(error, FileNotFoundError):
                return None
            if "PreconditionFailed" in kinds or "412" in kinds or isinstance(error, FileExistsError):
                raise FileExistsError(str(error)) from error
            raise ConnectionError(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}") from error

    def _asked(self, operation: str, name: str, request: Callable[[], T]) -> T | None:
        """Send a request that changes nothing until it is answered; raises `failing` where it never is."""
        for wait in _waits():
            try:
                return self._once(operation, name, request)
            except (ConnectionError, FileExistsError) as error:
                reason = error
            time.sleep(wait)
        raise self.failing(f"does not answer ({reason})", where=self.where(name), hint="check the network and give the same command again") from reason

    def _head(self, name: str) -> Found | None:
        """Return what the store states of an object; None where there is none."""
        answer: Any = self._asked("head", name, lambda: self._client().call_s3("head_object", **self._key(name)))
        if answer is None:
            return None
        stated = {key.lower(): value for key, value in answer.get("Metadata", {}).items()}
        return Found(int(answer["ContentLength"]), stated.get(HASH, ""), stated.get(WRITER, ""))

    def _get(self, name: str, first: int | None = None, end: int | None = None) -> bytes | None:
        key = self._key(name)
        path = f"{key['Bucket']}/{key['Key']}"
        return self._asked("get", name, lambda: self._client().cat_file(path, start=first, end=end))

    def _put(self, name: str, content: bytes, sha256: str, writer: str) -> None:
        stated = {HASH: sha256, WRITER: writer}
        request = {**self._key(name), "Body": content, "Metadata": stated, "IfNoneMatch": "*"}
        if self._once("put", name, lambda: self._client().call_s3("put_object", **request)) is None:
            raise self.failing("there is no such bucket", where=self, hint="make it, or give another URL")

    def create(self, name: str, content: bytes | Callable[[Any], None], *, again: bool = False) -> tuple[int, str]:
        """Put an object that is not there yet; one with the same bytes counts as put. Another one is left as it is.

        Args:
            name: of the object.
            content: the bytes, or a function that writes them to a binary file opened for it.
            again: makes no difference: nothing is ever replaced.

        Returns:
            size in bytes and SHA-256 as hex.

        Raises:
            OutputError: other bytes are there, the store refuses, or it is not known whether the object was written.
        """
        raw = _bytes(content)
        if len(raw) > LARGEST:
            raise OutputError(f"has {len(raw):,} bytes, one put takes {LARGEST:,}", where=self.where(name), hint="give a smaller --shard-images")
        sha256, writer = hashlib.sha256(raw).hexdigest(), uuid.uuid4().hex
        reason: Exception | None = None
        for wait in _waits():
            try:
                self._put(name, raw, sha256, writer)
                return len(raw), sha256
            except (FileExistsError, ConnectionError) as error:
                reason = error
            found = self._head(name)
            if found is not None and self._same(name, found, raw, sha256, writer):
                return len(raw), sha256
            if found is not None:
                hint = "nothing was changed; move it away, or give another --out"
                raise OutputError("is there already with other bytes", where=self.where(name), hint=hint) from reason
            time.sleep(wait)
        hint = "nothing was deleted; give the same command again"
        raise OutputError(f"it is not known whether it was written ({reason})", where=self.where(name), hint=hint) from reason

    def _same(self, name: str, found: Found, raw: bytes, sha256: str, writer: str) -> bool:
        """Whether an object is our own write or one with the same bytes; those of a stranger are read."""
        if found.writer == writer or found.size != len(raw):
            return found.writer == writer
        return found.sha256 == sha256 if found.sha256 else self._get(name) == raw

    def guard(self, name: str, content: bytes) -> None:
        """Put an object that is there once more with the same bytes; OutputError where the store lets that happen."""
        for wait in _waits():
            try:
                self._put(name, content, hashlib.sha256(content).hexdigest(), uuid.uuid4().hex)
            except FileExistsError:
                return
            except ConnectionError as error:
                reason = error
                time.sleep(wait)
                continue
            raise OutputError("the store overwrites what is there: it does not hold conditional puts", where=self, hint=_OTHER)
        raise OutputError(f"does not answer ({reason})", where=self, hint="check the network and give the same command again")

    def read(self, name: str, limit: int = storage.JSON_LIMIT) -> bytes | None:
        """Return the bytes of an object, None where there is none; raises `failing` where the store does not answer."""
        content = self._get(name)
        if content is not None and len(content) > limit:
            raise ArtefactError(f"is larger than {limit:,} bytes", where=self.where(name))
        return content

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield a copy of an object below the cache folder that is deleted after the block; raises as `read`."""
        folder = storage.make_folder(caching.cache_folder() / "objects")
        found = self._head(name)
        with storage.scratch(folder / "copy") as path:
            if found is not None:
                storage.fill(path, (self._get(name, first, min(first + PIECE, found.size)) or b"" for first in range(0, found.size, PIECE)))
            yield path

    def states(self, name: str, size: int, sha256: str) -> bool | None:
        """Return whether an object of that size says that it was written with that SHA-256; raises as `read`."""
        found = self._head(name)
        return found is not None and (found.size, found.sha256) == (size, sha256)

    def create_all(self, files: Iterable[tuple[str, bytes]]) -> int:
        """Put each file as `create` does; returns their bytes."""
        return sum(self.create(name, content)[0] for name, content in files)

    def strangers(self, ours: Iterable[str]) -> list[str]:
        """Return nothing: listings are not relied on, and nothing that is there is touched."""
        return []

    def begin(self, folder: str) -> None:
        """Do nothing: there are no folders."""

    def settle(self, *folders: str) -> None:
        """Do nothing: a put that was answered is durable."""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold nothing: two that make the same set write the same bytes."""
        yield

    def sweep(self) -> None:
        """Do nothing: an object is there whole or not at all."""

    def free(self) -> tuple[int, int]:
        """Return very large numbers."""
        return 1 << 60, 1 << 60


def _waits() -> Iterator[float]:
    for attempt in range(ATTEMPTS):
        yield 0.0 if attempt == ATTEMPTS - 1 else min(LONGEST, WAIT * 2**attempt) * random.uniform(0.75, 1.25)


def _kinds(error: BaseException) -> list[str]:
    """Return the classes of an error and of what it came from, and the codes that a store gave for it."""
    found: list[str] = []
    each: BaseException | None = error
    while each is not None and len(found) < 32:
        answer = getattr(each, "response", None)
        said = answer.get("Error", {}) if isinstance(answer, dict) else {}
        found += [type(each).__name__, *([str(said["Code"])] if "Code" in said else [])]
        each = each.__cause__ or each.__context__
    return found


def _bytes(content: bytes | Callable[[Any], None]) -> bytes:
    if not callable(content):
        return content
    file = io.BytesIO()
    content(file)
    return file.getvalue()
