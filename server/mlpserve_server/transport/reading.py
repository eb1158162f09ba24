"""What the direct transport is reading, and what of it is given up."""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.errors import Abandoned, NoRequest, ServingError
from mlpserve_server.transport.grpc_core import ServerCall
from mlpserve_server.transport.request_reader import RequestReader, no_memory
from mlpserve_server.transport.services import COPIES, HOT_METHODS

__all__ = ["OnRequest", "Reading"]

# Batches that are being read; the others wait unread, held back by flow control.
_READING_BATCHES = 4
# ModelInfer requests read at once: how large one is shows when it is here.
_READING_INFERS = 32
# A request that has been on its way for longer is not a small one.
_LONG_READ_SECONDS = 0.02
# While memory is short, and for a while, few requests of Predict are read at once.
_CAREFUL_READS, _CAREFUL_SECONDS = 4, 1.0

OnRequest = Callable[[ServerCall, bytes], None]


class Reading:
    """The readers of the three methods.

    Attributes:
        readers: By method.

    """

    def __init__(
        self, limits: Limits, on_single: OnRequest, on_batch: OnRequest, on_infer: OnRequest
    ) -> None:
        read = partial(RequestReader, on_end=self._ended, bytes_limit=limits.bytes)
        read_large = partial(read, reserved=COPIES * limits.max_request)
        predict, batch, infer = HOT_METHODS
        self._singles = read(on_single)
        self.readers: dict[str, RequestReader] = {
            predict: self._singles,
            batch: read_large(on_batch, at_once=_READING_BATCHES),
            infer: read_large(on_infer, at_once=_READING_INFERS),
        }
        self._limits = limits
        self._silent: list[ServerCall] = []  # their requests have ended before they were complete
        self._careful_until = 0.0

    @property
    def incomplete(self) -> int:
        """The number of calls whose requests are not here: being read, or not read yet."""
        return sum(reader.pending + reader.unread for reader in self.readers.values())

    @property
    def idle(self) -> int:
        """The number of calls that nobody else waits behind: slow ones, and those not read yet."""
        return sum(reader.idle for reader in self.readers.values())

    def give_up(
        self, memory_is_short: bool, poll: Callable[[], object]
    ) -> Iterator[tuple[ServerCall, ServingError]]:
        """Yield the calls that are given up, and why; read on.

        Args:
            memory_is_short: Whether requests that should be small and are not are given up.
            poll: Takes in what has come, before anything is given up for its size.

        """
        for call in self._silent:  # a cancelled one has been closed by now
            yield call, Abandoned("the caller is gone") if call.closed else NoRequest()
        self._silent.clear()
        yield from self._long_reads(memory_is_short, poll)
        for reader in self.readers.values():
            yield from reader.take_overdue()
            reader.read()

    def _long_reads(
        self, memory_is_short: bool, poll: Callable[[], object]
    ) -> Iterator[tuple[ServerCall, ServingError]]:
        """Yield the calls whose requests should be small and are not: now, and for a while."""
        now = time.monotonic()
        if memory_is_short:
            self._careful_until = now + _CAREFUL_SECONDS
        careful = now < self._careful_until
        self._singles.at_once = _CAREFUL_READS if careful else sys.maxsize
        if careful:
            poll()
            for reader in self.readers.values():
                for call in reader.take_unreserved(_LONG_READ_SECONDS):
                    yield call, no_memory()

    def _ended(self, call: ServerCall) -> None:
        """Leave the call to `give_up`: whether the caller is gone shows in an event of its own."""
        call.watch()
        self._silent.append(call)
