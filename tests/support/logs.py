"""What a test reads of the log."""

import logging
from typing import Any

import pytest

__all__ = ["fields_of"]

_STANDARD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}


def fields_of(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """Return the fields of each record of this event."""
    records = [record for record in caplog.records if record.getMessage() == event]
    return [{k: v for k, v in vars(r).items() if k not in _STANDARD} for r in records]
