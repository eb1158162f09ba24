"""The direct transport: the prediction methods on a completion queue of our own.

grpcio's public server hands every call to a thread, which costs ten times what the answer
costs. Here one thread takes the calls from gRPC's core, answers all that have arrived with one
matrix product, and never waits for more. Everything else stays on the standard transport's
server, on the same port.
"""

from mlpserve_server.dataplane.admission import Waiting
from mlpserve_server.dataplane.catalog import Catalog
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.credentials import Credentials
from mlpserve_server.transport.event_loop import Loop
from mlpserve_server.transport.health import Health
from mlpserve_server.transport.standard import StandardTransport

__all__ = ["DirectTransport"]


class DirectTransport(StandardTransport):
    """The standard transport, with the prediction methods on a faster way."""

    name = "direct"

    def __init__(
        self,
        data: DataPlane,
        catalog: Catalog,
        health: Health,
        access: Credentials,
        waiting: Waiting,
        share_port: bool = False,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(data, catalog, health, access, waiting, share_port, observer)
        self._loop = Loop(self._server, data, self._predictions, waiting, access.admits, observer)

    @property
    def waiting(self) -> int:
        """Predictions taken on and not yet answered."""
        return self._loop.open

    def start(self) -> None:
        """Begin to answer."""
        super().start()
        self._loop.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, wait for those in flight up to the grace time, end."""
        super().stop(grace_seconds)  # returns when our calls have ended too
        self._loop.stop()
