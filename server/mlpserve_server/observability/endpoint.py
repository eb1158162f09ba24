"""The HTTP endpoint where Prometheus scrapes the metrics of all workers."""

import logging

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from mlpserve_model.process.pages import Page, PageServer
from mlpserve_server.observability.aggregation import WorkerAggregator
from mlpserve_server.system.ports import PortTaken

__all__ = ["Endpoint"]

log = logging.getLogger(__name__)


class Endpoint:
    """The endpoint, which listens from its construction on.

    Args:
        address: host:port; port 0 is any free one.

    Raises:
        PortTaken: the address cannot be listened on.

    """

    def __init__(self, address: str) -> None:
        self.totals = WorkerAggregator()
        self._registry = CollectorRegistry()
        self._registry.register(self.totals)
        try:
            self._server = PageServer(address, "mlpserve-server", {"/metrics": self._page})
        except OSError as error:
            text = f"cannot listen on {address} for metrics: {error.strerror} "
            text += "(--metrics-listen chooses another address)"
            raise PortTaken(text) from error
        self.address = self._server.address
        log.info("showing metrics", extra={"address": f"http://{self.address}/metrics"})

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    def _page(self, accept: str) -> Page:
        encode, content_type = choose_encoder(accept)
        return Page(content_type, encode(self._registry))
