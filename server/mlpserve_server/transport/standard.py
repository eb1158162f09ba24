"""The standard transport: grpcio's public API around the data plane.

Predictions, ModelService, reflection and health have threads of their own each, so that none of
them can keep another from answering. Predictions beyond a bound are refused at once.
"""

import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_status import rpc_status

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_server.dataplane.admission import Waiting
from mlpserve_server.dataplane.catalog import Catalog
from mlpserve_server.dataplane.oip_catalog import OpenCatalog
from mlpserve_server.dataplane.predictions import DataPlane, Steps, complete
from mlpserve_server.dataplane.query import Result
from mlpserve_server.errors import Overloaded
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.credentials import Credentials
from mlpserve_server.system.ports import exclusive, obstacle
from mlpserve_server.transport.guard import Guard
from mlpserve_server.transport.health import Health
from mlpserve_server.transport.interceptors import Observing, current_call
from mlpserve_server.transport.reflection import enable_reflection
from mlpserve_server.transport.status import status_of

__all__ = [
    "INFERENCE_SERVICE",
    "PREDICTION_SERVICE",
    "StandardTransport",
    "TransportError",
    "too_many",
]

PREDICTION_SERVICE = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
MODEL_SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
INFERENCE_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# Room for the largest batch of inputs twice the size of MNIST's.
MAX_MESSAGE_BYTES = 64 << 20
# Of one call; each entry counts 32 more than its characters.
MAX_METADATA_BYTES = 16 << 10
PREDICTION_THREADS = 8
# A stream of reflection keeps its thread, a store that hangs keeps those of ModelService.
MODEL_THREADS = REFLECTION_THREADS = 8
# Those that say whether the server is live and ready wait for nothing.
PROBE_THREADS = 2
# Neither do refusals of those who may not call.
REFUSAL_THREADS = 2
# What is bounded, and has the fast way in the direct transport.
HOT_METHODS = (
    f"/{PREDICTION_SERVICE}/Predict",
    f"/{PREDICTION_SERVICE}/BatchPredict",
    f"/{INFERENCE_SERVICE}/ModelInfer",
)

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # One connection cannot crowd out the others, least of all one that resets its calls.
    ("grpc.max_concurrent_streams", 100),
    # Otherwise streams opened before a client has heard of that limit are refused, not queued.
    ("grpc.http.overload_protection", 0),
    # Ours is the bound on calls, with a status that says so; the core's ends them as CANCELLED.
    ("grpc.server.max_pending_requests", 1 << 20),
    ("grpc.server.max_pending_requests_hard_limit", 1 << 20),
    # Now and then a client connects anew, so that replicas and workers that came later get calls.
    ("grpc.max_connection_age_ms", 300_000),
    # Clients that keep idle connections alive are welcome, ten seconds apart.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Room for tokens and traces. With both limits alike, what passes does so always: between
    # them gRPC would refuse by chance.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
]

Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]


class TransportError(Exception):
    """The transport cannot be had, or an address cannot be taken."""


class StandardTransport:
    """Every service on one grpc.Server.

    Predictions beyond what may wait are refused; with `share_port` other processes may listen
    on its port.
    """

    name = "standard"

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
        self._access = access
        observer = observer or Observer()
        self._predictions = _CountingPool(PREDICTION_THREADS, waiting, "predict")
        self._models = futures.ThreadPoolExecutor(MODEL_THREADS, thread_name_prefix="models")
        self._rest = futures.ThreadPoolExecutor(REFLECTION_THREADS, thread_name_prefix="reflect")
        self._probes = futures.ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="probe")
        self._refusals = futures.ThreadPoolExecutor(REFUSAL_THREADS, thread_name_prefix="refuse")
        interceptors = [
            Observing(observer),
            *([Guard(access.admits, self._refusals)] if access.admits else []),
            _Admission(self._predictions),
        ]
        # On by default in gRPC: then a taken port is no error but a share of its calls.
        options = [*OPTIONS, ("grpc.so_reuseport", int(share_port))]
        self._server = grpc.server(self._rest, interceptors=interceptors, options=options)
        open_catalog = OpenCatalog(catalog, lambda: health.serving(PREDICTION_SERVICE))
        services = {
            PREDICTION_SERVICE: {
                "Predict": _on(self._predictions, _predict(data, waiting)),
                "BatchPredict": _on(self._predictions, _in_steps(data.batch_predict)),
            },
            MODEL_SERVICE: {
                "GetModelVersion": _on(self._models, _ignoring(catalog.get_model_version)),
                "ListModelVersions": _on(self._models, _ignoring(catalog.list_model_versions)),
                "ListModels": _on(self._models, _ignoring(catalog.list_models)),
            },
            INFERENCE_SERVICE: {
                "ModelInfer": _on(self._predictions, _in_steps(data.infer_in_steps)),
                "ServerLive": _on(self._probes, _ignoring(open_catalog.server_live)),
                "ServerReady": _on(self._probes, _ignoring(open_catalog.server_ready)),
                "ServerMetadata": _on(self._probes, _ignoring(open_catalog.server_metadata)),
                "ModelReady": _on(self._models, _ignoring(open_catalog.model_ready)),
                "ModelMetadata": _on(self._models, _ignoring(open_catalog.model_metadata)),
            },
        }
        self._server.add_generic_rpc_handlers([_service(*item) for item in services.items()])
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        if access.reflects:
            enable_reflection(self._server, (*services, HEALTH_SERVICE))

    @property
    def waiting(self) -> int:
        """Predictions taken on and not yet answered."""
        return self._predictions.open_calls

    def listen(self, address: str) -> str:
        """Take an address and return it with its port.

        Raises:
            TransportError: the address cannot be had; the message says why.
            PortTaken: another program listens on the socket file.

        """
        try:
            with exclusive(address):
                port = self._access.open_port(self._server, address)
        except RuntimeError as error:
            reason = obstacle(address) or self._access.bind_hint
            raise TransportError(f"cannot listen on {address}: {reason}") from error
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, wait for those in flight up to the grace time, end."""
        self._server.stop(grace_seconds).wait()
        pools = (self._predictions, self._models, self._rest, self._probes, self._refusals)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def too_many() -> Overloaded:
    """The refusal of a call that would have to wait for too long."""
    return Overloaded("too many calls are waiting")


class _CountingPool(futures.ThreadPoolExecutor):
    """A thread pool that knows how many calls it has taken on, not yet answered, and may."""

    def __init__(self, threads: int, waiting: Waiting, name: str) -> None:
        super().__init__(threads, name)
        self.open_calls = 0
        self._waiting = waiting
        self._count = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        with self._count:
            self.open_calls += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: futures.Future[Any]) -> None:
        with self._count:
            self.open_calls -= 1

    @property
    def full(self) -> bool:
        """Whether another call would have to wait for too long."""
        return self.open_calls >= self._waiting.limit


class _Admission(grpc.ServerInterceptor):
    """Refuses predictions beyond the bound before they wait; other calls always pass."""

    def __init__(self, pool: _CountingPool) -> None:
        self._pool = pool
        self._refusal = _service_handler(_answering(self._refuse))

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        hot = handler_call_details.method in HOT_METHODS
        if hot and self._pool.full:
            return self._refusal
        return continuation(handler_call_details)

    def _refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise too_many()


def _predict(data: DataPlane, waiting: Waiting) -> Behaviour:
    def predict(request: bytes, context: grpc.ServicerContext) -> bytes:
        began = time.thread_time()
        (answer,) = data.predict([request])
        waiting.computed(1, time.thread_time() - began)
        if isinstance(answer, Exception):
            raise answer
        return _noted(answer)

    return predict


def _noted(result: Result) -> bytes:
    """Return the response, and leave on the call what an observer wants to know of it."""
    if call := current_call():
        call.rows, call.version = result.rows, result.version
    return result.response


def _in_steps(answer: Callable[[bytes], Steps]) -> Behaviour:
    def take_steps(request: bytes, context: grpc.ServicerContext) -> bytes:
        return _noted(complete(answer(request), context.is_active))

    return take_steps


def _on(pool: futures.ThreadPoolExecutor, answer: Behaviour) -> Behaviour:
    """The behaviour for an answer, run on this pool instead of the server's own."""
    behaviour = _answering(answer)
    behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]  # grpcio looks for it
    return behaviour


def _ignoring(answer: Callable[[bytes], bytes]) -> Behaviour:
    """A behaviour that needs nothing to know of the call."""
    return lambda request, context: answer(request)


def _answering(answer: Behaviour) -> Behaviour:
    """The behaviour with every error turned into a status."""

    def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(request, context)
        except Exception as error:
            status = rpc_status.to_status(status_of(error, current_call()))
        context.abort_with_status(status)
        raise AssertionError("abort_with_status always raises")

    return behaviour


def _service(name: str, behaviours: dict[str, Behaviour]) -> grpc.GenericRpcHandler:
    handlers = {method: _service_handler(b) for method, b in behaviours.items()}
    return grpc.method_handlers_generic_handler(name, handlers)


def _service_handler(behaviour: Behaviour) -> Any:
    # No serializers: the data plane takes and gives bytes.
    return grpc.unary_unary_rpc_method_handler(behaviour)
