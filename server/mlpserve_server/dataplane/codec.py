"""The messages of `mlpserve.v1`: Predict's and BatchPredict's codecs, and what others share."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Manifest
from mlpserve_server.dataplane import tensors
from mlpserve_server.dataplane.frames import frame_of, model_ref, output_kind
from mlpserve_server.dataplane.query import Computed, Selection
from mlpserve_server.dataplane.templates import Templates
from mlpserve_server.dataplane.wire import allowed_structure, has_too_much_structure
from mlpserve_server.errors import InvalidInput

__all__ = [
    "BatchCodec",
    "PredictQuery",
    "SingleCodec",
    "model_ref",
    "numbered",
    "output_kind",
    "parse",
    "selection",
    "tensor",
]

M = TypeVar("M", bound=Message)
_NOTHING_SELECTED = Selection()
_Request = prediction_pb2.PredictRequest | prediction_pb2.BatchPredictRequest


class PredictQuery(NamedTuple):
    """A Query of `mlpserve.v1`.

    Attributes:
        known_names: hash of the class names that the caller has; None if it wants none.
    """

    selection: Selection
    dtype: int
    shape: Sequence[int]
    data: bytes
    known_names: int | None
    receipts: bool

    @property
    def explains(self) -> bool:
        """False: the messages have no attributions."""
        return False


class SingleCodec:
    """PredictRequest and PredictResponse."""

    field = "instance"

    def __init__(self) -> None:
        self._templates = Templates(_single, _with_data)

    def decode(self, request: bytes) -> PredictQuery:
        """Return the query in a PredictRequest."""
        return self._templates.decode(request)

    def check(self, query: PredictQuery, manifest: Manifest, max_batch: int) -> None:
        """Raise InvalidInput unless the array is one instance."""
        tensors.check_instance(query, manifest, self.field)

    def encode(
        self, computed: Computed, manifest: Manifest, queries: Sequence[PredictQuery]
    ) -> list[bytes]:
        """Return a PredictResponse for each row, put together from the version's frame."""
        probabilities = computed.probabilities
        frame = frame_of(manifest)
        packed = probabilities.astype("<f4", copy=False).tobytes()
        size = len(packed) // len(probabilities)
        return [
            frame.heads[label]
            + packed[row * size : (row + 1) * size]
            + frame.tail
            + (b"" if query.known_names is None else frame.names_for(query.known_names))
            for row, (label, query) in enumerate(
                zip(probabilities.argmax(axis=1).tolist(), queries, strict=True)
            )
        ]


class BatchCodec:
    """BatchPredictRequest and BatchPredictResponse."""

    field = "instances"

    def __init__(self) -> None:
        self._templates = Templates(_batch, _with_data)

    def decode(self, request: bytes) -> PredictQuery:
        """Return the query in a BatchPredictRequest."""
        return self._templates.decode(request)

    def check(self, query: PredictQuery, manifest: Manifest, max_batch: int) -> None:
        """Raise InvalidInput unless the array is a batch of at most `max_batch` instances."""
        tensors.check_batch(query, manifest, self.field, max_batch)

    def encode(
        self, computed: Computed, manifest: Manifest, queries: Sequence[PredictQuery]
    ) -> list[bytes]:
        """Return the BatchPredictResponse of the one query."""
        (query,) = queries
        probabilities = computed.probabilities
        response = prediction_pb2.BatchPredictResponse(
            labels=probabilities.argmax(axis=1).tolist(),
            probabilities=tensor(probabilities),
            model=model_ref(manifest),
            output_kind=output_kind(manifest),
        ).SerializeToString()
        # The field has the same number in both responses.
        return [response + frame_of(manifest).names_for(query.known_names)]


def parse(kind: type[M], data: bytes) -> M:
    """Return the message in these bytes; raise InvalidInput if they are not one, or a bomb."""
    name = kind.DESCRIPTOR.full_name
    allowed = allowed_structure(kind)
    if len(data) > allowed and has_too_much_structure(data, kind):
        raise InvalidInput(
            "", f"a {name} with more than {allowed:,} bytes beside its texts and values"
        )
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidInput("", f"the request is not a {name}: {error}") from error


def selection(selector: model_pb2.ModelSelector) -> Selection:
    """Return what a selector selects; raise InvalidInput for a number below 1."""
    name = selector.name or None
    match selector.WhichOneof("selector"):
        case "version":
            return Selection(numbered(selector.version, "model.version"), name=name)
        case "alias":
            return Selection(alias=selector.alias, name=name)
        case _:
            return Selection(name=name)


def numbered(version: int, field: str) -> int:
    """Return the version; raise InvalidInput for a number below 1."""
    if version < 1:
        raise InvalidInput(field, f"version {version}, expected 1 or more")
    return version


def tensor(values: NDArray[np.floating[Any]]) -> prediction_pb2.Tensor:
    """Return an array as a message, in float32."""
    return prediction_pb2.Tensor(
        dtype=prediction_pb2.DATA_TYPE_FLOAT32,
        shape=values.shape,
        data=values.astype("<f4", copy=False).tobytes(),
    )


def _single(request: bytes) -> PredictQuery:
    message = parse(prediction_pb2.PredictRequest, request)
    return _query(message, message.instance, message.receipt)


def _batch(request: bytes) -> PredictQuery:
    message = parse(prediction_pb2.BatchPredictRequest, request)
    return _query(message, message.instances, message.receipts)


def _with_data(query: PredictQuery, data: bytes) -> PredictQuery:
    selected, dtype, shape, _, known, receipts = query  # faster than _replace
    return PredictQuery(selected, dtype, shape, data, known, receipts)


def _query(message: _Request, x: prediction_pb2.Tensor, receipts: bool) -> PredictQuery:
    # Both are rare, and what a message does not have costs as much to read as what it has.
    known = message.known_class_names if message.HasField("known_class_names") else None
    selected = selection(message.model) if message.HasField("model") else _NOTHING_SELECTED
    shape = tensors.dimensions(x.shape)
    return PredictQuery(selected, x.dtype, shape, x.data, known, receipts)
