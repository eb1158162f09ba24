"""A small HTTP server for metrics and probes, with bounded connections, time and memory.

A connection beyond MAX_CONNECTIONS closes the oldest one, and every connection is closed after
SECONDS. A complete request is therefore answered however many callers never complete theirs.
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
    """The response to a request."""

    content_type: str
    body: bytes
    status: HTTPStatus = HTTPStatus.OK


# Returns the page for the value of a request's Accept header.
Render = Callable[[str], Page]


class PageServer:
    """Answers GET and HEAD in threads of its own, from its construction on.

    Args:
        address: HOST:PORT; port 0 is any free one, an empty host every address of the machine.
        name: value of the Server header.
        pages: what returns each page, by its path; other paths are answered with 404.

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
        """Stop listening, and close the open connections."""
        self._server.shutdown()
        self._server.server_close()
        self._server.end_older_than(0)
        self._thread.join()


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    # With the default of 5, callers of a burst connect a second later or more.
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False  # a thread ends when its connection is shut down

    def __init__(
        self, family: socket.AddressFamily, place: Any, name: str, pages: Mapping[str, Render]
    ) -> None:
        self.address_family = family
        self.name = name
        self.pages = pages
        self._open: dict[socket.socket, float] = {}  # time of the start, the oldest first
        self._lock = threading.Lock()
        super().__init__(place, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; pause if there is no free descriptor for it."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the connection, and shut down the oldest if there are too many."""
        with self._lock:
            self._open[request] = time.monotonic()
            crowded = list(self._open)[:-MAX_CONNECTIONS]
        _end(crowded)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Shut down connections that are too old; called every half second."""
        self.end_older_than(SECONDS)

    def end_older_than(self, seconds: float) -> None:
        """Shut down connections of at least this age."""
        before = time.monotonic() - seconds
        with self._lock:
            _end([request for request, since in self._open.items() if since <= before])

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; its thread calls this last."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: callers may disconnect at any time."""


def _end(connections: list[socket.socket]) -> None:
    """Shut these connections down; their threads then close them."""
    for connection in connections:
        with suppress(OSError):  # it is closed already
            connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    def handle(self) -> None:
        """Read the head of a request, up to a maximum size, and answer it."""
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
        """Send the page of the path."""
        render = self._owner.pages.get(self.path.partition("?")[0])
        page = render(self.headers.get("Accept", "")) if render else self._not_found()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server looks for

    @property
    def _owner(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    def _not_found(self) -> Page:
        known = " and ".join(self._owner.pages)
        body = f"not found: expected {known}\n".encode()
        return Page("text/plain; charset=utf-8", body, HTTPStatus.NOT_FOUND)

    def version_string(self) -> str:
        """Return the name without versions."""
        return self._owner.name

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: probes come every few seconds."""
