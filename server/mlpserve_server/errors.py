"""What a caller can be told, in domain words; transports map it to their own codes."""

from collections.abc import Collection

__all__ = [
    "Abandoned",
    "BatchTooLarge",
    "InvalidInput",
    "ManyRows",
    "MetadataTooLarge",
    "ModelForbidden",
    "ModelNotFound",
    "ModelUnavailable",
    "NoFeedback",
    "NoReceipts",
    "NoRequest",
    "NotFinite",
    "NotInMemory",
    "NotReady",
    "Overloaded",
    "QuotaExceeded",
    "RequestTooLarge",
    "ServingError",
    "TooSlow",
    "Unauthenticated",
    "UnknownService",
    "Unsupported",
    "as_value",
]


class ServingError(Exception):
    """A call that cannot be answered; the message is for the caller.

    `reason` is for programs, `metadata` more of the same.
    """

    reason = "INTERNAL"

    def __init__(self, message: str, metadata: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.metadata = metadata or {}


class InvalidInput(ServingError):
    """The request is wrong; `field` is the path of what is wrong in it."""

    reason = "INVALID_INPUT"

    def __init__(self, field: str, message: str, limit: dict[str, str] | None = None) -> None:
        super().__init__(message, limit)
        self.field = field


class NotFinite(InvalidInput):
    """What a network makes of finite values is not finite; `rows` are those, in their product."""

    def __init__(self, field: str, rows: Collection[int]) -> None:
        super().__init__(field, "values too large: the network's answer is not finite")
        self.rows = rows


class BatchTooLarge(InvalidInput):
    """More instances than one request may have; the metadata has `max_batch`."""

    reason = "BATCH_TOO_LARGE"

    def __init__(self, field: str, rows: int, max_batch: int) -> None:
        message = f"{rows} instances in one request, expected at most {max_batch}: send several"
        super().__init__(field, message, {"max_batch": str(max_batch)})


class ModelNotFound(ServingError):
    """There is no such version or alias."""

    reason = "MODEL_NOT_FOUND"


class ModelUnavailable(ServingError):
    """The version exists but must not answer: the gate rejected it, or it is damaged."""

    reason = "MODEL_REJECTED"


class NoReceipts(ServingError):
    """The server has no keys for receipts."""

    reason = "NO_RECEIPTS"

    def __init__(self) -> None:
        super().__init__("this server gives no receipts: it was started without --receipt-keys")


class NoFeedback(ServingError):
    """The server has no place for reports."""

    reason = "NO_FEEDBACK"

    def __init__(self) -> None:
        super().__init__("this server takes no reports: it was started without --feedback")


class UnknownService(ServingError):
    """Health knows no service of this name."""

    reason = "UNKNOWN_SERVICE"

    def __init__(self) -> None:
        super().__init__("there is no such service")


class Unsupported(ServingError):
    """A method of other servers that this one does not have; the message says what it has."""

    reason = "UNSUPPORTED"


class NotInMemory(ServingError):
    """Answering needs a load from the store, which the caller did not want to wait for."""


class ManyRows(ServingError):
    """Answering takes longer than calls may that share a product: it is to be done in steps."""


class NotReady(ServingError):
    """There is nothing to answer with yet, or the store cannot be read just now."""

    reason = "NOT_READY"


class Overloaded(ServingError):
    """More work than is admitted; `retry_seconds` is when to try again.

    A client that knows another replica should try that one.
    """

    reason = "OVERLOADED"
    retry_seconds = 0.1


class QuotaExceeded(Overloaded):
    """The caller has made more reports than one may."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many reports from one caller: try again in {seconds:.1f} seconds")
        self.retry_seconds = seconds


class TooSlow(ServingError):
    """The request did not come in time."""

    reason = "TOO_SLOW"


class NoRequest(ServingError):
    """The call ended without a whole request."""

    reason = "NO_REQUEST"

    def __init__(self) -> None:
        super().__init__("the call has no complete request message, expected exactly one")


class RequestTooLarge(ServingError):
    """A compressed request becomes larger than the server takes."""

    reason = "REQUEST_TOO_LARGE"

    def __init__(self, maximum: int) -> None:
        super().__init__(f"more than {maximum} bytes in a compressed request: send less at a time")


class MetadataTooLarge(ServingError):
    """The metadata of the call is larger than the server takes."""

    reason = "METADATA_TOO_LARGE"

    def __init__(self, maximum: int) -> None:
        super().__init__(f"more than {maximum} bytes of metadata in one call: send less")


class Unauthenticated(ServingError):
    """The call shows no token or a wrong one; the answer does not say which."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("a valid token is expected in the metadata: authorization: Bearer TOKEN")


class ModelForbidden(ServingError):
    """The token of the call does not allow this model, which may not exist."""

    reason = "MODEL_FORBIDDEN"

    def __init__(self, model: str) -> None:
        super().__init__(f"the token does not allow model {model[:63]!r}: use one that does")


class Abandoned(ServingError):
    """The caller cancelled or its deadline passed: nobody waits for the answer."""

    reason = "ABANDONED"


def as_value(error: Exception) -> Exception:
    """Return the error fit to be kept in a variable: without the frames that raised it.

    These hold the request, and the variable is in one of them: a cycle that keeps the memory of
    both until the garbage collector runs. The frames of an unforeseen error are kept for the log.
    """
    if isinstance(error, ServingError):
        error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
