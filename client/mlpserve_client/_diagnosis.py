"""Why a deadline passed: one probe, whose result all late calls share."""

import threading
import time
from collections.abc import Awaitable, Callable
from copy import copy

from mlpserve_client._errors import MlpserveError

_INTERVAL = 1.0  # seconds between two probes; each makes a connection of its own
_POLL_SECONDS = 0.01  # between two checks whether another call's probe has ended


class DeadlineDiagnosis:
    """Probes at most once a second, for any number of threads and tasks.

    Args:
        probe: returns what is wrong, if anything is.
        sleep: waits some seconds, in the transport's way.

    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[MlpserveError | None]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._probe = probe
        self._sleep = sleep
        self._lock = threading.Lock()  # never held across an await: tasks share their thread
        self._probing = False
        self._next_probe = 0.0
        self._found: MlpserveError | None = None

    async def diagnose(self) -> MlpserveError | None:
        """Return what was wrong within the last second, if anything; a copy for each caller."""
        with self._lock:
            probe_now = not self._probing and time.monotonic() >= self._next_probe
            self._probing = self._probing or probe_now
        if probe_now:
            await self._run_probe()
        while self._probing:
            await self._sleep(_POLL_SECONDS)
        return copy(self._found)

    async def _run_probe(self) -> None:
        try:
            self._found = copy(await self._probe())  # without the traceback and its frames
        except MlpserveError as error:
            self._found = copy(error)
        finally:
            self._next_probe = time.monotonic() + _INTERVAL
            self._probing = False
