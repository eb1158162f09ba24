"""Every error that the client raises, as one tree."""


class MlpserveError(Exception):
    """The base of every error that the client raises. All of them can be pickled.

    The gRPC error that caused one, if there was one, is its `__cause__`.
    """


class SettingsError(MlpserveError):
    """A setting is invalid: a target, a timeout, a certificate or a token."""


class ClientClosedError(MlpserveError):
    """The client cannot be used: it is closed, or the process was forked."""


class InvalidInputError(MlpserveError):
    """The input cannot be classified; the message says what was expected and what came.

    Attributes:
        field: the invalid field of the request, such as `instance.shape`; empty if the
            client refused the input itself.

    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class BatchTooLargeError(InvalidInputError):
    """A request or its answer is larger than allowed; `predict_batch` splits batches itself.

    Attributes:
        max_batch: maximum number of rows in one request; 0 if the limit is one of bytes.

    """

    def __init__(self, message: str, *, field: str = "", max_batch: int = 0) -> None:
        super().__init__(message, field=field)
        self.max_batch = max_batch


class ModelNotFoundError(MlpserveError):
    """There is no such version or alias; `models` lists the versions."""


class ModelRejectedError(MlpserveError):
    """The version exists, but the gate rejected it or it failed its self-test."""


class NotReadyError(MlpserveError):
    """A server is alive, but it has no model to serve yet, or it is stopping."""


class OverloadedError(MlpserveError):
    """The server has more work than it admits, after a few retries too.

    Attributes:
        retry_after: seconds to wait before another call, as the server asks; None if unknown.

    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(MlpserveError):
    """A server is ready, but its answer was not in time; pass a longer `timeout`."""


class UnauthenticatedError(MlpserveError):
    """The server requires credentials that were missing or wrong."""


class ModelForbiddenError(UnauthenticatedError):
    """The token does not allow this model."""


class ConnectionFailedError(MlpserveError):
    """No server could be reached.

    Attributes:
        target: the address or addresses that were tried.

    """

    def __init__(self, message: str, *, target: str = "") -> None:
        super().__init__(message)
        self.target = target


class ServerError(MlpserveError):
    """The server failed, or its answer is invalid.

    Attributes:
        request_id: identifies the call in the server's log; empty if the server sent none.

    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class NotOfferedError(ServerError):
    """The server does not offer this: it is older than this client, or not set up for it."""
