"""Every error that the client raises, as one tree."""


class MlpserveError(Exception):
    """The base of every error that the client raises. All of them can be pickled.

    The gRPC error that caused one, if there was one, is its `__cause__`.
    """


class SettingsError(MlpserveError):
    """A setting makes no sense: a target, a timeout, a certificate, a token."""


class ClientClosedError(MlpserveError):
    """The client cannot be used here: it is closed, or it came through a fork."""


class InvalidInputError(MlpserveError):
    """The input cannot be classified; the message says what was expected and what came.

    Attributes:
        field: the field of the request that is wrong, such as `instance.shape`;
            empty when the client noticed before there was a request.

    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class BatchTooLargeError(InvalidInputError):
    """One request held more rows than the server takes; `predict_batch` splits for you.

    Attributes:
        max_batch: the most rows that the server takes in one request.

    """

    def __init__(self, message: str, *, field: str = "", max_batch: int = 0) -> None:
        super().__init__(message, field=field)
        self.max_batch = max_batch


class ModelNotFoundError(MlpserveError):
    """No such version or alias; `models()` lists what there is."""


class ModelRejectedError(MlpserveError):
    """The version exists, but the gate refused it or it failed its self-test."""


class NotReadyError(MlpserveError):
    """A server is alive, but it has no model to serve yet, or it is stopping."""


class OverloadedError(MlpserveError):
    """The server has more work than it admits, and still had after a few retries.

    Attributes:
        retry_after: seconds that the server asks callers to wait; None if it did not say.

    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(MlpserveError):
    """A server is there, but the answer did not come in time; pass a longer `timeout`."""


class UnauthenticatedError(MlpserveError):
    """The server wants credentials that were missing or wrong."""


class ConnectionFailedError(MlpserveError):
    """No server could be reached.

    Attributes:
        target: where the client looked for one.

    """

    def __init__(self, message: str, *, target: str = "") -> None:
        super().__init__(message)
        self.target = target


class ServerError(MlpserveError):
    """The server failed, or gave an answer that makes no sense.

    Attributes:
        request_id: find this in the server's log; empty if it sent none.

    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id
