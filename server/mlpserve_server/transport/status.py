"""What an error becomes on the wire: google.rpc.Status with its details."""

import logging
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mlpserve_server.errors import (
    Abandoned,
    InvalidInput,
    MetadataTooLarge,
    ModelForbidden,
    ModelNotFound,
    ModelUnavailable,
    NoFeedback,
    NoReceipts,
    NoRequest,
    NotReady,
    Overloaded,
    RequestTooLarge,
    ServingError,
    TooSlow,
    Unauthenticated,
    UnknownService,
    Unsupported,
)
from mlpserve_server.observability.observer import CallInfo

__all__ = ["Refusal", "refusal_of", "status_of"]

DOMAIN = "mlpserve"
_MAX_LENGTH = 500

CODES: dict[type[ServingError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    UnknownService: grpc.StatusCode.NOT_FOUND,
    ModelUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    NoReceipts: grpc.StatusCode.FAILED_PRECONDITION,
    NoFeedback: grpc.StatusCode.FAILED_PRECONDITION,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooSlow: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    ModelForbidden: grpc.StatusCode.PERMISSION_DENIED,
    Abandoned: grpc.StatusCode.CANCELLED,
    NoRequest: grpc.StatusCode.UNIMPLEMENTED,  # as gRPC's own servers have it
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    MetadataTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

log = logging.getLogger(__name__)


def status_of(error: Exception, call: CallInfo | None = None) -> status_pb2.Status:
    """Return the status for an error; a fault of ours shows the id that the log has it under."""
    if isinstance(error, ServingError):
        return _status(error)
    request_id = (call or CallInfo("", ())).request_id
    log.error("internal error", exc_info=error, extra={"request_id": request_id})
    hidden = ServingError(f"internal error, request id {request_id}", {"request_id": request_id})
    return _status(hidden)


class Refusal(NamedTuple):
    """How a call ends with an error."""

    code: int
    details: str
    metadata: Any


def refusal_of(error: Exception, call: CallInfo | None = None) -> Refusal:
    """Return the same in the form in which it is sent."""
    status = rpc_status.to_status(status_of(error, call))
    return Refusal(status.code.value[0], status.details, status.trailing_metadata)


def _status(error: ServingError) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    details: list[Any] = [info]
    message = _cut(str(error))
    if isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [_packed(detail) for detail in details]
    return status_pb2.Status(code=_code(error).value[0], message=message, details=packed)


def _code(error: ServingError) -> grpc.StatusCode:
    matches = (code for kind, code in CODES.items() if isinstance(error, kind))
    return next(matches, grpc.StatusCode.INTERNAL)


def _cut(message: str) -> str:
    """As much as goes into the metadata of an answer, where it stands twice or thrice."""
    return message if len(message) <= _MAX_LENGTH else message[: _MAX_LENGTH - 3] + "..."


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
