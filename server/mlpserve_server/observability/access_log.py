"""The access log: one line for each sampled call, without anything of its content."""

import logging
import random

from mlpserve_server.observability.metrics import METHODS, OTHER
from mlpserve_server.observability.observer import CallInfo
from mlpserve_server.observability.recorder import CallRecord

__all__ = ["AccessLog"]

log = logging.getLogger(__name__)


class AccessLog:
    """Logs a sample of the calls.

    Args:
        rate: sampling rate, from 0 to 1.

    """

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def sample(self, call: CallInfo) -> bool:
        """Return True for a random sample."""
        return random.random() < self._rate

    def emit(self, record: CallRecord) -> None:
        """Log the call."""
        log.info(
            "call",
            extra={
                "method": METHODS.get(record.method, OTHER),
                "code": record.code,
                "seconds": round(record.seconds, 6),
                "rows": record.rows,
                "model": record.model,
                "version": record.version,
                "peer": record.peer,
                "request_id": record.request_id,
            },
        )

    def close(self) -> None:
        """Do nothing: nothing is buffered."""
