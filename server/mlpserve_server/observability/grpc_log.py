"""The log of gRPC's own layers: counted, and passed on without what callers sent."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mlpserve_server.observability.observer import Observer

__all__ = ["grpc_log_counted"]

log = logging.getLogger(__name__)


@contextmanager
def grpc_log_counted(observer: Observer) -> Iterator[None]:
    """Count what gRPC logs while the context lasts, and log each origin once.

    gRPC logs the whole value of a header that is not UTF-8, one error for each header, before the
    caller is authenticated. The header may be the token.
    """
    logger = logging.getLogger("grpc")
    counter = _Counter(observer)
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(counter)
    try:
        yield
    finally:
        logger.removeHandler(counter)
        logger.propagate = before


class _Counter(logging.Handler):
    def __init__(self, observer: Observer) -> None:
        super().__init__(logging.WARNING)
        self._observer = observer
        self._said: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Count the record; log its origin if that is new."""
        self._observer.count("mlpserve_grpc_errors_total")
        error = record.exc_info[0] if record.exc_info else None
        place = (f"{record.name}.{record.funcName}", error.__name__ if error else "")
        if place not in self._said:
            self._said.add(place)
            log.warning("gRPC reported an error", extra={"source": place[0], "kind": place[1]})
