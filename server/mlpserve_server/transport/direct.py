"""The direct transport: the prediction methods on a completion queue of our own.

grpcio's public server hands every call to a thread, which costs ten times what the answer
costs. Here one thread takes the calls from gRPC's core, answers all that have arrived with one
matrix product, and never waits for more. Everything else stays on the standard transport's
server, on the same port.
"""

from collections.abc import Sequence

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.credentials import Credentials
from mlpserve_server.transport.event_loop import EventLoop
from mlpserve_server.transport.services import Backend
from mlpserve_server.transport.standard import StandardTransport

__all__ = ["DirectTransport"]


class DirectTransport(StandardTransport):
    """The standard transport, with the prediction methods on a faster way."""

    name = "direct"

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        credentials: Credentials,
        options: Sequence[tuple[str, int]],
        observer: Observer | None = None,
    ) -> None:
        """Make a transport that does not listen yet, from what the standard one is made of."""
        super().__init__(backend, limits, credentials, options, observer)
        self._loop = EventLoop(
            self._server, backend.data, limits, credentials.scope, observer or Observer()
        )

    @property
    def waiting(self) -> int:
        """Predictions and explanations taken on and not yet answered."""
        return super().waiting + self._loop.open

    @property
    def computing(self) -> bool:
        """Whether there is a call whose request is here and whose answer is not."""
        return super().computing or self._loop.computing

    @property
    def busy(self) -> bool:
        """Whether there is any call, also one that is being read or sent."""
        return super().busy or self._loop.busy

    def start(self) -> None:
        """Begin to answer."""
        super().start()
        self._loop.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, wait for those being computed up to the grace time, end."""
        super().stop(grace_seconds)  # returns when our calls have ended too
        self._loop.stop()
