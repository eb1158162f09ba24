"""Calls of the direct transport that are not yet answered: how many, their memory, their ends."""

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.predictions import Outcome
from mlpserve_server.observability.observer import Observer
from mlpserve_server.transport.grpc_core import ServerCall
from mlpserve_server.transport.request_reader import no_memory
from mlpserve_server.transport.response_sender import ResponseSender
from mlpserve_server.transport.services import COPIES
from mlpserve_server.transport.status import Refusal, refusal_of

__all__ = ["OpenCalls"]


class OpenCalls:
    """The calls taken on and not yet answered; they belong to the event loop's thread.

    Attributes:
        count: How many there are.
        sender: What is being sent.

    """

    def __init__(self, limits: Limits, observer: Observer) -> None:
        self._bytes_limit = limits.bytes
        self._observer = observer
        self.count = 0
        self.sender = ResponseSender(limits.bytes)

    def finish(self, call: ServerCall, answer: Outcome) -> None:
        """Send the answer or the error, and end the call."""
        self.count -= 1
        self.release(call)
        if isinstance(answer, Exception):
            self.refuse(call, refusal_of(answer, call))
        else:
            call.rows, call.version, call.model = answer.rows, answer.version, answer.model
            self.sender.send(call, answer.response)
            self._observer.ended(call, 0)

    def refuse(self, call: ServerCall, refusal: Refusal) -> None:
        """End a call with a refusal; it is not, or no longer, one of the open calls."""
        self.sender.refuse(call, refusal)
        self._observer.ended(call, refusal.code)

    def hold(self, call: ServerCall, length: int) -> bool:
        """Count the memory of a request of this length as in use, or refuse it."""
        size = COPIES * length
        if not self._bytes_limit.take(size):
            self.finish(call, no_memory())
            return False
        call.held = size
        return True

    def hold_more(self, call: ServerCall, size: int) -> None:
        """Count so many bytes in all as in use for a call; for any thread. Raises Overloaded."""
        call.held = self._bytes_limit.extend(call.held, size)

    def release(self, call: ServerCall) -> None:
        """Count the memory of its request no longer."""
        if call.held:
            self._bytes_limit.release(call.held)
            call.held = 0
