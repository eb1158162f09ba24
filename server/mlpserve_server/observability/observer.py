"""The interface by which transports, data plane and manager report what they do.

The Observer of this module does nothing, at the cost of a method call. `recorder.Recorder` turns
the reports into metrics, an access log and traces. Nothing of what callers send or get is kept.
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
    """A call without its content.

    Attributes:
        method: path of the method, "/package.Service/Method".
        metadata: keys and values that the caller sent.
        started: time of arrival, by time.monotonic.
        rows: instances in its answer; 0 until there is one.
        version: the version that answered; 0 until there is an answer.
        model: the name of its model; "" until there is an answer.
    """

    __slots__ = ("_request_id", "metadata", "method", "model", "rows", "started", "version")

    def __init__(self, method: str, metadata: Metadata) -> None:
        self.method = method
        self.metadata = metadata
        self.started = time.monotonic()
        self.rows = self.version = 0
        self.model = ""
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """The caller's x-request-id if it is well-formed, otherwise a generated one."""
        if not self._request_id:
            given = self.header("x-request-id")
            self._request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        return self._request_id

    def header(self, name: str) -> str:
        """Return the text of this key of the metadata, or an empty string."""
        for key, value in self.metadata:
            if key == name and isinstance(value, str):
                return value
        return ""

    def peer(self) -> str:
        """Return the address of the caller as gRPC has it: ipv4:127.0.0.1:40312."""
        return ""


class Observer:
    """Receives reports from any thread, and ignores them; `active` is False."""

    active = False

    def ended(self, call: CallInfo, code: int) -> None:
        """Report a call that has ended with this gRPC code."""

    def predicted(self, manifest: Manifest, probabilities: NDArray[np.float32]) -> None:
        """Report the probabilities of one matrix product, of shape (rows, classes)."""

    def rows(self, count: int) -> AbstractContextManager[None]:
        """Return a context during which this many rows are in flight."""
        return _NOTHING

    def count(self, metric: str, *labels: str, amount: float = 1) -> None:
        """Add to a counter of `metrics.METRICS`; labels are in the declared order."""

    def observe(self, metric: str, value: float, *labels: str) -> None:
        """Add a value to a histogram."""

    def gauge(self, metric: str, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Register a gauge, which is read once a second.

        Args:
            metric: name of the gauge, or of a counter.
            read: returns the values by their labels, () without labels; for a counter, what it
                has gained since the last call.

        """
