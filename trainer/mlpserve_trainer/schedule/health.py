"""GET /healthz and GET /metrics, over HTTP, beside the schedule."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from mlpserve_model.process.addresses import is_host_and_port
from mlpserve_model.process.pages import Page, PageServer
from mlpserve_trainer.errors import TrainerError, UsageError
from mlpserve_trainer.schedule.scheduler import Health

__all__ = ["listening"]

logger = logging.getLogger(__name__)


@contextmanager
def listening(
    address: str, health_now: Callable[[], Health], registry: CollectorRegistry
) -> Iterator[int]:
    """Answer at HOST:PORT while the context lasts; yields the port, which may be asked for as 0.

    Raises:
        UsageError: the address is not HOST:PORT.
        TrainerError: it cannot be listened on.

    """

    def health(accept: str) -> Page:
        now = health_now()
        status = HTTPStatus.OK if now.healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return Page("application/json", json.dumps(now.facts).encode() + b"\n", status)

    def metrics(accept: str) -> Page:
        encode, content_type = choose_encoder(accept)
        return Page(content_type, encode(registry))

    _check(address)
    try:
        server = PageServer(address, "mlpserve-trainer", {"/healthz": health, "/metrics": metrics})
    except OSError as error:
        raise TrainerError(f"cannot listen on {address}: {error.strerror or error}") from error
    with closing(server):
        logger.info("health and metrics", extra={"address": server.address})
        yield server.port


def _check(address: str) -> None:
    # Without a host it is every address of the machine.
    if not is_host_and_port(f"0.0.0.0{address}" if address.startswith(":") else address):
        raise UsageError(f"--health-listen {address!r}: expected HOST:PORT, as 127.0.0.1:9101")
