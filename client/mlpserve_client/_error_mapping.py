"""Maps gRPC's errors to the client's."""

import re
from collections.abc import Sequence
from typing import Protocol, cast

import grpc
from google.protobuf.message import DecodeError

from mlpserve.v1 import status_pb2
from mlpserve_client._errors import (
    BatchTooLargeError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineError,
    InvalidInputError,
    MlpserveError,
    ModelForbiddenError,
    ModelNotFoundError,
    ModelRejectedError,
    NotOfferedError,
    NotReadyError,
    OverloadedError,
    ServerError,
    UnauthenticatedError,
)

# What gRPC says, with the code UNKNOWN, of calls whose connection broke in a way that has no code:
# by a damaged TLS record, for one.
_BROKEN_CONNECTION = "Stream removed"
_DETAILS_KEY = "grpc-status-details-bin"
_MAX_RETRY_AFTER = 86_400  # seconds; what is outside of 0 to this is not a delay
_NUMBER = re.compile("[0-9]{1,9}")  # int() takes no thousands of digits


class _Failure(Protocol):
    """What the errors of both stacks have, though their types do not say so."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...


class _Details:
    """The parts of google.rpc.Status that a server of ours sends."""

    def __init__(self, failure: _Failure) -> None:
        self.info = status_pb2.ErrorInfo()
        self.field = ""
        self.retry_after: float | None = None
        try:
            for detail in _status_of(failure).details:
                self._read(detail.type_url.rpartition("/")[2], detail.value)
        except DecodeError:
            pass  # another program's bytes under this key: the code and the text remain

    def _read(self, kind: str, value: bytes) -> None:
        if kind == "google.rpc.ErrorInfo":
            self.info = status_pb2.ErrorInfo.FromString(value)
        elif kind == "google.rpc.BadRequest":
            violations = status_pb2.BadRequest.FromString(value).field_violations
            self.field = violations[0].field if violations else ""
        elif kind == "google.rpc.RetryInfo":
            delay = status_pb2.RetryInfo.FromString(value).retry_delay
            seconds = delay.seconds + delay.nanos / 1e9
            self.retry_after = seconds if 0 <= seconds <= _MAX_RETRY_AFTER else None


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Return the status code of a failed call."""
    return cast("_Failure", error).code()


def reason_of(error: grpc.RpcError) -> str:
    """Return the reason that a server of ours gives for a failed call; "" for none."""
    return _Details(cast("_Failure", error)).info.reason


def is_of_broken_connection(error: grpc.RpcError) -> bool:
    """Return True if the call failed as UNKNOWN because its connection broke.

    gRPC itself retries by code alone, and UNKNOWN is the code of a server's fault too.
    """
    failure = cast("_Failure", error)
    is_unknown = failure.code() is grpc.StatusCode.UNKNOWN
    return is_unknown and (failure.details() or "").startswith(_BROKEN_CONNECTION)


def translate(error: grpc.RpcError, target: str) -> MlpserveError:
    """Turn a failed call's error into ours; the caller raises it `from error`."""
    failure = cast("_Failure", error)
    details = _Details(failure)
    text = failure.details() or failure.code().name
    reason = details.info.reason
    unreachable = failure.code() is grpc.StatusCode.UNAVAILABLE or is_of_broken_connection(error)
    match failure.code():
        case grpc.StatusCode.INVALID_ARGUMENT if reason == "BATCH_TOO_LARGE":
            limit = _number(details.info.metadata.get("max_batch", ""))
            return BatchTooLargeError(text, field=details.field, max_batch=limit)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidInputError(text, field=details.field)
        case grpc.StatusCode.NOT_FOUND:
            return ModelNotFoundError(text)
        case grpc.StatusCode.FAILED_PRECONDITION if reason in ("NO_RECEIPTS", "NO_FEEDBACK"):
            return NotOfferedError(text)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return ModelRejectedError(text)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return _exhausted(text, details)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError("no answer within the deadline: pass a longer timeout")
        case grpc.StatusCode.PERMISSION_DENIED if reason == "MODEL_FORBIDDEN":
            return ModelForbiddenError(text)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return UnauthenticatedError(f"{text} (MLPSERVE_TOKEN or a token file supplies one)")
        case grpc.StatusCode.UNAVAILABLE if reason == "NOT_READY":
            return NotReadyError(f"{target}: {text}")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.UNKNOWN if unreachable:
            return ConnectionFailedError(f"{target} cannot be reached: {text}", target=target)
        case grpc.StatusCode.UNIMPLEMENTED if not reason:
            return NotOfferedError(
                f"the server does not offer this call ({text}): it is older than this client, "
                "or not an mlpserve server"
            )
        case grpc.StatusCode.CANCELLED if "Channel closed" in text:
            return ClientClosedError("the client was closed during the call")
    return _fault(failure.code(), text, details)


def _exhausted(text: str, details: _Details) -> MlpserveError:
    # gRPC itself gives this code to a message over the limit, but then no ErrorInfo.
    if "larger than max" in text and not details.info.reason:
        return BatchTooLargeError(f"the request or its answer is too large: {text}")
    return OverloadedError(text, retry_after=details.retry_after)


def _fault(code: grpc.StatusCode, text: str, details: _Details) -> ServerError:
    request_id = details.info.metadata.get("request_id", "")
    return ServerError(f"{code.name}: {text}", request_id=request_id)


def _status_of(failure: _Failure) -> status_pb2.ErrorStatus:
    for key, value in failure.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.ErrorStatus.FromString(value)
    return status_pb2.ErrorStatus()


def _number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0
