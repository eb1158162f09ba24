"""Where Prometheus gets the metrics: one HTTP endpoint for all workers."""

import logging

from prometheus_client import CollectorRegistry, start_http_server

from mlpserve_server.observability.aggregation import Totals
from mlpserve_server.system.ports import PortTaken

__all__ = ["Endpoint"]

log = logging.getLogger(__name__)


class Endpoint:
    """The HTTP endpoint, from the moment it is made; raises PortTaken."""

    def __init__(self, address: str) -> None:
        self.totals = Totals()
        registry = CollectorRegistry()
        registry.register(self.totals)
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]"), registry=registry
            )
        except OSError as error:
            text = f"cannot listen on {address} for metrics: {error.strerror}"
            raise PortTaken(text) from error
        self.address = f"{host}:{self._server.server_port}"
        log.info("showing metrics", extra={"address": f"http://{self.address}/metrics"})

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
