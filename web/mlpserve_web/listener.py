"""The HTTP server: uvicorn, with bounds on connections and on the time of a request's head."""

import asyncio
import logging
import signal
import socket
import ssl
import time
from argparse import Namespace
from collections import Counter
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["ListenError", "RarelyWarns", "serve"]

# Connections that wait to be accepted; more are held by the system's own queue.
BACKLOG = 128
# Of an answer, within the seconds that a request may take; less is not reading.
_MIN_READ = 64 << 10
_WARNING_SECONDS = 60.0

log = logging.getLogger(__name__)


class ListenError(Exception):
    """The address is taken or not this machine's, or the certificate cannot be used."""


class RarelyWarns(logging.Filter):
    """Lets each warning through once a minute: uvicorn has one for every request that is not HTTP.

    The next one says in `left_out` how many did not get through.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if the record is logged."""
        now, text = time.monotonic(), str(record.msg)
        if record.levelno > logging.WARNING:
            return True
        if now < self._next.get(text, 0.0):
            self._left_out[text] += 1
            return False
        self._next[text] = now + _WARNING_SECONDS
        record.left_out = self._left_out.pop(text, 0)
        return True


def serve(app: ASGIApp, settings: Namespace) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight, within the grace time.

    Raises:
        ListenError: the server cannot begin.
    """
    listening = _listen(*settings.listen)
    try:
        config = uvicorn.Config(
            app,
            http=_bounded(settings.request_seconds),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=round(settings.grace_seconds) or 1,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ListenError(f"{settings.tls_cert} with {settings.tls_key}: {error}") from error
    host, port = listening.getsockname()[:2]
    scheme = "https" if settings.tls_cert else "http"
    shown = f"[{host}]" if ":" in host else host
    log.info("listening", extra={"address": f"{scheme}://{shown}:{port}"})
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the line above says it
    logging.getLogger("uvicorn.error").addFilter(RarelyWarns())
    server = uvicorn.Server(config)
    # For a signal that comes before uvicorn listens to them. When it is done, it also raises those
    # that have stopped it a second time.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    server.run([listening])
    log.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # With the protocol by its number: asyncio turns Nagle's algorithm off for TCP alone, and
        # with it on, the second packet of an answer waits 40 ms for the first one to be confirmed.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenError(f"cannot listen on {host}:{port}: {reason}") from error
    listening.listen(BACKLOG)
    return listening


def _bounded(seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a bound on the time until a request's head is there.

    uvicorn bounds idle connections between requests alone: without this, a connection that
    sends nothing, or half a head, or reads no answer, would be held for ever.
    """

    class Bounded(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # Writing is paused while anything is unsent: that alone shows who reads nothing.
            transport.set_write_buffer_limits(high=1, low=0)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._expect_head()
            else:
                self._stop_expecting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_expecting()
            self._stop_waiting()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._expect_reading()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_waiting()

        def _expect_reading(self) -> None:
            size = self.transport.get_write_buffer_size()
            self._unread = self.loop.call_later(seconds, self._check_reading, size)

        def _check_reading(self, before: int) -> None:
            if before - self.transport.get_write_buffer_size() < _MIN_READ:
                self.transport.abort()
            else:
                self._expect_reading()

        def _stop_waiting(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _expect_head(self) -> None:
            if self._deadline is None:
                self._deadline = self.loop.call_later(seconds, self.transport.close)

        def _stop_expecting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Bounded
