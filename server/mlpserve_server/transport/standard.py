"""The standard transport: grpcio's public API around the data plane.

Predictions, ModelService, reflection and health have threads of their own each, so that none of
them can keep another from answering. Calls beyond the limit of each are refused at once.
"""

import threading
import time
from collections.abc import Sequence

import grpc

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.credentials import Credentials
from mlpserve_server.system.ports import exclusive, obstacle
from mlpserve_server.transport.handlers import Handler, too_many
from mlpserve_server.transport.interceptors import (
    AdmissionInterceptor,
    Beyond,
    ObservingInterceptor,
    TokenAuthInterceptor,
)
from mlpserve_server.transport.methods import Pools, methods_by_service
from mlpserve_server.transport.pools import PatientPool
from mlpserve_server.transport.reflection import METHODS as REFLECTION_METHODS
from mlpserve_server.transport.reflection import enable_reflection
from mlpserve_server.transport.services import Backend, TransportError

__all__ = ["StandardTransport"]

# Intervals of the search for calls to give up: while there are any, and while there are none.
_CHECK_SECONDS, _IDLE_SECONDS = 0.01, 0.1
# How long requests that should be small and are not are given up after memory was short.
_CAREFUL_SECONDS = 1.0
# How long the answers to the last calls may take to leave when the server stops.
_LINGER_SECONDS = 1.0
_STOP_CHECK_SECONDS = 0.05


class StandardTransport:
    """Every service on one grpc.Server."""

    name = "standard"

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        credentials: Credentials,
        options: Sequence[tuple[str, int]],
        observer: Observer | None = None,
    ) -> None:
        """Make a transport that does not listen yet.

        Args:
            backend: What answers calls.
            limits: What is admitted.
            credentials: Who may call.
            options: The options of the gRPC server, from `channel_options`.
            observer: What calls are reported to.

        """
        self._backend = backend
        self._limits = limits
        self._credentials = credentials
        self._pools = Pools(limits)
        # By method: where its calls run, and what answers them while that is full.
        self._ways: dict[str, tuple[PatientPool, Handler | None]] = {}
        self._server = self._make_server(options, observer or Observer())
        self._stopped = threading.Event()

    @property
    def waiting(self) -> int:
        """Predictions taken on and not yet answered."""
        return self._pools.predictions.open_calls + self._pools.batches.open_calls

    @property
    def computing(self) -> bool:
        """Whether there is a call whose request is here and whose answer is not."""
        return any(pool.computing for pool in self._pools.calls)

    @property
    def busy(self) -> bool:
        """Whether there is any call, also one that is being read or sent."""
        return self._pools.busy

    def listen(self, address: str) -> str:
        """Take an address and return it with its port.

        Raises:
            TransportError: the address cannot be had; the message says why.
            PortTaken: another program listens on the socket file.

        """
        try:
            with exclusive(address):
                port = self._credentials.open_port(self._server, address)
        except RuntimeError as error:
            reason = obstacle(address) or self._credentials.bind_hint
            raise TransportError(f"cannot listen on {address}: {reason}") from error
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()
        threading.Thread(target=self._give_up_overdue, name="limits", daemon=True).start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, wait for those being computed up to the grace time, end.

        Connections that do not answer, requests that do not come and answers that are not read
        delay it by a second at most.
        """
        ended = self._server.stop(grace_seconds)
        quiet_since = time.monotonic()
        while not ended.wait(_STOP_CHECK_SECONDS):
            if self.computing:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _LINGER_SECONDS:
                self._server.stop(0)
                ended.wait()
        self._stopped.set()
        self._pools.shut_down()

    def _make_server(self, options: Sequence[tuple[str, int]], observer: Observer) -> grpc.Server:
        scope_of = self._credentials.scope
        interceptors: list[grpc.ServerInterceptor] = [ObservingInterceptor(observer)]
        if scope_of:
            interceptors.append(TokenAuthInterceptor(scope_of, self._pools.refusals))
        interceptors.append(AdmissionInterceptor(self._beyond, too_many(), self._pools.refusals))
        server = grpc.server(self._pools.reflection, interceptors=interceptors, options=options)
        services = methods_by_service(self._backend, self._pools, self._credentials)
        for name, methods in services.items():
            self._ways |= {f"/{name}/{m}": (each.pool, each.beyond) for m, each in methods.items()}
            handlers = {method: each.handler for method, each in methods.items()}
            handler = grpc.method_handlers_generic_handler(name, handlers)
            server.add_generic_rpc_handlers([handler])
        if self._credentials.reflects:
            enable_reflection(server, services, self._pools.reflection)
            self._ways |= dict.fromkeys(REFLECTION_METHODS, (self._pools.reflection, None))
        return server

    def _beyond(self, path: str) -> Beyond:
        """Return whether a method is full, and what answers its calls then; None refuses them."""
        pool, beyond = self._ways.get(path, (None, None))
        if pool is None or not pool.full:
            return False, None
        return True, None if self._pools.judged.full else beyond

    def _give_up_overdue(self) -> None:
        careful_until = 0.0
        while not self._stopped.wait(_CHECK_SECONDS if self._pools.busy else _IDLE_SECONDS):
            for patient in (self._pools.reflection, self._backend.health.watch_pool):
                patient.give_up_slow()
            if not self.busy:
                self._limits.memory.settle()
            if not self._pools.busy:
                continue
            if self._limits.memory_is_short():
                careful_until = time.monotonic() + _CAREFUL_SECONDS
            for pool in self._pools.calls:
                pool.give_up(pressed=time.monotonic() < careful_until)
