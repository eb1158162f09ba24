"""mlpserve-server: serve the accepted version of a model."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from mlpserve_model import StoreError
from mlpserve_model.log import set_up
from mlpserve_server.settings import Settings, read_settings

__all__ = ["main"]

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 0 done, 1 failed, 2 wrong usage."""
    settings = read_settings(arguments)
    set_up(settings.log_format, settings.log_level)
    # gRPC's core writes a log of its own, in another form, unless it is told not to before it
    # is imported; what matters of it reaches ours as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return _serve(settings, _stop_on_signals())


def _serve(settings: Settings, stop: threading.Event) -> int:
    from threadpoolctl import threadpool_limits

    from mlpserve_server.app import Server
    from mlpserve_server.transport import TransportError

    # Calls run side by side: a product that spreads over all cores would take them from others.
    with threadpool_limits(1):
        try:
            with Server(settings):
                stop.wait()
        except (TransportError, StoreError) as error:
            log.error("cannot start", extra={"reason": str(error)})
            return 1
    return 0


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second signal does not wait for the drain."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            sys.exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop
