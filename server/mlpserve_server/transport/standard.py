"""The standard transport: grpcio's public API around the data plane.

Predictions, ModelService, reflection and health have threads of their own each, so that none of
them can keep another from answering. Calls beyond the limit of each are refused at once.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures

import grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.oip_catalog import OpenCatalog
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.credentials import Credentials
from mlpserve_server.system.ports import exclusive, obstacle
from mlpserve_server.transport.handlers import (
    CallPool,
    Handler,
    predict,
    run_to_end,
    too_many,
    unary_handler,
    watch_handler,
    without_context,
)
from mlpserve_server.transport.interceptors import (
    AdmissionInterceptor,
    ObservingInterceptor,
    TokenAuthInterceptor,
)
from mlpserve_server.transport.pools import MAX_CALLS, PatientPool
from mlpserve_server.transport.reflection import enable_reflection
from mlpserve_server.transport.services import (
    COPIES,
    EXPLANATION_SERVICE,
    INFERENCE_SERVICE,
    MAX_REQUEST_BYTES,
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    Backend,
    TransportError,
)

__all__ = ["StandardTransport"]

# Refusals wait for nothing.
REFUSAL_THREADS = 2
# Calls of ModelService and probes that are answered or unread, each.
MAX_OTHER_CALLS = 128
# How often to look for calls that are to be given up, while there are any.
_LOOK_SECONDS, _IDLE_SECONDS = 0.01, 0.1
# How long requests that should be small and are not are given up after memory was short.
_CAREFUL_SECONDS = 1.0
# How long the answers to the last calls may take to leave when the server stops.
_LINGER_SECONDS = 1.0
_STOP_LOOK_SECONDS = 0.05

# A handler, and the pool that it runs on.
Method = tuple[Handler, PatientPool]


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
        self._predictions = CallPool("predict", limits, lambda: limits.queue.limit)
        # Batches may wait for memory, and single predictions not for them.
        self._batches = CallPool("batch", limits, lambda: limits.queue.limit)
        # A store that hangs keeps the threads of ModelService.
        self._models = CallPool("models", limits, lambda: MAX_OTHER_CALLS)
        self._probes = CallPool("probe", limits, lambda: MAX_OTHER_CALLS)
        self._checks = CallPool("check", limits, lambda: MAX_CALLS)
        self._rest = PatientPool("reflect")
        self._refusals = futures.ThreadPoolExecutor(REFUSAL_THREADS, thread_name_prefix="refuse")
        self._pools_by_method: dict[str, PatientPool] = {}
        self._server = self._make_server(options, observer or Observer())
        self._stopped = threading.Event()

    @property
    def waiting(self) -> int:
        """Predictions taken on and not yet answered."""
        return self._predictions.open_calls + self._batches.open_calls

    @property
    def computing(self) -> bool:
        """Whether calls are waited for whose requests are here."""
        return any(pool.computing for pool in self._pools)

    @property
    def busy(self) -> bool:
        """Whether there is any call, also one that is being read or sent."""
        return any(pool.busy for pool in self._pools)

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
        threading.Thread(target=self._look, name="limits", daemon=True).start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, wait for those being computed up to the grace time, end.

        Connections that do not answer, requests that do not come and answers that are not read
        delay it by a second at most.
        """
        ended = self._server.stop(grace_seconds)
        quiet_since = time.monotonic()
        while not ended.wait(_STOP_LOOK_SECONDS):
            if self.computing:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _LINGER_SECONDS:
                self._server.stop(0)
                ended.wait()
        self._stopped.set()
        for pool in (*self._pools, self._rest, self._refusals):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _pools(self) -> tuple[CallPool, ...]:
        return self._predictions, self._batches, self._models, self._probes, self._checks

    def _make_server(self, options: Sequence[tuple[str, int]], observer: Observer) -> grpc.Server:
        admits = self._credentials.admits
        interceptors: list[grpc.ServerInterceptor] = [ObservingInterceptor(observer)]
        if admits:
            interceptors.append(TokenAuthInterceptor(admits, self._refusals))
        interceptors.append(AdmissionInterceptor(self._is_full, too_many(), self._refusals))
        server = grpc.server(self._rest, interceptors=interceptors, options=options)
        services = {
            PREDICTION_SERVICE: self._prediction_service(),
            MODEL_SERVICE: self._model_service(),
            INFERENCE_SERVICE: self._inference_service(),
            EXPLANATION_SERVICE: self._explanation_service(),
            HEALTH_SERVICE: self._health_service(),
        }
        for name, methods in services.items():
            self._pools_by_method |= {f"/{name}/{m}": pool for m, (_, pool) in methods.items()}
            handlers = {method: handler for method, (handler, _) in methods.items()}
            handler = grpc.method_handlers_generic_handler(name, handlers)
            server.add_generic_rpc_handlers([handler])
        if self._credentials.reflects:
            enable_reflection(server, services, self._rest)
        return server

    def _prediction_service(self) -> dict[str, Method]:
        data, pool = self._backend.data, self._predictions
        batch = unary_handler(
            run_to_end(data.batch_predict), self._batches, COPIES * MAX_REQUEST_BYTES
        )
        return {
            "Predict": (unary_handler(predict(data, self._limits), pool), pool),
            "BatchPredict": (batch, self._batches),
        }

    def _model_service(self) -> dict[str, Method]:
        catalog = self._backend.catalog
        return {
            "GetModelVersion": _plain(catalog.get_model_version, self._models),
            "ListModelVersions": _plain(catalog.list_model_versions, self._models),
            "ListModels": _plain(catalog.list_models, self._models),
        }

    def _inference_service(self) -> dict[str, Method]:
        data, health = self._backend.data, self._backend.health
        catalog = OpenCatalog(self._backend.catalog, lambda: health.serving(PREDICTION_SERVICE))
        infer = unary_handler(
            run_to_end(data.infer_in_steps), self._batches, COPIES * MAX_REQUEST_BYTES
        )
        return {
            "ModelInfer": (infer, self._batches),
            "ServerLive": _plain(catalog.server_live, self._probes),
            "ServerReady": _plain(catalog.server_ready, self._probes),
            "ServerMetadata": _plain(catalog.server_metadata, self._probes),
            "ModelReady": _plain(catalog.model_ready, self._models),
            "ModelMetadata": _plain(catalog.model_metadata, self._models),
        }

    def _explanation_service(self) -> dict[str, Method]:
        explain = run_to_end(self._backend.data.explain)
        handler = unary_handler(explain, self._batches, COPIES * MAX_REQUEST_BYTES)
        return {"Explain": (handler, self._batches)}

    def _health_service(self) -> dict[str, Method]:
        health = self._backend.health
        return {
            "Check": _plain(health.check, self._checks),
            "Watch": (watch_handler(health), health.watch_pool),
        }

    def _is_full(self, method: str) -> bool:
        pool = self._pools_by_method.get(method)
        return pool is not None and pool.full

    def _look(self) -> None:
        careful_until = 0.0
        while not self._stopped.wait(_LOOK_SECONDS if self.busy else _IDLE_SECONDS):
            for patient in (self._rest, self._backend.health.watch_pool):
                patient.give_up_slow()
            if not self.busy:
                self._limits.memory.settle()
                continue
            if self._limits.memory_is_short():
                careful_until = time.monotonic() + _CAREFUL_SECONDS
            for pool in self._pools:
                pool.give_up(pressed=time.monotonic() < careful_until)


def _plain(answer: Callable[[bytes], bytes], pool: CallPool) -> Method:
    return unary_handler(without_context(answer), pool), pool
