"""Many instances: split under the server's limits, several requests in flight, in order."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client import _messages as _wire
from mlpserve_client._calls import Core, Selector
from mlpserve_client._errors import BatchTooLargeError, InvalidInputError, ServerError
from mlpserve_client._images import Fitter
from mlpserve_client._inputs import as_instances, has_images, is_image
from mlpserve_client._results import BatchPrediction, ModelRef, Prediction
from mlpserve_client._transport import BATCH_PREDICT, Call

Rows: TypeAlias = npt.NDArray[Any]  # [n, ...]
Response: TypeAlias = prediction_pb2.BatchPredictResponse

_IN_FLIGHT = 4  # requests; enough to keep the network and the server busy at once
_REQUEST_BYTES = 512 * 1024  # large enough to amortise a call, far below gRPC's limits
_MAX_BATCH = 8192  # rows; the server's default, until it names another limit


class _Asked(NamedTuple):
    rows: Rows
    request: prediction_pb2.BatchPredictRequest
    call: Call[Response] | None


class Batches:
    """Splits batches and streams into requests; remembers the server's limit."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._max_batch = _MAX_BATCH

    async def predict_batch(
        self, instances: Any, chosen: Selector = None, timeout: float | None = None
    ) -> BatchPrediction:
        """Classify many instances by one version."""
        array = await self._as_array(instances, chosen, timeout)
        if not len(array):
            return await self._nothing(chosen, timeout)
        size = self._rows_a_request(array)
        head = await self._answer(_asked(array[:size], chosen), chosen, timeout)
        ref = _wire.ref(head[0].model)
        gathered = _Gathered(len(array), ref, await self._core.class_names(ref, timeout))
        gathered.add(head)
        rest = _slices(array, size, self._rows_a_request(array))
        async with aclosing(self._in_order(rest, _pin(ref), timeout)) as answers:
            async for responses in answers:
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
        if batch_size < 1:
            raise InvalidInputError(f"batch_size is 1 or more, not {batch_size}")
        size = min(batch_size, self._max_batch)
        groups = _groups(instances, self._core.fitter(chosen, timeout), size)
        async with aclosing(self._in_order(groups, chosen, timeout)) as answers:
            async for responses in answers:
                for response in responses:
                    for prediction in await self._unpacked(response, timeout):
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

    def _rows_a_request(self, array: Rows) -> int:
        bytes_a_row = int(array[0].size) * (1 if array.dtype.kind in "ui" else 4)
        return max(1, min(self._max_batch, _REQUEST_BYTES // max(1, bytes_a_row)))

    async def _in_order(
        self, batches: AsyncIterator[Rows], chosen: Selector, timeout: float | None
    ) -> AsyncGenerator[list[Response]]:
        """Ask for every batch, a few at a time, and give the answers in order."""
        waiting: deque[_Asked] = deque()
        try:
            async for rows in batches:
                asked = _asked(rows, chosen)
                call = self._core.start(BATCH_PREDICT, asked.request, timeout)
                waiting.append(asked._replace(call=call))
                if len(waiting) >= _IN_FLIGHT:
                    yield await self._answer(waiting.popleft(), chosen, timeout)
            while waiting:
                yield await self._answer(waiting.popleft(), chosen, timeout)
        finally:
            for asked in waiting:
                if asked.call:
                    asked.call.cancel()

    async def _answer(
        self, asked: _Asked, chosen: Selector, timeout: float | None
    ) -> list[Response]:
        """Wait for an answer; several, when the server's limit turns out to be lower."""
        try:
            response = await self._core.ask(BATCH_PREDICT, asked.request, timeout, asked.call)
            return [_complete(response, len(asked.rows))]
        except BatchTooLargeError as error:
            if not 0 < error.max_batch < len(asked.rows):
                raise
            self._max_batch = error.max_batch
        answers: list[Response] = []
        for start in range(0, len(asked.rows), self._max_batch):
            part = _asked(asked.rows[start : start + self._max_batch], chosen)
            answers += await self._answer(part, chosen, timeout)
            chosen = _pin(_wire.ref(answers[0].model))
        return answers

    async def _unpacked(self, response: Response, timeout: float | None) -> BatchPrediction:
        ref = _wire.ref(response.model)
        gathered = _Gathered(len(response.labels), ref, await self._core.class_names(ref, timeout))
        gathered.add([response])
        return gathered.result()


class _Gathered:
    """The answers so far; the arrays are made once, so memory stays what the result needs."""

    def __init__(self, rows: int, ref: ModelRef, class_names: tuple[str, ...]) -> None:
        self._labels = np.empty(rows, dtype=np.int32)
        self._probabilities = np.empty((rows, len(class_names)), dtype=np.float32)
        self._ref = ref
        self._class_names = class_names
        self._filled = 0

    def add(self, responses: Iterable[Response]) -> None:
        for response in responses:
            rows = slice(self._filled, self._filled + len(response.labels))
            self._labels[rows] = response.labels
            self._probabilities[rows] = _wire.decode_rows(
                response.probabilities, len(response.labels), len(self._class_names)
            )
            self._filled = rows.stop

    def result(self) -> BatchPrediction:
        self._labels.flags.writeable = False
        self._probabilities.flags.writeable = False
        return BatchPrediction(self._labels, self._probabilities, self._ref, self._class_names)


def _asked(rows: Rows, chosen: Selector) -> _Asked:
    request = prediction_pb2.BatchPredictRequest(instances=_wire.encode(rows), model=chosen)
    return _Asked(rows, request, None)


def _complete(response: Response, rows: int) -> Response:
    if len(response.labels) != rows:
        raise ServerError(f"the server answered {rows} rows with {len(response.labels)} labels")
    return response


def _pin(ref: ModelRef) -> model_pb2.ModelSelector:
    return model_pb2.ModelSelector(version=ref.version)


async def _slices(array: Rows, start: int, size: int) -> AsyncIterator[Rows]:
    for first in range(start, len(array), size):
        yield array[first : first + size]


async def _groups(
    instances: Iterable[Any] | AsyncIterable[Any], fitter: Fitter, size: int
) -> AsyncIterator[Rows]:
    """Stack neighbours of the same shape and dtype, `size` at most."""
    group: list[Rows] = []
    async for instance in _each(instances):
        array = await fitter.as_array(instance)
        if group and (len(group) >= size or not _alike(array, group[0])):
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
