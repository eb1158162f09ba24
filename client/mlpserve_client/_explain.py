"""The call Explain, written once for both clients."""

import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import explanation_pb2, prediction_pb2
from mlpserve_client import _messages
from mlpserve_client._calls import Calls, Selector
from mlpserve_client._errors import InvalidInputError, ServerError
from mlpserve_client._explanation import Explanation
from mlpserve_client._transport import EXPLAIN

Response = explanation_pb2.ExplainResponse
_MAX_DIMENSIONS = 9  # of instances of up to 8


async def explain(
    calls: Calls,
    instance: Any,
    label: int | None,
    baseline: Any,
    activations: bool,
    selector: Selector = None,
    timeout: float | None = None,
) -> Explanation:
    """Explain the score of one class for one instance."""
    fitter = calls.fitter(selector, timeout)
    array = await fitter.as_array(instance)
    await calls.scale.check(array, selector, timeout)
    request = explanation_pb2.ExplainRequest(
        instances=_messages.encode(array[np.newaxis]),
        model=selector,
        label=None if label is None else _label(label),
        baseline=None if baseline is None else _messages.encode(await fitter.as_array(baseline)),
        activations=activations,
    )
    response = await calls.call_with_retry(EXPLAIN, request, timeout)
    _check(response, array.size)
    names = await calls.class_names.of(calls.answered_by(response), timeout)
    return _explanation(response, names)


def _label(label: object) -> int:
    try:
        number = operator.index(label)  # type: ignore[arg-type]  # raises TypeError
    except TypeError as error:
        raise InvalidInputError(f"invalid label {label!r}: expected an integer") from error
    if not 0 <= number < 2**31:
        raise InvalidInputError(f"invalid label {number}: expected the number of a class, from 0")
    return number


def _check(response: Response, values: int) -> None:
    """Raise ServerError unless the answer explains one instance of this many values."""
    numbers = [*response.scores, *response.baseline_scores]
    one = len(response.labels) == 1 and len(response.scores) == len(response.baseline_scores) == 1
    if not (one and response.labels[0] >= 0 and np.isfinite(numbers).all()):
        raise ServerError(
            f"the server explained one instance with labels {response.labels[:8]} and "
            f"scores {numbers[:8]}"
        )
    if (found := _only_row(response.attributions).size) != values:
        raise ServerError(f"the server explained {found} values, the instance has {values}")


def _explanation(response: Response, names: tuple[str, ...]) -> Explanation:
    """Return a checked answer for one instance."""
    (label,) = response.labels
    return Explanation(
        label=label,
        name=names[label] if label < len(names) else str(label),
        score=response.scores[0],
        baseline_score=response.baseline_scores[0],
        attributions=_only_row(response.attributions),
        activations=tuple(map(_only_row, response.activations)),
        model=_messages.ref(response.model),
    )


def _only_row(tensor: prediction_pb2.Tensor) -> npt.NDArray[np.float32]:
    """Return the first row of a tensor that has one, read-only, in the message's memory.

    Raises:
        ServerError: it has another dtype, shape or size, or values that are not finite.

    """
    shape = list(tensor.shape[: _MAX_DIMENSIONS + 1])
    fits = shape[:1] == [1] and min(shape) > 0 and 4 * math.prod(shape) == len(tensor.data)
    known = tensor.dtype == prediction_pb2.DATA_TYPE_FLOAT32 and len(shape) <= _MAX_DIMENSIONS
    if not (fits and known):
        raise ServerError(
            f"expected float32 values of one instance, the server sent shape {shape} in "
            f"{len(tensor.data)} bytes"
        )
    values = np.frombuffer(tensor.data, "<f4").reshape(shape[1:])
    if not np.isfinite(values).all():
        raise ServerError("the server explained an instance with values that are not finite")
    return values
