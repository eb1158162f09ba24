"""mlpserve-server: serve the accepted version of a model."""

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from threadpoolctl import threadpool_limits

from mlpserve_model import StoreError
from mlpserve_model.log import set_up
from mlpserve_server.app import Server
from mlpserve_server.settings import read_settings
from mlpserve_server.transport import ListenError

__all__ = ["main"]

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 0 done, 1 failed, 2 wrong usage."""
    settings = read_settings(arguments)
    set_up(settings.log_format, settings.log_level)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            sys.exit(1)  # asked twice: do not wait for the drain
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    # Calls run side by side: a product that spreads over all cores would take them from others.
    with threadpool_limits(1):
        try:
            with Server(settings):
                stop.wait()
        except (ListenError, StoreError) as error:
            log.error("cannot start", extra={"reason": str(error)})
            return 1
    return 0
