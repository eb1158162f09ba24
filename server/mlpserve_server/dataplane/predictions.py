"""The data plane: bytes in, bytes out or an error. It knows no transport.

Single calls come as many at once as are waiting and share one matrix product. A batch is
answered in steps, so that whoever runs it can stop, or turn to something else, in between.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve.v1 import prediction_pb2
from mlpserve_model import Manifest, StoredModel
from mlpserve_server.dataplane import codec
from mlpserve_server.dataplane import oip_codec as open_inference
from mlpserve_server.dataplane.admission import Rows
from mlpserve_server.errors import Abandoned
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.shadow import Shadow
from mlpserve_server.observability.observer import Observer

__all__ = ["Answer", "DataPlane", "Steps", "complete"]

# Rows of one matrix product: small enough for single calls to get their turn in between and
# for an abandoned batch to end soon, large enough that cutting it up costs nothing.
CHUNK_ROWS = 512

Float32 = NDArray[np.float32]
# The answer to one call: a response, or the reason why there is none.
Answer = bytes | Exception
# Work in steps, each a millisecond or so; its value is the response.
Steps = Generator[None, None, bytes]


def complete(steps: Steps, active: Callable[[], bool]) -> bytes:
    """Take all the steps; raises Abandoned when `active` says that nobody waits any more."""
    while active():
        try:
            next(steps)
        except StopIteration as end:
            response: bytes = end.value
            return response
    raise Abandoned("the caller no longer waits")


class DataPlane:
    """Answers prediction requests with whatever the manager serves.

    `may_load` tells whether a selected version may be read from the store on the way; when it
    may not, such a call is answered with NotInMemory and is to be put again where waiting
    harms nobody. Batches beyond `max_rows` rows in flight are refused with Overloaded.
    """

    def __init__(
        self,
        manager: ModelManager,
        max_batch: int,
        max_rows: int,
        observer: Observer | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self.manager = manager
        self._observer = observer or Observer()
        self._shadow = shadow
        self.max_batch = max_batch
        self._rows = Rows(max_rows)
        self._singles = _Contract(self._single, self._classify, "instance", codec.encode_singles)
        self._infers = _Contract(
            self._infer, self._classify, open_inference.FIELD, open_inference.encode
        )

    def predict(self, requests: Sequence[bytes], may_load: bool = True) -> list[Answer]:
        """Answer PredictRequests with PredictResponses or errors, in order; raises nothing."""
        return _together(requests, may_load, self._singles)

    def infer(self, requests: Sequence[bytes], may_load: bool = True) -> list[Answer]:
        """Answer small ModelInferRequests as `predict` does its own; raises nothing."""
        return _together(requests, may_load, self._infers)

    def batch_predict(self, request: bytes, may_load: bool = True) -> Steps:
        """Answer a BatchPredictRequest with a BatchPredictResponse; raises ServingError."""
        message = codec.parse(prediction_pb2.BatchPredictRequest, request)
        model = self._model(message, may_load)
        tensor, manifest = message.instances, model.manifest
        rows, data = codec.batch_data(tensor, manifest, "instances", self.max_batch)
        probabilities = yield from self._in_chunks(model, tensor.dtype, data, rows, "instances")
        return codec.encode_batch(probabilities, manifest, codec.known_names(message))

    def infer_in_steps(self, request: bytes, may_load: bool = True) -> Steps:
        """Answer a ModelInferRequest with a ModelInferResponse; raises ServingError."""
        model, dtype, data, asked = self._infer(request, may_load)
        field = open_inference.FIELD
        probabilities = yield from self._in_chunks(model, dtype, data, asked.rows, field)
        whole = np.concatenate(probabilities)
        return open_inference.encode(whole, model.manifest, [asked])[0]

    def _in_chunks(
        self, model: StoredModel, dtype: int, values: bytes, rows: int, field: str
    ) -> Generator[None, None, list[Float32]]:
        """The probabilities of so many rows, in parts, one for each step."""
        data = memoryview(values)
        row_bytes = len(data) // rows
        parts = []
        with self._rows.admitted(rows), self._observer.rows(rows):
            for first in range(0, rows, CHUNK_ROWS):
                yield
                chunk = data[first * row_bytes : (first + CHUNK_ROWS) * row_bytes]
                x = codec.scaled(chunk, dtype, model.manifest, field, first)
                parts.append(self._classify(model, x))
        return parts

    def _classify(self, model: StoredModel, x: Float32) -> Float32:
        """The probabilities of these rows; whoever watches predictions hears of them."""
        probabilities = model.predict(x)
        self._observer.predicted(model.manifest, probabilities)
        if self._shadow:
            self._shadow.offer(model, x, probabilities)
        return probabilities

    def _single(self, request: bytes, may_load: bool) -> "_Decoded":
        message = codec.parse(prediction_pb2.PredictRequest, request)
        model = self._model(message, may_load)
        instance = message.instance
        data = codec.instance_data(instance, model.manifest, "instance")
        return model, instance.dtype, data, codec.known_names(message)

    def _infer(self, request: bytes, may_load: bool) -> "_Decoded":
        infer = open_inference.decode(request)
        codec.check_name(infer.model, self.manager.store.model)
        model = self.manager.get(*infer.selection, may_load=may_load)
        field = open_inference.FIELD
        rows, data = codec.rows_data(infer, model.manifest, field, self.max_batch)
        return model, infer.dtype, data, infer.asked(rows)

    def _model(
        self,
        message: prediction_pb2.PredictRequest | prediction_pb2.BatchPredictRequest,
        may_load: bool,
    ) -> StoredModel:
        chosen = codec.selection(message.model, self.manager.store.model)
        return self.manager.get(*chosen, may_load=may_load)


# Who answers, the dtype and the data of checked instances, and what encoding has to know.
_Decoded = tuple[StoredModel, int, bytes, Any]


class _Contract(NamedTuple):
    """How requests that may share a matrix product become instances, and these answers."""

    decode: Callable[[bytes, bool], _Decoded]
    classify: Callable[[StoredModel, Float32], Float32]
    field: str
    encode: Callable[[Float32, Manifest, Sequence[Any]], list[bytes]]


def _together(requests: Sequence[bytes], may_load: bool, contract: _Contract) -> list[Answer]:
    if len(requests) == 1:  # nothing to share, and every microsecond is seen by the caller
        return [_by_itself(requests[0], may_load, contract)]
    answers: dict[int, Answer] = {}
    groups: dict[tuple[int, int], _Group] = {}
    for place, request in enumerate(requests):
        try:
            model, dtype, data, asked = contract.decode(request, may_load)
            # By the model itself: a number may stand for another one after a swap.
            key = (id(model), dtype)
            if key not in groups:
                groups[key] = _Group(contract, model, dtype)
            groups[key].add(place, data, asked)
        except Exception as error:
            answers[place] = error
    for group in groups.values():
        answers |= zip(group.places, group.answers(), strict=True)
    return [answers[place] for place in range(len(requests))]


def _by_itself(request: bytes, may_load: bool, contract: _Contract) -> Answer:
    try:
        model, dtype, data, asked = contract.decode(request, may_load)
        return _responses(contract, model, dtype, data, [asked])[0]
    except Exception as error:
        return error


class _Group:
    """Instances of one dtype for one model, from several requests."""

    def __init__(self, contract: _Contract, model: StoredModel, dtype: int) -> None:
        self.places: list[int] = []
        self._contract = contract
        self._model = model
        self._dtype = dtype
        self._data: list[bytes] = []
        self._asked: list[Any] = []

    def add(self, place: int, data: bytes, asked: Any) -> None:
        self.places.append(place)
        self._data.append(data)
        self._asked.append(asked)

    def answers(self) -> list[Answer]:
        """One matrix product for all; where a value is wrong, each by itself."""
        try:
            return list(self._responses(b"".join(self._data), self._asked))
        except Exception:
            return list(map(self._alone, self._data, self._asked))

    def _alone(self, data: bytes, asked: Any) -> Answer:
        try:
            return self._responses(data, [asked])[0]
        except Exception as error:
            return error

    def _responses(self, data: bytes, asked: Sequence[Any]) -> list[bytes]:
        return _responses(self._contract, self._model, self._dtype, data, asked)


def _responses(
    contract: _Contract, model: StoredModel, dtype: int, data: bytes, asked: Sequence[Any]
) -> list[bytes]:
    """The responses to instances put end to end; raises InvalidInput if a value is wrong."""
    x = codec.scaled(data, dtype, model.manifest, contract.field)
    return contract.encode(contract.classify(model, x), model.manifest, asked)
