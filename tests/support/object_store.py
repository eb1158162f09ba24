"""A real S3 interface on loopback, and a proxy before it that fails as it is told to."""

import http.client
import re
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any, Protocol, cast

import pytest

from mlpserve_model import Draft, Store
from mlpserve_model.store import object_backend as bucket
from tests.support import publishing

DRAFT = replace(publishing.DRAFT, model="tiny")
REGION = "us-east-1"

HAS_MOTO = find_spec("moto") is not None
# Its S3 by itself: moto_server looks for the service of each request among all that it has, which
# takes three times as long as the answer.
MOTO = """
from moto.server import MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple
app = create_backend_app("s3")
run_simple("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        proxy = cast("Proxy", self.server)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {_key(self.path)}"
        fault = proxy.note(request)
        if fault in ("500", "503"):
            code = "SlowDown" if fault == "503" else "InternalError"
            self._answer(int(fault), [], f"<Error><Code>{code}</Code></Error>".encode())
        elif fault == "hang":
            proxy.closing.wait(60)
            self._reset()
        elif fault == "reset":
            self._reset()
        else:
            status, headers, data = proxy.forward(self.command, self.path, body, self.headers)
            proxy.before_answer(request)
            if fault == "lost answer":
                self._reset()
            elif fault == "partial" or proxy.tears(request):
                self._answer(status, headers, data, cut=True)
            else:
                self._answer(status, headers, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  # http.server's names

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "content-length", "date", "server"):
                self.send_header(name, value)
        if status != http.client.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if cut:
            self.wfile.write(data[: len(data) // 2])
            self._reset()
        else:
            self.wfile.write(data)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            self.close_connection = True  # we have reset it


def _key(path: str) -> str:
    """What is asked for, without bucket and prefix: "tiny/1/model.npz", or "a listing"."""
    key, _, query = path.partition("?")
    if "list-type" in query:
        return "a listing"
    return "/".join(key.split("/")[3:]) or f"?{query}"


class Proxy(ThreadingHTTPServer):
    """Passes requests on. `fault` is asked of each, when it arrives, what goes wrong with it.

    `before_answer` may hold back the answer of one that has been obeyed, and `tears` is asked
    when the answer is there whether only half of it is sent: what it decides by has happened
    before the answer was made, however long the request was on its way.
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._upstream = upstream
        self.requests: list[str] = []
        self.answers: list[int] = []
        self.fault: Callable[[str], str | None] = lambda request: None
        self.before_answer: Callable[[str], object] = lambda request: None
        self.tears: Callable[[str], bool] = lambda request: False
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._one_write = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def note(self, request: str) -> str | None:
        """Count a request; say what goes wrong with it."""
        with self._lock:
            self.requests.append(request)
        return self.fault(request)

    def forward(
        self, method: str, path: str, body: bytes, headers: Any
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The answer of the store."""
        # moto looks at a condition and then writes, in two steps; stores do both in one.
        lock = threading.Lock() if method == "GET" else self._one_write
        upstream = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=30)
        with lock, closing(upstream) as connection:
            connection.request(method, path, body, dict(headers.items()))
            response = connection.getresponse()
            self.answers.append(response.status)
            return response.status, response.getheaders(), response.read()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that went away are none of our faults."""

    def close(self) -> None:
        """Let nothing hang, and listen no more."""
        self.closing.set()
        self.shutdown()
        self.server_close()


class PublishTo(Protocol):
    """Publishes a version with the seed's weights; makes it champion unless told otherwise."""

    def __call__(self, seed: int = 0, promote: bool = True, to: Store = ..., **changes: Any) -> int:
        """Return its number; `changes` are to the draft."""
        ...


@pytest.fixture(scope="session")
def moto() -> Iterator[int]:
    """The port of moto's S3, a process of its own."""
    command = [sys.executable, "-P", "-c", MOTO]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        port = next(
            int(found[1])
            for line in process.stderr
            if (found := re.search(r"http://.*:(\d+)", line))
        )
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield port
        process.terminate()


@pytest.fixture
def proxy(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the store, and what the environment says of it."""
    proxy = Proxy(moto)
    for name, value in {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "a secret",
        "AWS_REGION": REGION,
        "AWS_TIMEOUT": "5s",
    }.items():
        monkeypatch.setenv(name, value)
    yield proxy
    proxy.close()


@pytest.fixture
def address(proxy: Proxy, moto: int) -> str:
    """A place in a new bucket."""
    name = f"bucket-{uuid.uuid4()}"
    with closing(http.client.HTTPConnection("127.0.0.1", moto, timeout=30)) as connection:
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
    return f"s3://{name}/models"


@pytest.fixture
def draft() -> Draft:
    return DRAFT


@pytest.fixture
def store(address: str) -> Store:
    return Store(address, "tiny")


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    """A dead writer's lock is free after this many seconds, for stores opened from now on."""
    monkeypatch.setattr(bucket, "LEASE_SECONDS", 0.4)
    return 0.4


@pytest.fixture
def publish(store: Store) -> PublishTo:
    """Publish a version with the seed's weights; make it champion unless told otherwise."""

    def publish(seed: int = 0, promote: bool = True, to: Store = store, **changes: Any) -> int:
        return publishing.publish_to(to, seed, promote, **changes)

    return publish
