"""What a server tells of its work. Nothing of what callers send or get is kept or passed on.

Transports, data plane and manager tell an Observer; by itself it does nothing, and costs a
method call. `recorder.Recorder` makes metrics, an access log and traces of it.
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import Manifest

__all__ = ["CallInfo", "Metadata", "Observer"]

Metadata = Sequence[tuple[str, str | bytes]]

_REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")
_NOTHING = nullcontext()


class CallInfo:
    """What is known of a call beside its content; `method` is "/package.Service/Method".

    `started` is when it arrived, by time.monotonic.
    """

    __slots__ = ("_request_id", "metadata", "method", "started")

    def __init__(self, method: str, metadata: Metadata) -> None:
        self.method = method
        self.metadata = metadata
        self.started = time.monotonic()
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """The caller's x-request-id if that is well formed, otherwise one of our own."""
        if not self._request_id:
            given = self.header("x-request-id")
            self._request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        return self._request_id

    def header(self, name: str) -> str:
        """The text of this key of the metadata, or nothing."""
        for key, value in self.metadata:
            if key == name and isinstance(value, str):
                return value
        return ""

    def peer(self) -> str:
        """Who called, as gRPC names it: ipv4:127.0.0.1:40312."""
        return ""


class Observer:
    """Hears of everything, from any thread, and does nothing. `active` tells whether it would."""

    active = False

    def ended(self, call: CallInfo, code: int, response: bytes | None = None) -> None:
        """A call has ended with this code of gRPC's, and with this response if it was answered."""

    def predicted(self, manifest: Manifest, probabilities: NDArray[np.float32]) -> None:
        """Rows, (rows, classes), have come out of one matrix product."""

    def rows(self, count: int) -> AbstractContextManager[None]:
        """A context in which so many rows are in flight."""
        return _NOTHING

    def count(self, metric: str, *labels: str, amount: float = 1) -> None:
        """Add to a counter of `metrics.METRICS`; the labels in the order that it names."""

    def observe(self, metric: str, value: float, *labels: str) -> None:
        """Put a value into a histogram."""

    def gauge(self, metric: str, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Have a gauge read now and then: its values by their labels, () where it has none.

        A counter may be read too: `read` gives what has come to it since.
        """
