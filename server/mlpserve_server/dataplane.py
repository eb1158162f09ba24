"""The data plane: bytes in, bytes out or an error. It knows no transport.

Single calls come as many at once as are waiting and share one matrix product. A batch is
answered in steps, so that whoever runs it can stop, or turn to something else, in between.
"""

from collections.abc import Callable, Generator, Sequence

from mlpserve.v1 import prediction_pb2
from mlpserve_model import StoredModel
from mlpserve_server import codec
from mlpserve_server.errors import Abandoned
from mlpserve_server.manager import ModelManager
from mlpserve_server.observer import Observer

__all__ = ["Answer", "DataPlane", "Steps", "complete"]

# Rows of one matrix product: small enough for single calls to get their turn in between and
# for an abandoned batch to end soon, large enough that cutting it up costs nothing.
CHUNK_ROWS = 512

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
    harms nobody.
    """

    def __init__(
        self, manager: ModelManager, max_batch: int, observer: Observer | None = None
    ) -> None:
        self.manager = manager
        self._observer = observer or Observer()
        self.max_batch = max_batch

    def predict(self, requests: Sequence[bytes], may_load: bool = True) -> list[Answer]:
        """Answer PredictRequests with PredictResponses or errors, in order; raises nothing."""
        if len(requests) == 1:  # nothing to share, and every microsecond is seen by the caller
            return [self._alone(requests[0], may_load)]
        answers: dict[int, Answer] = {}
        groups: dict[tuple[int, int], _Group] = {}
        for place, request in enumerate(requests):
            try:
                model, dtype, data = self._single(request, may_load)
                key = (model.manifest.version, dtype)
                groups.setdefault(key, _Group(model, dtype, self._observer)).add(place, data)
            except Exception as error:
                answers[place] = error
        for group in groups.values():
            answers |= zip(group.places, group.answers(), strict=True)
        return [answers[place] for place in range(len(requests))]

    def batch_predict(self, request: bytes, may_load: bool = True) -> Steps:
        """Answer a BatchPredictRequest with a BatchPredictResponse; raises ServingError."""
        message = codec.parse(prediction_pb2.BatchPredictRequest, request)
        model = self._model(message, may_load)
        tensor, manifest = message.instances, model.manifest
        rows, values = codec.batch_data(tensor, manifest, "instances", self.max_batch)
        data = memoryview(values)
        row_bytes = len(data) // rows
        parts = []
        with self._observer.rows(rows):
            for first in range(0, rows, CHUNK_ROWS):
                yield
                chunk = data[first * row_bytes : (first + CHUNK_ROWS) * row_bytes]
                x = codec.scaled(chunk, tensor.dtype, manifest, "instances", first)
                parts.append(model.predict(x))
                self._observer.predicted(manifest, parts[-1])
        return codec.encode_batch(parts, manifest)

    def _alone(self, request: bytes, may_load: bool) -> Answer:
        try:
            return _together(*self._single(request, may_load), self._observer)[0]
        except Exception as error:
            return error

    def _single(self, request: bytes, may_load: bool) -> tuple[StoredModel, int, bytes]:
        message = codec.parse(prediction_pb2.PredictRequest, request)
        model = self._model(message, may_load)
        instance = message.instance
        return model, instance.dtype, codec.instance_data(instance, model.manifest, "instance")

    def _model(
        self,
        message: prediction_pb2.PredictRequest | prediction_pb2.BatchPredictRequest,
        may_load: bool,
    ) -> StoredModel:
        chosen = codec.selection(message.model)
        return self.manager.get(*chosen, may_load=may_load)


class _Group:
    """Single instances of one dtype for one model."""

    def __init__(self, model: StoredModel, dtype: int, observer: Observer) -> None:
        self.model = model
        self.dtype = dtype
        self._observer = observer
        self.places: list[int] = []
        self._data: list[bytes] = []

    def add(self, place: int, data: bytes) -> None:
        self.places.append(place)
        self._data.append(data)

    def answers(self) -> list[Answer]:
        """One matrix product for all; where a value is wrong, each by itself."""
        try:
            return list(_together(self.model, self.dtype, b"".join(self._data), self._observer))
        except Exception:
            return [self._alone(data) for data in self._data]

    def _alone(self, data: bytes) -> Answer:
        try:
            return _together(self.model, self.dtype, data, self._observer)[0]
        except Exception as error:
            return error


def _together(model: StoredModel, dtype: int, data: bytes, observer: Observer) -> list[bytes]:
    """The responses to instances put end to end; raises InvalidInput if a value is wrong."""
    x = codec.scaled(data, dtype, model.manifest, "instance")
    probabilities = model.predict(x)
    observer.predicted(model.manifest, probabilities)
    return codec.encode_singles(probabilities, model.manifest)
