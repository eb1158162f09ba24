"""Descriptions of versions that servers send, checked as other answers are."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC

from mlpserve.v1 import model_pb2
from mlpserve_client import _kinds
from mlpserve_client._answers import is_shape, ref
from mlpserve_client._errors import ServerError
from mlpserve_client._results import InputValues, ModelVersion

_MAX_INPUTS = 2**26  # values of one instance; far above what a server takes
_MAX_LISTED = 100_000  # versions of one list
_MAX_LISTED_BYTES = 256 << 20


class Listed:
    """The versions of a list, gathered page by page up to a maximum.

    Args:
        model: the model whose versions they must be; "" for any.

    Attributes:
        versions: those of the pages so far.
        next_token: token of the page to get next, if the list is not complete.
        complete: whether the last page is there.

    """

    def __init__(self, model: str = "") -> None:
        self._model = model
        self.versions: list[ModelVersion] = []
        self.next_token = ""
        self.complete = False
        self._bytes = 0

    def add(
        self, next_token: str, page: Sequence[model_pb2.ModelVersion], follows: "Follows"
    ) -> None:
        """Add the versions of a page.

        Args:
            next_token: token of the page after it, "" after the last one.
            page: its versions.
            follows: tells whether a version may come after another one in this list.

        Raises:
            ServerError: the list has no end, is too long, or describes an impossible version.

        """
        self.next_token = next_token
        self.complete = not next_token
        self._bytes += sum(message.ByteSize() for message in page)
        count = len(self.versions) + len(page)
        if count > _MAX_LISTED or self._bytes > _MAX_LISTED_BYTES:
            raise ServerError(
                f"the server's list has no end, or more than {_MAX_LISTED} versions or "
                f"{_MAX_LISTED_BYTES >> 20} MiB"
            )
        found = [
            model_version(message, self._model, may_wait=follows is by_name) for message in page
        ]
        # They come in order, so that a list of few versions cannot go on for ever.
        if found and self.versions and not follows(self.versions[-1], found[0]):
            raise ServerError("the server's list has no end: it repeats a page")
        if not (found or self.complete):
            raise ServerError("the server's list has no end: a page is empty")
        self.versions += found


Follows = Callable[[ModelVersion, ModelVersion], bool]


def by_name(one: ModelVersion, other: ModelVersion) -> bool:
    """Return True if the other one may come after the one in a list of models."""
    return one.ref.name < other.ref.name


def newest_first(one: ModelVersion, other: ModelVersion) -> bool:
    """Return True if the other one may come after the one in a list of versions."""
    return one.version > other.version


def model_version(
    message: model_pb2.ModelVersion, model: str = "", may_wait: bool = False
) -> ModelVersion:
    """Return the description of a version, as `ref` says.

    Raises:
        ServerError: its time, its input shape or a number in it is impossible, or it is of another
            model.

    """
    try:
        created = message.create_time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ServerError(f"the server sent an impossible creation time: {error}") from error
    shape = tuple(message.input_shape)
    if not is_shape(shape) or math.prod(shape) > _MAX_INPUTS:
        raise ServerError(f"the server described inputs of the impossible shape {shape[:8]}")
    metrics = dict(message.metrics)
    values = message.input_values
    if not all(map(math.isfinite, (*metrics.values(), values.low, values.high))):
        raise ServerError("the server described a version with numbers that are not finite")
    if not 0 <= message.input_maximum < math.inf:
        raise ServerError(f"the server described inputs of 0 to {message.input_maximum}")
    return ModelVersion(
        ref=ref(message.ref, model, may_wait),
        state=_kinds.state(message.state),
        reason=message.state_reason,
        aliases=tuple(message.aliases),
        input_shape=shape,
        class_names=tuple(message.class_names),
        created=created,
        metrics=metrics,
        input_maximum=message.input_maximum or None,
        input_values=_input_values(message),
        input_kind=_kinds.input_kind(message.input_kind),
        output_kind=_kinds.output_kind(message.output_kind),
    )


def _input_values(message: model_pb2.ModelVersion) -> InputValues | None:
    if not message.HasField("input_values"):
        return None
    values = message.input_values
    return InputValues(_kinds.values_kind(values.kind), values.low, values.high)
