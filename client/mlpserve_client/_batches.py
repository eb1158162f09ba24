"""Many instances: split under the server's limits, several requests in flight, in order."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client import _answers, _messages
from mlpserve_client._calls import Calls, Selector
from mlpserve_client._class_names import KnownNames
from mlpserve_client._errors import BatchTooLargeError, InvalidInputError, ServerError
from mlpserve_client._images import Fitter
from mlpserve_client._inputs import as_instances, has_images, is_image
from mlpserve_client._results import BatchPrediction, ModelRef, Prediction
from mlpserve_client._transport import BATCH_PREDICT, Call

Rows: TypeAlias = npt.NDArray[Any]  # [n, ...]
Response: TypeAlias = prediction_pb2.BatchPredictResponse

_IN_FLIGHT = 4  # requests; enough to keep the network and the server busy at once
# Large enough to amortise a call, small enough for the first, which is alone, to delay few others:
# of 512 KiB to 1 MiB, the best for batches of 1,000 to 50,000 rows (docs/notes/serving.md).
_REQUEST_BYTES = 768 * 1024
_MAX_STREAM_BYTES = 16 * 1024 * 1024  # of a request or answer whose rows the caller chose
_MAX_BATCH = 8192  # rows; the server's default, until it names another limit
_UNKNOWN_CLASSES = 256  # assumed until an answer shows the number


class _Request(NamedTuple):
    rows: Rows
    message: prediction_pb2.BatchPredictRequest
    known: KnownNames | None  # None: the answer need not bring names
    call: Call[Response] | None = None


class _Answer(NamedTuple):
    parts: list[_answers.Rows]  # several, if the request was split
    known: KnownNames  # what the request said


class Batches:
    """Splits batches and streams into requests; remembers the server's limits."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._max_batch = _MAX_BATCH
        self._classes = _UNKNOWN_CLASSES

    async def predict_batch(
        self,
        instances: Any,
        selector: Selector = None,
        timeout: float | None = None,
        receipts: bool = False,
    ) -> BatchPrediction:
        """Classify many instances by one version."""
        array = await self._as_array(instances, selector, timeout)
        if not len(array):
            model = await self._calls.model(selector, timeout)
            kind = model.output_kind
            return _BatchBuilder(0, model.ref, model.class_names, kind).result()
        await self._calls.scale.check(array, selector, timeout)
        size = self._rows_within(_REQUEST_BYTES, array[0])
        request = _request(array[:size], selector, self._calls.class_names.known, receipts)
        head = await self._answer(request, selector, timeout)
        builder = await self._builder(len(array), head, timeout)
        builder.add(head.parts)
        rest = _slices(array, size, self._rows_within(_REQUEST_BYTES, array[0]))
        others = self._in_order(rest, _pin(builder.ref), timeout, receipts=receipts)
        async with aclosing(others) as answers:
            async for answer in answers:
                builder.add(answer.parts)
        return builder.result()

    async def predict_stream(
        self,
        instances: Iterable[Any] | AsyncIterable[Any],
        selector: Selector = None,
        timeout: float | None = None,
        batch_size: int = 256,
    ) -> AsyncGenerator[Prediction]:
        """Classify instances one after the other, without holding all of them."""
        _check_stream(instances, batch_size)

        def rows(instance: Rows) -> int:
            return min(batch_size, self._rows_within(_MAX_STREAM_BYTES, instance))

        groups = _groups(instances, self._calls.fitter(selector, timeout), rows)
        answers = self._in_order(groups, selector, timeout, with_names=True)
        async with aclosing(answers):
            async for answer in answers:
                for part in answer.parts:
                    alone = _Answer([part], answer.known)
                    builder = await self._builder(len(part.labels), alone, timeout)
                    builder.add([part])
                    for prediction in builder.result():
                        yield prediction

    async def _as_array(self, instances: Any, selector: Selector, timeout: float | None) -> Rows:
        if not has_images(instances):
            return as_instances(instances)
        if not all(is_image(instance) for instance in instances):
            raise InvalidInputError("a batch holds images or arrays, not some of each")
        fitter = self._calls.fitter(selector, timeout)
        return np.stack([await fitter.as_array(image) for image in instances])

    def _rows_within(self, limit: int, instance: Rows) -> int:
        """Return how many rows keep both the request and its answer below `limit` bytes."""
        request = int(instance.size) * (1 if instance.dtype.kind in "ui" else 4)
        answer = self._classes * 4
        return max(1, min(self._max_batch, limit // max(request, answer)))

    async def _in_order(
        self,
        batches: AsyncIterator[Rows],
        selector: Selector,
        timeout: float | None,
        with_names: bool = False,
        receipts: bool = False,
    ) -> AsyncGenerator[_Answer]:
        """Send every batch, a few at a time, and yield the answers in order."""
        waiting: deque[_Request] = deque()
        try:
            async for rows in batches:
                if with_names:
                    await self._calls.scale.check(rows, selector, timeout)
                known = self._calls.class_names.known if with_names else None
                request = _request(rows, selector, known, receipts)
                call = self._calls.start(BATCH_PREDICT, request.message, timeout)
                waiting.append(request._replace(call=call))
                if len(waiting) >= _IN_FLIGHT:
                    yield await self._answer(waiting.popleft(), selector, timeout)
            while waiting:
                yield await self._answer(waiting.popleft(), selector, timeout)
        finally:
            for request in waiting:
                if request.call:
                    request.call.cancel()

    async def _answer(
        self, request: _Request, selector: Selector, timeout: float | None
    ) -> _Answer:
        """Wait for an answer; split the request if a limit turns out to be lower."""
        known = request.known or KnownNames()
        try:
            response = await self._calls.call_with_retry(
                BATCH_PREDICT, request.message, timeout, request.call
            )
            return _Answer([self._checked(response, request)], known)
        except BatchTooLargeError as error:
            # The server's limit of rows; 0 if a message was too long for gRPC.
            most = error.max_batch or len(request.rows) // 2
            if not 0 < most < len(request.rows):
                raise
            self._max_batch = most
            # At most half: a server that names one row less each time is not followed row by row.
            limit = min(most, -(-len(request.rows) // 2))
        parts: list[_answers.Rows] = []
        for start in range(0, len(request.rows), limit):
            rows, receipts = request.rows[start : start + limit], request.message.receipts
            part = _request(rows, selector, request.known, receipts)
            parts += (await self._answer(part, selector, timeout)).parts
            selector = _pin(parts[0].model)
        return _Answer(parts, known)

    def _checked(self, response: Response, request: _Request) -> _answers.Rows:
        found = _answers.rows(response, len(request.rows), request.message.receipts)
        self._calls.answered_by(response, request.message.model.name)
        self._classes = found.probabilities.shape[1]
        return found

    async def _builder(self, rows: int, answer: _Answer, timeout: float | None) -> "_BatchBuilder":
        first = answer.parts[0]
        classes = first.probabilities.shape[1]
        names = await self._calls.class_names.resolve(
            first.model, first.class_names, answer.known, classes, timeout
        )
        try:
            return _BatchBuilder(rows, first.model, names, first.output_kind)
        except MemoryError as error:
            raise InvalidInputError(
                f"no memory for the answers to {rows} rows of {classes} classes: "
                "predict_stream holds a few at a time"
            ) from error


class _BatchBuilder:
    """Collects answers in arrays that are allocated once."""

    def __init__(
        self, rows: int, ref: ModelRef, class_names: tuple[str, ...], output_kind: str
    ) -> None:
        self.ref = ref
        self._output_kind = output_kind
        self._labels = np.empty(rows, dtype=np.int32)
        self._probabilities = np.empty((rows, len(class_names)), dtype=np.float32)
        self._class_names = class_names
        self._receipts: list[bytes] = []
        self._filled = 0

    def add(self, parts: Iterable[_answers.Rows]) -> None:
        for part in parts:
            ref, classes = part.model, part.probabilities.shape[1]
            if ref != self.ref or classes != len(self._class_names):
                # A version number was used again, for other weights.
                raise ServerError(
                    f"rows of one batch were answered by {self.ref} with "
                    f"{len(self._class_names)} classes and by {ref} with {classes}"
                )
            rows = slice(self._filled, self._filled + len(part.labels))
            self._labels[rows] = part.labels
            self._probabilities[rows] = part.probabilities
            self._receipts += part.receipts
            self._filled = rows.stop

    def result(self) -> BatchPrediction:
        self._labels.flags.writeable = False
        self._probabilities.flags.writeable = False
        return BatchPrediction(
            self._labels,
            self._probabilities,
            self.ref,
            self._class_names,
            tuple(self._receipts),
            self._output_kind,
        )


def _check_stream(instances: object, batch_size: object) -> None:
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InvalidInputError(f"invalid batch_size {batch_size!r}: expected 1 or more rows")
    if not isinstance(instances, Iterable | AsyncIterable):
        raise InvalidInputError(
            f"expected an iterable of instances, got {type(instances).__name__}"
        )


def _request(rows: Rows, selector: Selector, known: KnownNames | None, receipts: bool) -> _Request:
    message = prediction_pb2.BatchPredictRequest(
        model=selector, receipts=receipts, known_class_names=known.hash if known else None
    )
    _messages.encode_into(message.instances, rows)
    return _Request(rows, message, known)


def _pin(ref: ModelRef) -> model_pb2.ModelSelector:
    return model_pb2.ModelSelector(version=ref.version, name=ref.name)


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
