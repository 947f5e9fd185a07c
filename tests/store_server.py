"""An S3 server process for tests, and a proxy before it that makes chosen requests fail."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import boto3
from botocore.config import Config

BUCKET = "bucket"
CODES = {412: "PreconditionFailed", 409: "ConditionalRequestConflict", 503: "SlowDown", 500: "InternalError", 403: "AccessDenied", 501: "NotImplemented"}
FAULTS = ("closed", "lost", "slow", 412, 409, 503, 500)
SLOW = 1.5
"""seconds; the tests let clients wait for 1"""


@contextlib.contextmanager
def served() -> Iterator[int]:
    """Run a server with an empty bucket for the block and yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < until, "the server does not start"
                assert process.poll() is None, "the server ended"
                time.sleep(0.05)
        client(port).create_bucket(Bucket=BUCKET)
        yield port
    finally:
        process.kill()
        process.wait()


def client(port: int) -> Any:
    """Return a client that shares no code with the product's."""
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))


def objects(port: int, prefix: str) -> dict[str, bytes]:
    """Return the bytes of every object below a prefix, read past the proxy."""
    with contextlib.closing(client(port)) as store:
        pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix + "/")
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {key.removeprefix(prefix + "/"): store.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


class Proxy:
    """Stands before the server and answers, drops or delays the requests whose numbers (from 1) `fails` names.

    Attributes:
        port: where it listens.
        requests: method and path of every request.
        strip: header that the server does not get to see, as if it did not know it.
    """

    def __init__(self, behind: int) -> None:
        self.behind, self.strip = behind, ""
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self.reset()
        proxy = self

        class Handler(_Handler):
            owner: ClassVar[Proxy] = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def reset(self, fault: str | int = "", first: int = 1, last: int = 0, methods: str = "") -> None:
        """Count requests anew; those from `first` to `last`, of a method named or of any, will fail."""
        with self._lock:
            self.requests, self._fault, self._range, self._methods = [], fault, (first, last), methods

    def heard(self, method: str, path: str) -> str | int:
        """Note a request and return what is to happen to it, "" for nothing."""
        with self._lock:
            self.requests.append((method, path))
            number = len(self.requests)
            return self._fault if self._range[0] <= number <= self._range[1] and (not self._methods or method in self._methods) else ""

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ClassVar[Any]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        """Handle one, quietly where the other end has gone."""
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()
            return
        self.close_connection = True

    def _pass(self) -> None:
        fault = self.owner.heard(self.command, self.path)
        if fault == "closed":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault == "slow":
            time.sleep(SLOW)
        if isinstance(fault, int):
            self._answer(fault, {"Content-Type": "application/xml"}, _said(CODES[fault]))
            return
        status, headers, content = self._forward(body)
        if fault == "lost":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._answer(status, headers, content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {key: value for key, value in self.headers.items() if key.lower() not in {"expect", "connection", self.owner.strip}}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.owner.behind, timeout=30)) as connection:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" and status == 200 else str(len(content))
        for key, value in headers.items():
            if key.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(key, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _said(code: str) -> bytes:
    condition = "<Condition>If-None-Match</Condition>" if code == "PreconditionFailed" else ""
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message>{condition}</Error>".encode()
