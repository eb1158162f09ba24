"""Explain: why a class got its score. Its messages, and the attributions of many rows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlpserve.v1 import explanation_pb2, prediction_pb2
from mlpserve_model import Manifest, StoredModel
from mlpserve_model.nn.attributions import Attributions, attributions
from mlpserve_server.dataplane import codec, tensors
from mlpserve_server.dataplane.query import Float32, Selection
from mlpserve_server.errors import InvalidInput

__all__ = ["ExplainCodec", "ExplainQuery", "explain", "max_rows", "predicted"]

# Of one answer. It is several times larger than the request where pixels come as bytes, so the
# count of the request's bytes does not bound it: 1,337 rows of MNIST.
MAX_ANSWER_BYTES = 4 << 20


class ExplainQuery(NamedTuple):
    """A Query of Explain.

    Attributes:
        label: the class to explain; None for the predicted class of each row.
        baseline: one unchecked instance; None for the means of real inputs, and zeros of pixels.
        activations: whether the hidden layers' activations are wanted too.
    """

    selection: Selection
    dtype: int
    shape: Sequence[int]
    data: bytes
    label: int | None
    baseline: prediction_pb2.Tensor | None
    activations: bool

    @property
    def explains(self) -> bool:
        """True."""
        return True

    @property
    def receipts(self) -> bool:
        """False: an explanation claims nothing that a report could be about."""
        return False


class ExplainCodec:
    """ExplainRequest and ExplainResponse."""

    field = "instances"

    def decode(self, request: bytes) -> ExplainQuery:
        """Return the query in an ExplainRequest."""
        message = codec.parse(explanation_pb2.ExplainRequest, request)
        x = message.instances
        return ExplainQuery(
            codec.selection(message.model),
            x.dtype,
            tensors.dimensions(x.shape),
            x.data,
            message.label if message.HasField("label") else None,
            message.baseline if message.HasField("baseline") else None,
            message.activations,
        )

    def check(self, query: ExplainQuery, manifest: Manifest, max_batch: int) -> None:
        """Raise InvalidInput unless the arrays are a batch and a baseline, and the label is one."""
        maximum = max_rows(manifest, max_batch, query.activations)
        tensors.check_batch(query, manifest, self.field, maximum)
        classes = manifest.network.classes
        if query.label is not None and not 0 <= query.label < classes:
            raise InvalidInput("label", f"label {query.label}, expected 0 to {classes - 1}")
        if query.baseline is not None:
            tensors.check_instance(query.baseline, manifest, "baseline")

    def encode(
        self, parts: Sequence[Attributions], manifest: Manifest, query: ExplainQuery
    ) -> bytes:
        """Return the ExplainResponse; `parts` have its rows in order."""
        values = np.concatenate([part.values for part in parts])
        hidden = zip(*(part.activations for part in parts), strict=True)
        return explanation_pb2.ExplainResponse(
            attributions=codec.tensor(values.reshape(-1, *manifest.signature.input_shape)),
            labels=np.concatenate([part.labels for part in parts]).tolist(),
            scores=np.concatenate([part.scores for part in parts]).tolist(),
            baseline_scores=np.concatenate([part.baseline_scores for part in parts]).tolist(),
            activations=[codec.tensor(np.concatenate(layer)) for layer in hidden]
            if query.activations
            else (),
            model=codec.model_ref(manifest),
        ).SerializeToString()


def explain(model: StoredModel, x: Float32, query: ExplainQuery) -> Attributions:
    """Return the attributions of scaled rows `x` (rows, inputs); raise InvalidInput."""
    baseline = _baseline(query, model.manifest)
    return _attributed(model, x, baseline, ExplainCodec.field, query.label)


def predicted(model: StoredModel, x: Float32, field: str) -> Float32:
    """Return the attributions (rows, inputs) of the predicted classes; raise InvalidInput."""
    return _attributed(model, x, _usual_baseline(model.manifest), field).values


def _attributed(
    model: StoredModel, x: Float32, baseline: Float32, field: str, label: int | None = None
) -> Attributions:
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        found = attributions(model.manifest.network, model.weights, x, baseline, label)
    tensors.check_finite(
        field, found.values, found.scores, found.baseline_scores, *found.activations
    )
    return found


def max_rows(manifest: Manifest, max_batch: int, activations: bool = False) -> int:
    """Return how many rows one answer may explain, at least one and at most `max_batch`."""
    values = math.prod(manifest.signature.input_shape)
    if activations:
        values += sum(manifest.network.layer_sizes[1:-1])
    return min(max_batch, max(1, MAX_ANSWER_BYTES // (4 * values)))


def _baseline(query: ExplainQuery, manifest: Manifest) -> Float32:
    given = query.baseline
    if given is None:
        return _usual_baseline(manifest)
    rows = tensors.scaled(given.data, given.dtype, manifest, "baseline")
    return rows.reshape(manifest.network.inputs)


def _usual_baseline(manifest: Manifest) -> Float32:
    """Return the means of real inputs, where they are known, or zeros: blank for pixels."""
    values = manifest.input_values
    if manifest.signature.input_kind == "real" and values is not None and values.means:
        return np.array(values.means, np.float32)
    return np.zeros(manifest.network.inputs, np.float32)
