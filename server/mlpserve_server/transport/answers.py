"""Answers on their way out of the direct transport, until their callers have read them."""

import time

from mlpserve_server.dataplane.admission import ByteLimiter
from mlpserve_server.transport.grpc_core import ServerCall
from mlpserve_server.transport.services import SMALL_BYTES
from mlpserve_server.transport.status import Refusal

__all__ = ["Answers"]

# A caller that has not read its answer by then gets none; under pressure, much earlier.
UNREAD_SECONDS, PRESSED_SECONDS = 30.0, 1.0


class Answers:
    """Sends answers and refusals, and gives up those that are not read."""

    def __init__(self, bytes_limit: ByteLimiter) -> None:
        self._bytes_limit = bytes_limit
        self._sending: dict[ServerCall, tuple[float, int]] = {}  # since when, the oldest first

    def __bool__(self) -> bool:
        """Return True while something is being sent."""
        return bool(self._sending)

    def send(self, call: ServerCall, response: bytes) -> None:
        """Send a response, which ends the call."""
        size = len(response) if len(response) > SMALL_BYTES else 0
        if size:
            self._bytes_limit.add(size)
        self._sending[call] = time.monotonic(), size
        call.answer(response, self._sent)

    def refuse(self, call: ServerCall, refusal: Refusal) -> None:
        """Send a refusal, which ends the call."""
        self._sending[call] = time.monotonic(), 0
        call.refuse(*refusal, self._sent)

    def give_up_unread(self, pressed: bool) -> None:
        """Cancel the calls whose answers have not been read in time."""
        before = time.monotonic() - (PRESSED_SECONDS if pressed else UNREAD_SECONDS)
        for call, (since, _) in list(self._sending.items()):
            if since > before:
                return
            call.cancel()

    def _sent(self, call: ServerCall) -> None:
        _, size = self._sending.pop(call)
        if size:
            self._bytes_limit.release(size)
