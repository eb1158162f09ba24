"""gRPC's errors become ours; the details are made by the official libraries here."""

import pickle
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import mlpserve_client
from mlpserve_client import (
    BatchTooLargeError,
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
from mlpserve_client._error_mapping import translate


class Failed(grpc.RpcError):
    """A failed call, as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, text: str, *details: Any) -> None:
        super().__init__()
        self._code = code
        self._text = text
        status = status_pb2.Status(code=code.value[0], message=text)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        self.metadata: Any = [("grpc-status-details-bin", status.SerializeToString())]

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return self.metadata


def info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain="mlpserve", metadata=metadata)


Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("failed", "kind"),
    [
        (Failed(Code.INVALID_ARGUMENT, "", info("INVALID_INPUT")), InvalidInputError),
        (Failed(Code.INVALID_ARGUMENT, "", info("BATCH_TOO_LARGE")), BatchTooLargeError),
        (Failed(Code.NOT_FOUND, "", info("MODEL_NOT_FOUND")), ModelNotFoundError),
        (Failed(Code.FAILED_PRECONDITION, "", info("MODEL_REJECTED")), ModelRejectedError),
        (Failed(Code.UNAVAILABLE, "", info("NOT_READY")), NotReadyError),
        (Failed(Code.UNAVAILABLE, "connection refused"), ConnectionFailedError),
        (Failed(Code.RESOURCE_EXHAUSTED, "", info("OVERLOADED")), OverloadedError),
        (Failed(Code.RESOURCE_EXHAUSTED, "message larger than max (9 vs. 4)"), BatchTooLargeError),
        (Failed(Code.DEADLINE_EXCEEDED, ""), DeadlineError),
        (Failed(Code.UNAUTHENTICATED, "", info("UNAUTHENTICATED")), UnauthenticatedError),
        (Failed(Code.PERMISSION_DENIED, "", info("MODEL_FORBIDDEN")), ModelForbiddenError),
        (Failed(Code.INTERNAL, "", info("INTERNAL")), ServerError),
        (Failed(Code.UNIMPLEMENTED, "unknown method"), NotOfferedError),
        (Failed(Code.FAILED_PRECONDITION, "", info("NO_RECEIPTS")), NotOfferedError),
        (Failed(Code.FAILED_PRECONDITION, "", info("NO_FEEDBACK")), NotOfferedError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_failure_has_its_error(failed: Failed, kind: type[MlpserveError]) -> None:
    assert type(translate(failed, "host:1")) is kind


def test_a_bad_request_names_its_field() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="instance.shape")
    bad = error_details_pb2.BadRequest(field_violations=[violation])

    error = translate(Failed(Code.INVALID_ARGUMENT, "no", info("INVALID_INPUT"), bad), "host:1")

    assert isinstance(error, InvalidInputError)
    assert error.field == "instance.shape"


@pytest.mark.parametrize(("text", "limit"), [("8192", 8192), ("", 0), ("many", 0), ("-3", 0)])
def test_a_batch_that_is_too_large_tells_the_limit(text: str, limit: int) -> None:
    failed = Failed(Code.INVALID_ARGUMENT, "no", info("BATCH_TOO_LARGE", max_batch=text))

    error = translate(failed, "host:1")

    assert isinstance(error, BatchTooLargeError)
    assert error.max_batch == limit


def test_an_overload_tells_how_long_to_wait() -> None:
    delay = duration_pb2.Duration(seconds=1, nanos=250_000_000)
    retry = error_details_pb2.RetryInfo(retry_delay=delay)

    error = translate(Failed(Code.RESOURCE_EXHAUSTED, "full", info("OVERLOADED"), retry), "host:1")

    assert isinstance(error, OverloadedError)
    assert error.retry_after == 1.25


def test_a_fault_of_the_server_tells_the_request_id() -> None:
    failed = Failed(Code.INTERNAL, "sorry", info("INTERNAL", request_id="abc"))

    error = translate(failed, "host:1")

    assert isinstance(error, ServerError)
    assert error.request_id == "abc"


def test_a_failed_connection_names_the_target() -> None:
    error = translate(Failed(Code.UNAVAILABLE, "connection refused"), "host:1")

    assert isinstance(error, ConnectionFailedError)
    assert error.target == "host:1"
    assert "host:1" in str(error)


@pytest.mark.parametrize("metadata", [None, (), [("grpc-status-details-bin", b"\xff\xff")]])
def test_missing_or_foreign_details_do_not_hide_the_failure(metadata: Any) -> None:
    failed = Failed(Code.NOT_FOUND, "no such version")
    failed.metadata = metadata

    assert "no such version" in str(translate(failed, "host:1"))


@pytest.mark.parametrize(
    "error",
    [
        InvalidInputError("no", field="instance"),
        BatchTooLargeError("no", field="instances", max_batch=7),
        OverloadedError("full", retry_after=0.5),
        ConnectionFailedError("nobody", target="host:1"),
        ServerError("sorry", request_id="abc"),
        DeadlineError("late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling_with_all_they_know(error: MlpserveError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_every_public_error_belongs_to_the_tree() -> None:
    errors = [name for name in mlpserve_client.__all__ if name.endswith("Error")]

    assert len(errors) > 10
    assert all(issubclass(getattr(mlpserve_client, name), MlpserveError) for name in errors)
