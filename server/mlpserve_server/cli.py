"""mlpserve-server: serve the accepted version of a model."""

import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from mlpserve_model import StoreError
from mlpserve_model.process.log import set_up
from mlpserve_model.process.signals import signals_as_bytes
from mlpserve_model.process.streams import printing
from mlpserve_server.settings import Settings, read_settings
from mlpserve_server.settings import settings_parser as parser
from mlpserve_server.supervisor import supervise
from mlpserve_server.system.memory import keep_freed_memory
from mlpserve_server.system.ports import PortTaken, unshareable

__all__ = ["main", "parser"]

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 stopped on request, 1 failed, 2 wrong usage. A process that serves by
        itself ends with it instead, since a stuck thread must not keep it alive.

    """
    return printing("mlpserve-server", lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    settings = read_settings(arguments)
    keep_freed_memory(settings.max_bytes)  # before the first thread starts
    # The lines of several workers would otherwise stand there twice and more.
    worker = {"worker": settings.worker} if settings.worker else {}
    set_up(settings.log_format, settings.log_level, **worker)
    # gRPC's core has a log of its own in another format. It is switched off before the import of
    # grpc; errors that matter are raised as exceptions as well.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with signals_as_bytes((signal.SIGTERM, signal.SIGINT)) as signals:
        stop = _stop_on(signals)
        return _run(settings, sys.argv[1:] if arguments is None else arguments, stop)


def _run(settings: Settings, arguments: Sequence[str], stop: threading.Event) -> int:
    if settings.workers == 1:
        return _serve(settings, stop)
    if reason := unshareable(settings.listen):
        log.warning("one worker instead of several", extra={"reason": reason})
        return _serve(settings, stop)
    try:
        return supervise(settings, arguments, stop)
    except PortTaken as error:
        log.error("cannot start", extra={"reason": str(error)})
        return 1
    except ModuleNotFoundError as error:  # prometheus_client
        return _incomplete(error)


def _incomplete(error: ModuleNotFoundError) -> int:
    log.error(
        "cannot start: install the extra server, in a checkout: pip install '.[server]'",
        extra={"missing": error.name},
    )
    return 1


def _serve(settings: Settings, stop: threading.Event) -> int:
    try:
        from threadpoolctl import threadpool_limits

        from mlpserve_model.store.atomic_files import UnusableFile
        from mlpserve_server.observability.telemetry import TelemetryError
        from mlpserve_server.server import Server
        from mlpserve_server.transport.services import TransportError
    except ModuleNotFoundError as error:
        return _incomplete(error)

    if settings.worker:
        threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    # What was imported stays. The garbage collector would look at it in every full collection, two
    # a second under load: for 14 ms each time, in which no call is answered.
    gc.freeze()
    # Calls run concurrently: a matrix product on all cores would slow the others down.
    with threadpool_limits(1):
        try:
            with Server(settings):
                if settings.worker:
                    _report_listening()
                stop.wait()
        except (PortTaken, TransportError, UnusableFile, TelemetryError, StoreError) as error:
            log.error("cannot start", extra={"reason": str(error)})
            return 1
    logging.shutdown()
    # All calls have ended. At exit the interpreter would wait for every thread of a pool, and one
    # that sends to a disconnected health watcher may never end.
    os._exit(0)


def _report_listening() -> None:
    """Report to the supervisor, over the socket at standard input, that this worker listens."""
    with suppress(OSError):  # the supervisor has ended; _stop_with_parent handles that
        os.write(sys.stdin.fileno(), b"1")


def _stop_with_parent(stop: threading.Event) -> None:
    """Stop when the supervisor ends, which closes the other end of standard input."""
    with suppress(ConnectionResetError):  # instead of the end of file, if data was left unread
        os.read(sys.stdin.fileno(), 1)  # nothing is ever sent: this returns at the end of file
    stop.set()


def _stop_on(signals: socket.socket) -> threading.Event:
    """Return an event that the first signal sets; the second signal ends the process at once."""
    stop = threading.Event()

    def listen() -> None:
        with suppress(OSError):  # the socket is closed after the stop
            if signals.recv(1):
                stop.set()
                if signals.recv(1):
                    os._exit(1)

    threading.Thread(target=listen, name="signals", daemon=True).start()
    return stop
