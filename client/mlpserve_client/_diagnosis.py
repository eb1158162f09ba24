"""Why a deadline passed, found out by few looks that many late calls share."""

import threading
import time
from collections.abc import Awaitable, Callable
from copy import copy

from mlpserve_client._errors import MlpserveError

_EVERY = 1.0  # seconds from one look to the next; each one is a connection of its own
_POLL = 0.01  # seconds between two checks whether another call's look is done


class Lookout:
    """Looks at most once a second, whoever asks; threads and tasks may ask at once."""

    def __init__(
        self,
        look: Callable[[], Awaitable[MlpserveError | None]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._look = look
        self._sleep = sleep
        self._lock = threading.Lock()  # never held across an await: tasks share their thread
        self._looking = False
        self._next = 0.0
        self._seen: MlpserveError | None = None

    async def problem(self) -> MlpserveError | None:
        """Say what was wrong within the last second, if anything was; a copy for each caller."""
        with self._lock:
            mine = not self._looking and time.monotonic() >= self._next
            self._looking = self._looking or mine
        if mine:
            await self._look_now()
        while self._looking:
            await self._sleep(_POLL)
        return copy(self._seen)

    async def _look_now(self) -> None:
        try:
            self._seen = copy(await self._look())  # without the traceback and all it holds
        except MlpserveError as error:
            self._seen = copy(error)
        finally:
            self._next = time.monotonic() + _EVERY
            self._looking = False
