"""Answers of servers, checked where they come in.

A server may be broken, or not be one of ours. Whatever it answers, a function here returns a
sound result or raises ServerError, which says what is wrong with the answer.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2, prediction_pb2
from mlpserve_client import _kinds
from mlpserve_client._errors import NotOfferedError, ServerError
from mlpserve_client._explanation import Explanation
from mlpserve_client._results import (
    ModelRef,
    Prediction,
    ReportResult,
)

Floats = npt.NDArray[np.float32]

_MAX_DIMENSIONS = 32
_MAX_RECEIPT = 1024  # bytes
_ROUNDING = 0.001  # of float32, in a probability and in the sum of an answer's


class Rows(NamedTuple):
    """The answer for some rows.

    Attributes:
        labels: `[n]` int32, each the number of a class.
        probabilities: `[n, classes]` float32, read-only.
        model: the version that gave the answer.
        class_names: the names of all classes; empty if the server sent none.
        output_kind: what the probabilities are; see `Prediction`.
        receipts: one for each row, if they were requested.

    """

    labels: npt.NDArray[np.int32]
    probabilities: Floats
    model: ModelRef
    class_names: Sequence[str]
    output_kind: str
    receipts: tuple[bytes, ...] = ()


def ref(message: model_pb2.ModelRef, model: str = "", may_wait: bool = False) -> ModelRef:
    """Return a reference to a version.

    Args:
        message: the reference.
        model: the model that was selected; "" for none.
        may_wait: whether there may be no version yet.

    Raises:
        ServerError: it names no version, or another model.

    """
    if message.version < (0 if may_wait else 1):
        raise ServerError(f"the server named version {message.version}, expected 1 or more")
    if model and message.name != model:
        # Servers that know one model alone do not see which one was selected.
        raise ServerError(
            f"the model {model} was selected, and the server answered with {message.name[:63]!r}: "
            "it is older than this client, or serves that model alone"
        )
    return ModelRef(message.name, message.version, message.digest)


def probabilities(response: prediction_pb2.PredictResponse) -> Floats:
    """Return the probabilities of one instance, `[classes]`, read-only.

    Raises:
        ServerError: they are not what the server says, or the label is not the number of one.

    """
    values = response.probabilities[:]  # of a list, all this takes a tenth of NumPy's time
    if not 0 <= response.label < len(values):
        raise ServerError(
            f"the server answered label {response.label} and {len(values)} probabilities"
        )
    total = sum(values)
    low, high = (min(values), max(values)) if math.isfinite(total) else (total, total)
    _check_outputs(low, high, lambda: total, response.output_kind)
    found = np.array(values, dtype=np.float32)
    found.flags.writeable = False
    return found


def prediction(
    response: prediction_pb2.PredictResponse,
    probabilities: Floats,
    model: ModelRef,
    class_names: tuple[str, ...],
    receipt: bytes = b"",
) -> Prediction:
    """Return the answer for one instance, of parts that fit together."""
    label, kind = response.label, _kinds.output_kind(response.output_kind)
    probability, name = float(probabilities[label]), class_names[label]
    return Prediction(label, name, probability, probabilities, model, class_names, receipt, kind)


def receipts(found: Sequence[bytes], count: int) -> tuple[bytes, ...]:
    """Return the receipts of an answer.

    Args:
        found: those in the answer.
        count: number of rows whose receipts were requested.

    Raises:
        NotOfferedError: they were requested, and there are none.
        ServerError: there is another number of them, or one is too long to be a receipt.

    """
    if count and not found:
        raise NotOfferedError("the server gives no receipts: it is older than this client")
    if len(found) != count:
        raise ServerError(f"the server answered {count} rows with {len(found)} receipts")
    if any(len(receipt) > _MAX_RECEIPT for receipt in found):
        raise ServerError(f"the server sent a receipt of more than {_MAX_RECEIPT} bytes")
    return tuple(found)


def rows(
    response: prediction_pb2.BatchPredictResponse, count: int, with_receipts: bool = False
) -> Rows:
    """Return the answer for `count` rows, their probabilities in the message's memory.

    Raises:
        NotOfferedError: receipts were requested, and there are none.
        ServerError: it is not for so many rows, or its parts do not fit together.

    """
    if len(response.labels) != count:
        raise ServerError(f"the server answered {count} rows with {len(response.labels)} labels")
    found = _floats(response.probabilities)
    if found.ndim != 2 or len(found) != count:
        raise ServerError(
            f"the server answered {count} rows with probabilities of shape {found.shape}"
        )
    low, high = float(found.min()), float(found.max())
    _check_outputs(low, high, lambda: _farthest_sum(found), response.output_kind)
    labels = np.array(response.labels, dtype=np.int32)
    if not (labels.min() >= 0 and labels.max() < found.shape[1]):
        raise ServerError(
            f"the server answered labels from {labels.min()} to {labels.max()} and probabilities "
            f"of {found.shape[1]} classes"
        )
    given = receipts(response.receipts, count if with_receipts else 0)
    kind = _kinds.output_kind(response.output_kind)
    return Rows(labels, found, ref(response.model), response.class_names, kind, given)


def report_result(response: feedback_pb2.ReportResponse, count: int) -> ReportResult:
    """Return what became of some reports.

    Raises:
        ServerError: the numbers are not those of so many reports.

    """
    recorded, known = response.recorded, response.known
    if min(recorded, known) < 0 or recorded + known != count:
        raise ServerError(
            f"the server answered {count} reports with {recorded} recorded and {known} known"
        )
    return ReportResult(recorded, known)


def explanation(
    response: explanation_pb2.ExplainResponse,
    size: int,
    asked: int | None,
    class_names: tuple[str, ...],
) -> Explanation:
    """Return the explanation of one instance.

    Args:
        response: the answer.
        size: number of values of the instance.
        asked: the label whose explanation was asked for; None for the predicted one.
        class_names: the names of all classes; empty where they are not known.

    Raises:
        ServerError: it is not for this instance and label, or its parts do not fit together.

    """
    if not len(response.labels) == len(response.scores) == len(response.baseline_scores) == 1:
        raise ServerError(
            f"the server explained one instance with {len(response.labels)} labels and "
            f"{len(response.scores)} scores"
        )
    (label,), (score,) = response.labels, response.scores
    (baseline,) = response.baseline_scores
    if label < 0 or asked not in (None, label) or (class_names and label >= len(class_names)):
        wanted = "a class" if asked is None else f"label {asked}"
        raise ServerError(f"the server explained label {label}, expected {wanted}")
    if not (math.isfinite(score) and math.isfinite(baseline)):
        raise ServerError(f"the server answered the scores {score} and {baseline}")
    attributions = _only_row(response.attributions)
    if attributions.size != size:
        raise ServerError(
            f"the server explained {attributions.size} values, the instance has {size}"
        )
    return Explanation(
        label=label,
        name=class_names[label] if class_names else str(label),
        score=score,
        baseline_score=baseline,
        attributions=attributions,
        activations=tuple(map(_only_row, response.activations)),
        model=ref(response.model),
    )


def _check_outputs(low: float, high: float, total: Callable[[], float], kind: int) -> None:
    """Raise ServerError unless values of one row or many are what the server says they are.

    Args:
        low: the lowest; not finite if one of them is not, as is `high`.
        high: the highest.
        total: returns the sum of the row; of several that which is farthest from 1.
        kind: what the server says of them, an OutputKind.

    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ServerError("the server answered probabilities that are not finite")
    if kind not in (model_pb2.OUTPUT_KIND_DISTRIBUTION, model_pb2.OUTPUT_KIND_INDEPENDENT):
        return  # identity outputs, or a server that does not say it
    if low < 0 or high > 1 + _ROUNDING:
        raise ServerError(
            f"the server answered probabilities of {low:g} to {high:g}, expected from 0 to 1"
        )
    if kind == model_pb2.OUTPUT_KIND_DISTRIBUTION and abs((found := total()) - 1) > _ROUNDING:
        raise ServerError(f"the server answered probabilities that sum to {found:g}, not to 1")


def _farthest_sum(rows: Floats) -> float:
    """Return the sum of the row whose sum is farthest from 1."""
    # Of 8,192 rows of 10, a product takes 18 us, and `sum` 160.
    sums = rows @ np.ones(rows.shape[1], np.float32)
    return float(sums[np.abs(sums - 1).argmax()])


def _only_row(tensor: prediction_pb2.Tensor) -> Floats:
    """Return the row of a tensor that has one, of finite values, in the message's memory."""
    values = _floats(tensor)
    if len(values) != 1 or values.ndim < 2 or not np.isfinite(values).all():
        raise ServerError(
            f"expected finite values of one instance, the server sent shape {values.shape} of "
            f"{values.min():g} to {values.max():g}"
        )
    row: Floats = values[0]
    return row


def _floats(tensor: prediction_pb2.Tensor) -> npt.NDArray[Any]:
    """Return the values of a float32 tensor, read-only, in the message's memory."""
    shape = tuple(tensor.shape)
    whole = is_shape(shape) and 4 * math.prod(shape) == len(tensor.data)
    if not whole or tensor.dtype != prediction_pb2.DATA_TYPE_FLOAT32:
        raise ServerError(
            f"expected float32 values, the server sent shape {shape[:8]} in {len(tensor.data)} "
            "bytes"
        )
    return np.frombuffer(tensor.data, "<f4").reshape(shape)


def is_shape(shape: tuple[int, ...]) -> bool:
    return len(shape) <= _MAX_DIMENSIONS and all(side > 0 for side in shape)
