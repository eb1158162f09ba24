"""The life cycle of a server: start, follow the store, drain, stop."""

import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType

from mlpserve_model.process.folders import cache_folder
from mlpserve_model.process.follower import Follower
from mlpserve_model.process.memory import usable_memory
from mlpserve_model.store.cache import CachedStore
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.listing import ModelListing
from mlpserve_model.store.reader import StoreReader
from mlpserve_server.dataplane.admission import ByteLimiter, Limits, QueueLimit
from mlpserve_server.dataplane.catalog import Catalog
from mlpserve_server.dataplane.feedback import FeedbackDesk
from mlpserve_server.dataplane.frames import frame_of
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.evidence.drift import DriftWatch
from mlpserve_server.evidence.receipts import ReceiptIssuer
from mlpserve_server.lifecycle.gauges import register_model_gauges
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.lifecycle.sampling import POLL_SECONDS
from mlpserve_server.lifecycle.shadow import Shadow
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
from mlpserve_server.transport.health import NOT_SERVING, SERVING, Health
from mlpserve_server.transport.services import (
    Backend,
    TransportError,
    channel_options,
    max_request_bytes,
    readiness_of,
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
        self._follows = True
        self._telemetry = Telemetry(settings, self._lost)
        observer = self._telemetry.observer
        self._models = Models(
            settings.model,
            settings.default_model,
            partial(_manager, settings, observer),
            ModelListing(settings.store).names,
            self._changed,
        )
        self._shadow = (
            Shadow(self._models, settings.shadow_rows, self._is_busy, observer)
            if settings.shadow
            else None
        )
        self._access = Credentials(settings)
        self._stopping = threading.Event()
        self._ready_lock = threading.Lock()
        self._health = Health()
        self._changed(self._models.managers)
        issuer = (
            ReceiptIssuer(self._access.receipt_keys, settings.audit_share, observer)
            if self._access.receipt_keys
            else None
        )
        self._desk = (
            FeedbackDesk(
                self._models,
                self._access.receipt_keys,
                FeedbackPlace(settings.feedback),
                settings.feedback_rate,
                observer,
            )
            if settings.feedback and self._access.receipt_keys
            else None
        )
        # Without metrics nobody would see it.
        self._drift = (
            DriftWatch(self._models, settings.drift_window, observer)
            if settings.drift_window and self._telemetry.counts
            else None
        )
        data = DataPlane(
            self._models,
            settings.max_batch,
            settings.max_rows,
            observer,
            self._shadow,
            issuer,
            self._drift,
        )
        self._limits = _limits(settings)
        make = _transport(settings.transport)
        self._transport = make(
            Backend(data, Catalog(self._models), self._health, self._desk),
            self._limits,
            self._access,
            channel_options(
                settings.worker > 0,
                settings.connection_age_seconds,
                self._limits.max_request,
                window_bytes(self._limits.bytes.maximum),
            ),
            observer,
        )
        register_model_gauges(observer, self._models)
        register_worker_gauges(
            observer,
            self._transport.name,
            lambda: self._transport.waiting,
            lambda: self._ready,
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
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._changed(self._models.managers)
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
        polls: list[tuple[str, Callable[[], object], float]] = [
            ("store", self._models.poll, self.settings.poll_seconds)
        ]
        polls += ((files.what, files.reload, self._access.pause) for files in self._access.files)
        if self._shadow:
            polls.append(("shadow", self._shadow.work_off, POLL_SECONDS))
        if self._drift:
            polls.append(("drift", self._drift.work_off, POLL_SECONDS))
        count = self._telemetry.observer.count
        return [
            Follower(*poll, partial(count, "mlpserve_follower_failures_total", poll[0]), self._lost)
            for poll in polls
        ]

    def _lost(self) -> None:
        """Become not ready for good: a follower has ended, perhaps that of the tokens."""
        self._follows = False
        self._changed(self._models.managers)

    def _is_busy(self) -> bool:
        """Return True if a quarter of the permitted calls is waiting."""
        return self._transport.waiting * 4 >= self._limits.queue.limit

    def _changed(self, names: Iterable[str]) -> None:
        """Have health say what is true of the server and of these models, which are in place."""
        with self._ready_lock:  # a draining server never becomes ready again
            can_serve = self._follows and not self._stopping.is_set()
            self._ready = can_serve and self._models.ready
            self._report(None, self._ready)
            for name in names:
                if manager := self._models.managers.get(name):
                    self._report(name, can_serve and manager.current is not None)
                else:
                    self._health.remove(readiness_of(name))

    def _report(self, model: str | None, ready: bool) -> None:
        self._health.set(readiness_of(model), SERVING if ready else NOT_SERVING)


def _manager(settings: Settings, observer: Observer, model: str) -> ModelManager:
    loader = Loader(_store(settings, model), settings.standby, observer, on_load=frame_of)
    return ModelManager(loader, settings.serve, settings.shadow)


def _store(settings: Settings, model: str) -> StoreReader:
    """Return the store of a model.

    An object store gets a local cache, for a start while it is unreachable.
    """
    if isinstance(settings.store, Path):
        return StoreReader(settings.store, model)
    folder = settings.cache_dir or cache_folder()
    return CachedStore(settings.store, model, folder, keep=settings.standby + 1)


def _limits(settings: Settings) -> Limits:
    max_bytes = settings.max_bytes or default_max_bytes(usable_memory(), 1)
    return Limits(
        QueueLimit(settings.max_waiting, settings.max_wait_seconds),
        ByteLimiter(max_bytes),
        # Of what is not counted: requests that should be small, and what the allocator keeps.
        MemoryWatch(max_bytes // 4 + kept_by_arenas(max_bytes)),
        max_request_bytes(max_bytes),
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
