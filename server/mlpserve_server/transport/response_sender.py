"""Responses and refusals of the direct transport, until their callers have read them."""

import time

from mlpserve_server.dataplane.admission import ByteLimiter
from mlpserve_server.transport.grpc_core import ServerCall
from mlpserve_server.transport.services import SMALL_BYTES
from mlpserve_server.transport.status import Refusal

__all__ = ["PRESSED_SECONDS", "UNREAD_SECONDS", "ResponseSender"]

# A caller that has not read its answer by then gets none; under pressure, much earlier.
UNREAD_SECONDS, PRESSED_SECONDS = 30.0, 1.0


class ResponseSender:
    """Sends answers and refusals, and gives up those that are not read."""

    def __init__(self, bytes_limit: ByteLimiter) -> None:
        self._bytes_limit = bytes_limit
        self._sending: dict[ServerCall, float] = {}  # since when, the oldest first

    def __bool__(self) -> bool:
        """Return True while something is being sent."""
        return bool(self._sending)

    def send(self, call: ServerCall, response: bytes) -> None:
        """Send a response, which ends the call."""
        if len(response) > SMALL_BYTES:
            call.held = len(response)
            self._bytes_limit.add(call.held)
        self._sending[call] = time.monotonic()
        call.answer(response, self._sent)

    def refuse(self, call: ServerCall, refusal: Refusal) -> None:
        """Send a refusal, which ends the call."""
        self._sending[call] = time.monotonic()
        call.refuse(*refusal, self._sent)

    def give_up_unread(self, pressed: bool) -> None:
        """Cancel the calls whose answers have not been read in time.

        While bytes are short, those that hold some have less time.
        """
        now, full = time.monotonic(), self._bytes_limit.is_full
        for call, since in list(self._sending.items()):
            if now - since < PRESSED_SECONDS:
                return
            if pressed or (full and call.held) or now - since > UNREAD_SECONDS:
                call.cancel()

    def _sent(self, call: ServerCall) -> None:
        del self._sending[call]
        if call.held:
            self._bytes_limit.release(call.held)
            call.held = 0
