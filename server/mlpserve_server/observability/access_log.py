"""The access log: one line for a sample of the calls, with nothing of what they carried."""

import logging
import random

from mlpserve_server.observability.metrics import METHODS, OTHER
from mlpserve_server.observability.observer import CallInfo
from mlpserve_server.observability.recorder import CallRecord

__all__ = ["AccessLog"]

log = logging.getLogger(__name__)


class AccessLog:
    """Logs this share of the calls, from 0 to 1."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def sample(self, call: CallInfo) -> bool:
        """A random choice."""
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
                "version": record.version,
                "peer": record.peer,
                "request_id": record.request_id,
            },
        )

    def close(self) -> None:
        """Nothing is left to do."""
