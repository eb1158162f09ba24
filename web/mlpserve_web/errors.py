"""What goes wrong, as HTTP has it: {"error": "..."} with the code that fits the gRPC status."""

from mlpserve_client import (
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
    UnauthenticatedError,
)

__all__ = ["HttpError", "http_status"]

# The HTTP code of each gRPC status: https://google.aip.dev/193 and google/rpc/code.proto.
_CODES: tuple[tuple[type[MlpserveError], int], ...] = (
    (InvalidInputError, 400),
    (ModelRejectedError, 400),
    (ModelForbiddenError, 403),
    (UnauthenticatedError, 401),
    (ModelNotFoundError, 404),
    (OverloadedError, 429),
    (NotOfferedError, 501),
    (NotReadyError, 503),
    (ConnectionFailedError, 503),
    (DeadlineError, 504),
)


class HttpError(Exception):
    """A request that is refused here, before it reaches a model server."""

    def __init__(self, status: int, message: str, retry_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_seconds = retry_seconds


def http_status(error: MlpserveError) -> int:
    """Return the HTTP code for an error of the client library; 500 for a fault of the server."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 500)
