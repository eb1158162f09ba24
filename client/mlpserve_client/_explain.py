"""The call Explain, written once for both clients."""

from typing import Any

import numpy as np

from mlpserve.v1 import explanation_pb2
from mlpserve_client import _answers, _messages
from mlpserve_client._calls import Calls, Selector
from mlpserve_client._errors import InvalidInputError
from mlpserve_client._explanation import Explanation
from mlpserve_client._transport import EXPLAIN


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
    number = None if label is None else _label(label)
    request = explanation_pb2.ExplainRequest(
        instances=_messages.encode(array[np.newaxis]),
        model=selector,
        label=number,
        baseline=None if baseline is None else _messages.encode(await fitter.as_array(baseline)),
        activations=activations,
    )
    response = await calls.call_with_retry(EXPLAIN, request, timeout)
    ref = calls.answered_by(response, request.model.name)
    names = await calls.class_names.of(ref, timeout)
    return _answers.explanation(response, array.size, number, names)


def _label(label: object) -> int:
    number = _messages.integer(label, "label")
    if not 0 <= number < 2**31:
        raise InvalidInputError(f"invalid label {number}: expected the number of a class, from 0")
    return number
