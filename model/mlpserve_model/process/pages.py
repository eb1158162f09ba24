"""A few pages over HTTP, for Prometheus and for probes, that no caller can make a burden.

Connections are few and short: one more than MAX_CONNECTIONS ends the oldest, and each ends after
SECONDS, whatever its caller does. Whoever asks at once is answered, beside any number of callers
that never end their requests.
"""

import io
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

__all__ = ["MAX_CONNECTIONS", "SECONDS", "Page", "PageServer"]

MAX_CONNECTIONS = 32
SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_MAX_HEAD = 16 << 10
_HEAD_END = re.compile(rb"\n\r?\n")


@dataclass(frozen=True)
class Page:
    """What a request gets."""

    content_type: str
    body: bytes
    status: HTTPStatus = HTTPStatus.OK


# From the value of a request's Accept header to the page.
Render = Callable[[str], Page]


class PageServer:
    """Answers GET and HEAD from the moment it is made, in threads of its own.

    Args:
        address: HOST:PORT; port 0 is any free one, no host every address of the machine.
        name: what the Server header says.
        pages: by their paths; every other path is answered with 404.

    Raises:
        OSError: the address cannot be listened on.

    """

    def __init__(self, address: str, name: str, pages: Mapping[str, Render]) -> None:
        host, _, port = address.rpartition(":")
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, place = found[0]
        self._server = _Server(family, place, name, pages)
        self.port: int = self._server.server_address[1]
        self.address = f"{host}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="pages", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and end the connections that are open."""
        self._server.shutdown()
        self._server.server_close()
        self._server.end_older_than(0)
        self._thread.join()


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a thread ends with its connection, of which it is the only owner

    def __init__(
        self, family: socket.AddressFamily, place: Any, name: str, pages: Mapping[str, Render]
    ) -> None:
        self.address_family = family
        self.name = name
        self.pages = pages
        self._open: dict[socket.socket, float] = {}  # since when, the oldest first
        self._lock = threading.Lock()
        super().__init__(place, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; without a descriptor for it, wait instead of spinning."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread, and end the oldest when there are too many."""
        with self._lock:
            self._open[request] = time.monotonic()
            crowded = list(self._open)[:-MAX_CONNECTIONS]
        _end(crowded)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End what has lasted too long; called every half second."""
        self.end_older_than(SECONDS)

    def end_older_than(self, seconds: float) -> None:
        """End connections that have lasted as long."""
        before = time.monotonic() - seconds
        with self._lock:
            _end([request for request, since in self._open.items() if since <= before])

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, which its thread does last."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a caller that went away is no event."""


def _end(connections: list[socket.socket]) -> None:
    """Wake the threads of these connections, which close them."""
    for connection in connections:
        with suppress(OSError):  # it has been closed meanwhile
            connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Read no more than the head of a request, of a bounded size, and answer it."""
        head = b""
        while not _HEAD_END.search(head):
            if len(head) == _MAX_HEAD:
                self.command, self.requestline, self.request_version = "", "", "HTTP/1.0"
                self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            received = self.connection.recv(_MAX_HEAD - len(head))
            if not received:
                return
            head += received
        self.rfile = io.BufferedReader(io.BytesIO(head))
        self.handle_one_request()

    def do_GET(self) -> None:
        """Answer with the page of the path."""
        render = self.server.pages.get(self.path.partition("?")[0])
        page = render(self.headers.get("Accept", "")) if render else self._not_found()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server looks for

    def _not_found(self) -> Page:
        known = " and ".join(self.server.pages)
        body = f"not found: expected {known}\n".encode()
        return Page("text/plain; charset=utf-8", body, HTTPStatus.NOT_FOUND)

    def version_string(self) -> str:
        """Return no more than the name."""
        return self.server.name

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a probe every few seconds is no event."""
