"""GET /healthz and GET /metrics, over HTTP, beside the schedule."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from mlpserve_trainer.errors import TrainerError, UsageError
from mlpserve_trainer.schedule.scheduler import Condition

__all__ = ["listening"]

logger = logging.getLogger(__name__)


@contextmanager
def listening(
    address: str, condition: Callable[[], Condition], registry: CollectorRegistry
) -> Iterator[int]:
    """Answer at HOST:PORT while the context lasts; gives the port, which may be asked for as 0.

    Raises UsageError when it is no address, TrainerError when it cannot be listened on.
    """
    host, port = _parsed(address)
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        server = _Server(found[0], condition, registry)
    except OSError as error:
        raise TrainerError(f"cannot listen on {address}: {error.strerror or error}") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    bound: int = server.server_address[1]
    logger.info("health and metrics", extra={"address": f"{address.rpartition(':')[0]}:{bound}"})
    try:
        yield bound
    finally:
        server.shutdown()
        server.server_close()


def _parsed(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal() and int(port) < 2**16):
        raise UsageError(f"--health-listen {address!r}: expected HOST:PORT, as 127.0.0.1:9101")
    return host.strip("[]"), int(port)


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self,
        found: tuple[int, int, int, str, tuple[object, ...]],
        condition: Callable[[], Condition],
        registry: CollectorRegistry,
    ) -> None:
        self.condition, self.registry = condition, registry
        self.address_family = found[0]
        super().__init__(found[4], _Handler)  # type: ignore[arg-type]  # of any family

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds that a silent caller may keep its thread

    def do_GET(self) -> None:
        """Answer the two paths there are."""
        server = self.server
        assert isinstance(server, _Server)
        path = self.path.partition("?")[0]
        if path == "/healthz":
            condition = server.condition()
            status = HTTPStatus.OK if condition.healthy else HTTPStatus.SERVICE_UNAVAILABLE
            body = json.dumps(condition.facts).encode() + b"\n"
            self._answer(status, "application/json", body)
        elif path == "/metrics":
            body = generate_latest(server.registry)
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, body)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there are /healthz and /metrics\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Return no more than the name."""
        return "mlpserve-trainer"

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a probe every few seconds is no event."""
