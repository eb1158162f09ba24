"""Logs on standard error: one line for each event, for people or as JSON.

An event is a fixed sentence with fields: `log.info("model loaded", extra={"version": 7})`.
"""

import json
import logging
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["FORMATS", "LEVELS", "set_up"]

# "auto" is for people at a terminal, and JSON elsewhere.
FORMATS = ("human", "json", "auto")
LEVELS = ("debug", "info", "warning", "error")
_MAX_LENGTH = 256
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(log_format: str, level: str, **fields: int) -> None:
    """Send the logs of the process to standard error; call it once, in main.

    Args:
        log_format: one of FORMATS.
        level: minimum level, one of LEVELS.
        fields: of every line, such as the number of a worker.

    """
    handler = logging.StreamHandler(sys.stderr)
    if fields:
        handler.addFilter(_Fields(fields))
    if log_format == "auto":
        log_format = "human" if sys.stderr and sys.stderr.isatty() else "json"
    handler.setFormatter(_Json() if log_format == "json" else _Human())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Fields(logging.Filter):
    """Adds fields to every record."""

    def __init__(self, fields: Mapping[str, int]) -> None:
        super().__init__()
        self._fields = fields

    def filter(self, record: logging.LogRecord) -> bool:
        vars(record).update(self._fields)
        return True


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = "".join(f" {k}={_quoted(v)}" for k, v in _fields(record).items())
        message = _cut(record.getMessage())
        message = message if message.isprintable() else json.dumps(message)
        return f"{time} {record.levelname.lower():7} {message}{fields}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "event": _cut(record.getMessage()),
        }
        return json.dumps(event | _fields(record), default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {k: v for k, v in vars(record).items() if k not in _STANDARD}
    if record.exc_info and record.exc_info[1]:
        # The places of the traceback alone, so that an event remains one line.
        fields["error"] = _error(record.exc_info[1])
        fields["at"] = _place(record.exc_info[2])
    return {k: v if _is_number(v) else _cut(str(v)) for k, v in fields.items()}


def _error(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError | UnicodeEncodeError):
        # Its repr() contains the text that could not be converted, which may be a caller's.
        return f"{type(error).__name__}: {error.reason}"
    return repr(error)


def _place(traceback: Any) -> str:
    places = []
    while traceback:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return " > ".join(places[-6:])


def _is_number(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 3] + "..."


def _quoted(value: Any) -> str:
    # As JSON if a character could be mistaken for a separator of the line.
    text = str(value)
    return text if text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
