"""gRPC works only in the process that its threads run in: a forked child has their locks alone."""

import os

from mlpserve_client._errors import ClientClosedError

_first: int | None = None  # the process of the first client


def is_forked() -> bool:
    """Return True if this process is a fork of one that made clients."""
    global _first
    if _first is None:
        _first = os.getpid()
    return _first != os.getpid()


def check_not_forked() -> None:
    """Raise ClientClosedError in a forked process, where calls and channels would hang."""
    if is_forked():
        raise ClientClosedError(
            "gRPC was used before this process forked, and calls would hang: fork before the "
            "first client is made, or use multiprocessing's 'spawn' method"
        )
