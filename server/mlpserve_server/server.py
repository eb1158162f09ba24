"""The life cycle of a server: start, follow the store, drain, stop."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType

from mlpserve_model.process.choices import are_several
from mlpserve_model.process.folders import cache_folder
from mlpserve_model.process.follower import Follower
from mlpserve_model.process.memory import usable_memory
from mlpserve_model.store.cache import CachedStore
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.listing import ModelListing
from mlpserve_model.store.reader import StoreReader
from mlpserve_model.store.stamps import StampListing
from mlpserve_server.dataplane.admission import ByteLimiter, Limits, QueueLimit
from mlpserve_server.dataplane.catalog import Catalog
from mlpserve_server.dataplane.fair_shares import FairShares
from mlpserve_server.dataplane.feedback import FeedbackDesk
from mlpserve_server.dataplane.frames import frame_of
from mlpserve_server.dataplane.inference import Inference
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.evidence.drift import DriftWatch
from mlpserve_server.evidence.receipts import ReceiptIssuer
from mlpserve_server.lifecycle.gauges import register_model_gauges
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.lifecycle.sampling import POLL_SECONDS
from mlpserve_server.lifecycle.shadow import Shadow
from mlpserve_server.lifecycle.store_news import StoreNews
from mlpserve_server.observability.observer import Observer
from mlpserve_server.observability.telemetry import Telemetry
from mlpserve_server.observability.worker_gauges import (
    register_follower_gauges,
    register_worker_gauges,
)
from mlpserve_server.security.credentials import Credentials
from mlpserve_server.settings import Settings, default_max_bytes
from mlpserve_server.system.memory import MemoryWatch, kept_by_arenas
from mlpserve_server.system.ports import require_free
from mlpserve_server.transport.direct import DirectTransport
from mlpserve_server.transport.grpc_core import unsupported
from mlpserve_server.transport.health import Health
from mlpserve_server.transport.readiness import Readiness
from mlpserve_server.transport.services import (
    Backend,
    TransportError,
    channel_options,
    max_request_bytes,
    window_bytes,
)
from mlpserve_server.transport.standard import StandardTransport

__all__ = ["Server"]

log = logging.getLogger(__name__)


class Server:
    """A model server; also a context manager that starts and stops it.

    It is alive once it has started, and ready once a model is loaded.

    Raises:
        StoreError: the model name is invalid.
        UnusableFile: a certificate or token file cannot be used.
        TelemetryError: the packages for traces are not installed.
        TransportError: the transport is not supported here.

    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.addresses: tuple[str, ...] = ()
        self._stopping = False
        self._telemetry = Telemetry(settings, lambda: self._readiness.end())
        observer = self._telemetry.observer
        self._stamps = _stamps(settings)
        self._models = Models(
            settings.model,
            settings.default_model,
            partial(_manager, settings, observer, self._stamps),
            (self._stamps or ModelListing(settings.store)).names,
            lambda names: self._readiness.update(names),
        )
        self._health = Health()
        self._readiness = Readiness(self._models, self._health)
        self._access = Credentials(settings)
        self._shadow = (
            Shadow(self._models, settings.shadow_rows, self._is_busy, observer)
            if settings.shadow
            else None
        )
        # Without metrics nobody would see it.
        self._drift = (
            DriftWatch(self._models, settings.drift_window, observer)
            if settings.drift_window and self._telemetry.counts
            else None
        )
        self._desk = _desk(settings, self._models, self._access, observer)
        self._limits = _limits(settings, self._models)
        shares = self._limits.shares
        inference = Inference(settings.max_rows, observer, self._shadow, self._drift, shares)
        issuer = _issuer(settings, self._access, observer)
        data = DataPlane(self._models, settings.max_batch, inference, issuer)
        backend = Backend(data, Catalog(self._models), self._health, self._desk)
        options = _channel_options(settings, self._limits)
        make = _transport(settings.transport)
        self._transport = make(backend, self._limits, self._access, options, observer)
        register_model_gauges(observer, self._models)
        register_worker_gauges(
            observer,
            self._transport.name,
            lambda: self._transport.waiting,
            lambda: self._readiness.ready,
        )
        self._followers = self._make_followers()
        register_follower_gauges(observer, [*self._telemetry.followers, *self._followers])

    @property
    def address(self) -> str:
        """The first address that the server listens on, with its port."""
        return self.addresses[0]

    @property
    def metrics_address(self) -> str:
        """The address of this server's own metrics endpoint; empty if there is none."""
        return self._telemetry.metrics_address

    def start(self) -> None:
        """Listen, and start to follow the store.

        Raises:
            TransportError: an address cannot be listened on.
            PortTaken: another program listens on an address.

        """
        if not self.settings.worker:  # of a worker, the supervisor holds the addresses
            for address in self.settings.listen:
                require_free(address)
        self.addresses = tuple(map(self._transport.listen, self.settings.listen))
        self._telemetry.start()
        self._transport.start()
        fields = {"address": ",".join(self.addresses), "store": str(self.settings.store)}
        log.info("listening", extra=fields)
        if self._shadow:
            self._shadow.start()
        if self._drift:
            self._drift.start()
        for follower in self._followers:
            follower.start()

    def stop(self) -> None:
        """Report NOT_SERVING, answer for the drain time, finish calls in flight, and stop."""
        if self._stopping:
            return
        self._stopping = True
        self._readiness.end()
        for follower in self._followers:
            follower.stop()
        self._models.close()
        if self._shadow:
            self._shadow.stop()
        log.info("draining", extra={"seconds": self.settings.drain_seconds})
        threading.Event().wait(self.settings.drain_seconds)
        self._health.end_watches()
        self._transport.stop(self.settings.grace_seconds)
        self._health.close()
        if self._desk:
            self._desk.close()
        self._telemetry.close()
        log.info("stopped")

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _make_followers(self) -> list[Follower]:
        # The updates of the supervisor are waited for instead.
        pause = 0 if self.settings.watch_line else self.settings.poll_seconds
        polls: list[tuple[str, Callable[[], object], float]] = [("store", self._poll, pause)]
        polls += ((files.what, files.reload, self._access.pause) for files in self._access.files)
        if self._shadow:
            polls.append(("shadow", self._shadow.work_off, POLL_SECONDS))
        if self._drift:
            polls.append(("drift", self._drift.work_off, POLL_SECONDS))
        count = self._telemetry.observer.count
        failures, lost = "mlpserve_follower_failures_total", self._readiness.end
        return [Follower(*poll, partial(count, failures, poll[0]), lost) for poll in polls]

    def _poll(self) -> None:
        if self._stamps:
            self._stamps.refresh()
        if not self._stopping:
            self._models.poll()

    def _is_busy(self) -> bool:
        """Return True if a quarter of the permitted calls is waiting."""
        return self._transport.waiting * 4 >= self._limits.queue.limit


def _manager(
    settings: Settings, observer: Observer, stamps: StampListing | StoreNews | None, model: str
) -> ModelManager:
    loader = Loader(_store(settings, model), settings.standby, observer, on_load=frame_of)
    stamp = partial(stamps.of, model) if stamps else lambda: None
    return ModelManager(loader, settings.serve.of(model), settings.shadow, stamp)


def _stamps(settings: Settings) -> StampListing | StoreNews | None:
    """Return what knows of changes without asking for each model; None if nothing does.

    It is what the supervisor has found, or a listing of an object store of several models.
    """
    store, line = settings.store, settings.watch_line
    several = are_several(settings.model)
    listing = StampListing(store) if several and not isinstance(store, Path) else None
    if not line:
        return listing
    list_names = (listing or ModelListing(store)).names
    return StoreNews(line, settings.poll_seconds, list_names, listing)


def _store(settings: Settings, model: str) -> StoreReader:
    """Return the store of a model.

    An object store gets a local cache, for a start while it is unreachable.
    """
    if isinstance(settings.store, Path):
        return StoreReader(settings.store, model)
    folder = settings.cache_dir or cache_folder()
    return CachedStore(settings.store, model, folder, keep=settings.standby + 1)


def _issuer(settings: Settings, access: Credentials, observer: Observer) -> ReceiptIssuer | None:
    if access.receipt_keys is None:
        return None
    return ReceiptIssuer(access.receipt_keys, settings.audit_share, observer)


def _desk(
    settings: Settings, models: Models, access: Credentials, observer: Observer
) -> FeedbackDesk | None:
    if settings.feedback is None or access.receipt_keys is None:
        return None
    place = FeedbackPlace(settings.feedback)
    return FeedbackDesk(models, access.receipt_keys, place, settings.feedback_rate, observer)


def _limits(settings: Settings, models: Models) -> Limits:
    waiting = settings.max_waiting, settings.max_wait_seconds
    max_bytes = settings.max_bytes or default_max_bytes(usable_memory(), 1)
    return Limits(
        QueueLimit(*waiting),
        ByteLimiter(max_bytes),
        # Of what is not counted: requests that should be small, and what the allocator keeps.
        MemoryWatch(max_bytes // 4 + kept_by_arenas(max_bytes)),
        max_request_bytes(max_bytes),
        FairShares(models, *waiting) if models.several else None,
    )


def _channel_options(settings: Settings, limits: Limits) -> list[tuple[str, int]]:
    return channel_options(
        settings.worker > 0,
        settings.connection_age_seconds,
        limits.max_request,
        window_bytes(limits.bytes.maximum),
    )


def _transport(wanted: str) -> type[StandardTransport]:
    """Return the transport class of this name; "auto" is the direct one where it is supported."""
    if wanted == "standard":
        return StandardTransport
    if reason := unsupported():
        if wanted == "direct":
            raise TransportError(f"no direct transport: {reason}")
        log.warning("using the standard transport", extra={"reason": reason})
        return StandardTransport
    return DirectTransport
