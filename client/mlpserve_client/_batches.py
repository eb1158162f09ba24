"""Many instances: split under the server's limits, several requests in flight, in order."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client import _messages as _wire
from mlpserve_client._calls import Core, Selector
from mlpserve_client._class_names import KnownNames
from mlpserve_client._errors import BatchTooLargeError, InvalidInputError, ServerError
from mlpserve_client._images import Fitter
from mlpserve_client._inputs import as_instances, has_images, is_image
from mlpserve_client._results import BatchPrediction, ModelRef, Prediction
from mlpserve_client._transport import BATCH_PREDICT, Call

Rows: TypeAlias = npt.NDArray[Any]  # [n, ...]
Response: TypeAlias = prediction_pb2.BatchPredictResponse

_IN_FLIGHT = 4  # requests; enough to keep the network and the server busy at once
_REQUEST_BYTES = 512 * 1024  # large enough to amortise a call, far below gRPC's limits
_STREAM_BYTES = 16 * 1024 * 1024  # of one request or answer, when the caller chose the rows
_MAX_BATCH = 8192  # rows; the server's default, until it names another limit
_UNKNOWN_CLASSES = 256  # assumed until an answer shows how many there are


class _Asked(NamedTuple):
    rows: Rows
    request: prediction_pb2.BatchPredictRequest
    known: KnownNames | None  # None: the answer need not bring names
    call: Call[Response] | None = None


class Batches:
    """Splits batches and streams into requests; remembers the server's limits."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._max_batch = _MAX_BATCH
        self._classes = _UNKNOWN_CLASSES

    async def predict_batch(
        self, instances: Any, chosen: Selector = None, timeout: float | None = None
    ) -> BatchPrediction:
        """Classify many instances by one version."""
        array = await self._as_array(instances, chosen, timeout)
        if not len(array):
            return await self._nothing(chosen, timeout)
        size = self._rows_within(_REQUEST_BYTES, array[0])
        known = self._core.class_names.known
        head = await self._answer(_asked(array[:size], chosen, known), chosen, timeout)
        gathered = await self._gathered(len(array), head[0], known, timeout)
        gathered.add(head)
        rest = _slices(array, size, self._rows_within(_REQUEST_BYTES, array[0]))
        async with aclosing(self._in_order(rest, _pin(gathered.ref), timeout)) as answers:
            async for _, responses in answers:
                gathered.add(responses)
        return gathered.result()

    async def predict_stream(
        self,
        instances: Iterable[Any] | AsyncIterable[Any],
        chosen: Selector = None,
        timeout: float | None = None,
        batch_size: int = 256,
    ) -> AsyncGenerator[Prediction]:
        """Classify instances one after the other, without holding all of them."""
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise InvalidInputError(f"invalid batch_size {batch_size!r}: expected 1 or more rows")
        if not isinstance(instances, Iterable | AsyncIterable):
            raise InvalidInputError(
                f"expected an iterable of instances, got {type(instances).__name__}"
            )

        def size(instance: Rows) -> int:
            return min(batch_size, self._rows_within(_STREAM_BYTES, instance))

        groups = _groups(instances, self._core.fitter(chosen, timeout), size)
        answers = self._in_order(groups, chosen, timeout, with_names=True)
        async with aclosing(answers):
            async for known, responses in answers:
                for response in responses:
                    rows = len(response.labels)
                    gathered = await self._gathered(rows, response, known, timeout)
                    gathered.add([response])
                    for prediction in gathered.result():
                        yield prediction

    async def _as_array(self, instances: Any, chosen: Selector, timeout: float | None) -> Rows:
        if not has_images(instances):
            return as_instances(instances)
        if not all(is_image(instance) for instance in instances):
            raise InvalidInputError("a batch holds images or arrays, not some of each")
        fitter = self._core.fitter(chosen, timeout)
        return np.stack([await fitter.as_array(image) for image in instances])

    async def _nothing(self, chosen: Selector, timeout: float | None) -> BatchPrediction:
        model = await self._core.model(chosen, timeout)
        return _Gathered(0, model.ref, model.class_names).result()

    def _rows_within(self, limit: int, instance: Rows) -> int:
        """Return how many rows keep both the request and its answer below `limit` bytes."""
        request = int(instance.size) * (1 if instance.dtype.kind in "ui" else 4)
        answer = self._classes * 4
        return max(1, min(self._max_batch, limit // max(request, answer)))

    async def _in_order(
        self,
        batches: AsyncIterator[Rows],
        chosen: Selector,
        timeout: float | None,
        with_names: bool = False,
    ) -> AsyncGenerator[tuple[KnownNames, list[Response]]]:
        """Ask for every batch, a few at a time, and give the answers in order."""
        waiting: deque[_Asked] = deque()
        try:
            async for rows in batches:
                known = self._core.class_names.known
                asked = _asked(rows, chosen, known if with_names else None)
                call = self._core.start(BATCH_PREDICT, asked.request, timeout)
                waiting.append(asked._replace(call=call))
                if len(waiting) >= _IN_FLIGHT:
                    yield await self._next_answer(waiting, chosen, timeout)
            while waiting:
                yield await self._next_answer(waiting, chosen, timeout)
        finally:
            for asked in waiting:
                if asked.call:
                    asked.call.cancel()

    async def _next_answer(
        self, waiting: deque[_Asked], chosen: Selector, timeout: float | None
    ) -> tuple[KnownNames, list[Response]]:
        asked = waiting.popleft()
        return asked.known or KnownNames(), await self._answer(asked, chosen, timeout)

    async def _answer(
        self, asked: _Asked, chosen: Selector, timeout: float | None
    ) -> list[Response]:
        """Wait for an answer; several, when the limit turns out to be lower."""
        try:
            response = await self._core.ask(BATCH_PREDICT, asked.request, timeout, asked.call)
            self._core.answered_by(response)
            return [self._complete(response, len(asked.rows))]
        except BatchTooLargeError as error:
            # The server's limit of rows; without one, a message was too long for gRPC.
            limit = error.max_batch or len(asked.rows) // 2
            if not 0 < limit < len(asked.rows):
                raise
            self._max_batch = limit
        answers: list[Response] = []
        for start in range(0, len(asked.rows), limit):
            part = _asked(asked.rows[start : start + limit], chosen, asked.known)
            answers += await self._answer(part, chosen, timeout)
            chosen = _pin(_wire.ref(answers[0].model))
        return answers

    def _complete(self, response: Response, rows: int) -> Response:
        if len(response.labels) != rows:
            raise ServerError(f"the server answered {rows} rows with {len(response.labels)} labels")
        self._classes = max(1, _classes(response))
        return response

    async def _gathered(
        self, rows: int, response: Response, known: KnownNames, timeout: float | None
    ) -> "_Gathered":
        ref = self._core.answered_by(response)
        names = await self._core.class_names.resolve(
            ref, response.class_names, known, _classes(response), timeout
        )
        return _Gathered(rows, ref, names)


class _Gathered:
    """The answers so far; the arrays are made once, so memory stays what the result needs."""

    def __init__(self, rows: int, ref: ModelRef, class_names: tuple[str, ...]) -> None:
        self._labels = np.empty(rows, dtype=np.int32)
        self._probabilities = np.empty((rows, len(class_names)), dtype=np.float32)
        self.ref = ref
        self._class_names = class_names
        self._filled = 0

    def add(self, responses: Iterable[Response]) -> None:
        for response in responses:
            if (ref := _wire.ref(response.model)) != self.ref:
                # A number that was used again: the same number, other weights.
                raise ServerError(f"rows of one batch were answered by {self.ref} and by {ref}")
            rows = slice(self._filled, self._filled + len(response.labels))
            self._labels[rows] = response.labels
            self._probabilities[rows] = _wire.decode_rows(
                response.probabilities, len(response.labels), len(self._class_names)
            )
            self._filled = rows.stop

    def result(self) -> BatchPrediction:
        self._labels.flags.writeable = False
        self._probabilities.flags.writeable = False
        return BatchPrediction(self._labels, self._probabilities, self.ref, self._class_names)


def _asked(rows: Rows, chosen: Selector, known: KnownNames | None) -> _Asked:
    request = prediction_pb2.BatchPredictRequest(
        instances=_wire.encode(rows),
        model=chosen,
        known_class_names=known.hash if known else None,
    )
    return _Asked(rows, request, known)


def _classes(response: Response) -> int:
    """Return how many classes an answer has; 0 where its shape is none of an answer."""
    shape = response.probabilities.shape
    return shape[1] if len(shape) == 2 else 0


def _pin(ref: ModelRef) -> model_pb2.ModelSelector:
    return model_pb2.ModelSelector(version=ref.version)


async def _slices(array: Rows, start: int, size: int) -> AsyncIterator[Rows]:
    for first in range(start, len(array), size):
        yield array[first : first + size]


async def _groups(
    instances: Iterable[Any] | AsyncIterable[Any], fitter: Fitter, size: Callable[[Rows], int]
) -> AsyncIterator[Rows]:
    """Stack neighbours of the same shape and dtype, at most `size(instance)` of them."""
    group: list[Rows] = []
    async for instance in _each(instances):
        array = await fitter.as_array(instance)
        if group and (len(group) >= size(group[0]) or not _alike(array, group[0])):
            yield np.stack(group)
            group = []
        group.append(array)
    if group:
        yield np.stack(group)


def _alike(a: Rows, b: Rows) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


async def _each(instances: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(instances, AsyncIterable):
        async for instance in instances:
            yield instance
    else:
        for instance in instances:
            yield instance
