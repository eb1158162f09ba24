"""The standard transport: grpcio's public API around the data plane.

Prediction calls have threads of their own, so that health, reflection and ModelService answer
however many predictions wait. Beyond a bound of waiting calls the rest is refused at once.
"""

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_server.catalog import Catalog
from mlpserve_server.dataplane import DataPlane
from mlpserve_server.errors import (
    Abandoned,
    InvalidInput,
    ModelNotFound,
    ModelRefused,
    NotReady,
    Overloaded,
    ServingError,
)

__all__ = ["PREDICTION_SERVICE", "ListenError", "StandardTransport"]

PREDICTION_SERVICE = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
MODEL_SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
DOMAIN = "mlpserve"

# Room for the largest batch of inputs twice the size of MNIST's.
MAX_MESSAGE_BYTES = 64 << 20
PREDICTION_THREADS = 8
CONTROL_THREADS = 4
# Some tenths of a second of work: whoever comes later is better off with another replica.
MAX_WAITING_CALLS = 1000
RETRY_SECONDS = 0.1

OPTIONS = [
    ("grpc.so_reuseport", 0),  # a taken port is an error, not a share of its calls
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # One connection cannot crowd out the others, least of all one that resets its calls.
    ("grpc.max_concurrent_streams", 100),
    # Clients that keep idle connections alive are welcome, ten seconds apart.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]

CODES = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    ModelRefused: grpc.StatusCode.FAILED_PRECONDITION,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Abandoned: grpc.StatusCode.CANCELLED,
}

Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]

log = logging.getLogger(__name__)


class ListenError(Exception):
    """An address could not be taken."""


class StandardTransport:
    """Every service on one grpc.Server."""

    def __init__(
        self, data: DataPlane, catalog: Catalog, health_servicer: health.HealthServicer
    ) -> None:
        self._predictions = _CountingPool(PREDICTION_THREADS, thread_name_prefix="predict")
        self._control = futures.ThreadPoolExecutor(CONTROL_THREADS, thread_name_prefix="control")
        self._server = grpc.server(
            self._control, interceptors=[_Admission(self._predictions)], options=OPTIONS
        )
        hot = {
            "Predict": _hot(data.predict, self._predictions),
            "BatchPredict": _hot(data.batch_predict, self._predictions),
        }
        control = {
            "GetModelVersion": _answering(lambda request, _: catalog.get_model_version(request)),
            "ListModelVersions": _answering(
                lambda request, _: catalog.list_model_versions(request)
            ),
        }
        self._server.add_generic_rpc_handlers(
            (_service(PREDICTION_SERVICE, hot), _service(MODEL_SERVICE, control))
        )
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, self._server)
        names = (PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def listen(self, address: str) -> str:
        """Take an address and return it with its port; raises ListenError."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenError(f"cannot listen on {address}: is the port taken?") from error
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, wait for those in flight up to the grace time, end."""
        self._server.stop(grace_seconds).wait()
        self._predictions.shutdown()
        self._control.shutdown()


def status_of(error: ServingError) -> status_pb2.Status:
    """The error as google.rpc.Status with its details."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    details: list[Any] = [info]
    if isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=str(error)
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=_code(error).value[0], message=str(error), details=list(map(_packed, details))
    )


class _CountingPool(futures.ThreadPoolExecutor):
    """A thread pool that knows how many calls it has taken on and not yet answered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open_calls = 0
        self._count = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        with self._count:
            self.open_calls += 1
        future.add_done_callback(self._done)
        return future

    def _done(self, _: futures.Future[Any]) -> None:
        with self._count:
            self.open_calls -= 1


class _Admission(grpc.ServerInterceptor):
    """Refuses predictions beyond the bound before they wait; other calls always pass."""

    def __init__(self, pool: _CountingPool) -> None:
        self._pool = pool
        self._refusal = _service_handler(_answering(_refuse))

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        hot = handler_call_details.method.startswith(f"/{PREDICTION_SERVICE}/")
        if hot and self._pool.open_calls >= MAX_WAITING_CALLS:
            return self._refusal
        return continuation(handler_call_details)


def _refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    raise Overloaded(f"more than {MAX_WAITING_CALLS} calls are waiting", RETRY_SECONDS)


def _hot(
    answer: Callable[[bytes, Callable[[], bool]], bytes], pool: futures.ThreadPoolExecutor
) -> Behaviour:
    behaviour = _answering(lambda request, context: answer(request, context.is_active))
    # grpcio runs a behaviour with this attribute on that pool instead of the server's own.
    behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return behaviour


def _answering(answer: Behaviour) -> Behaviour:
    """The behaviour with every error turned into a status."""

    def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(request, context)
        except ServingError as error:
            status = status_of(error)
        except Exception as error:
            status = _internal_error(error)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort_with_status always raises")

    return behaviour


def _internal_error(fault: Exception) -> status_pb2.Status:
    """A fault of ours: the caller gets an id and nothing else, the log the rest."""
    request_id = secrets.token_hex(8)
    log.error("internal error", exc_info=fault, extra={"request_id": request_id})
    error = ServingError(f"internal error, request id {request_id}", {"request_id": request_id})
    return status_of(error)


def _code(error: ServingError) -> grpc.StatusCode:
    matches = (code for kind, code in CODES.items() if isinstance(error, kind))
    return next(matches, grpc.StatusCode.INTERNAL)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _service(name: str, behaviours: dict[str, Behaviour]) -> grpc.GenericRpcHandler:
    handlers = {method: _service_handler(b) for method, b in behaviours.items()}
    return grpc.method_handlers_generic_handler(name, handlers)


def _service_handler(behaviour: Behaviour) -> Any:
    # No serializers: the data plane takes and gives bytes.
    return grpc.unary_unary_rpc_method_handler(behaviour)
