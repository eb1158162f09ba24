"""Every call, written once, as coroutines.

The asynchronous client awaits them. The synchronous one runs them on a transport that
blocks instead of suspending, so they return before anyone could await them.
"""

import random
import time
from collections.abc import Sequence
from typing import Any

import grpc

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client import _health
from mlpserve_client import _messages as _wire
from mlpserve_client._channel import READINESS
from mlpserve_client._class_names import ClassNames
from mlpserve_client._diagnosis import Lookout
from mlpserve_client._error_mapping import code_of, translate
from mlpserve_client._errors import (
    ClientClosedError,
    ConnectionFailedError,
    DeadlineError,
    InvalidInputError,
    MlpserveError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    ServerError,
)
from mlpserve_client._fork import check_not_forked, is_forked
from mlpserve_client._hints import unreachable_hint
from mlpserve_client._images import Fitter
from mlpserve_client._results import ModelRef, ModelVersion, Prediction
from mlpserve_client._settings import Settings, check_timeout
from mlpserve_client._transport import (
    GET_MODEL,
    LIST_MODELS,
    PREDICT,
    Call,
    Method,
    Request_contra,
    Response_co,
    Transport,
)

_OVERLOAD_RETRIES = 5
_LONGEST_DELAY = 2.0  # seconds; a server that asks for more is left alone
_CHECK_TIMEOUT = 1.0  # seconds for one look at a server that may become ready
_EXTRA = 0.3  # seconds beyond a deadline, at most, for finding out why it passed
_POLL = 0.1  # seconds between two looks at a server that is not ready
_NOT_FOUND_RETRIES = 8  # to reach a replica that has the version; each may be another's turn
_NOT_FOUND_DELAY = 0.02  # seconds

Selector = model_pb2.ModelSelector | None


class Core:
    """The calls over some transport. Holds nothing but small caches, so it may be shared."""

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self.transport = transport
        self.settings = settings
        self._closed = False
        self.class_names = ClassNames(self.model)
        self._answered: set[int] = set()  # versions
        self._lookout = Lookout(lambda: self._unreadiness(_EXTRA), transport.sleep)

    @property
    def where(self) -> str:
        """The targets, for messages."""
        return ",".join(self.settings.targets)

    def close(self) -> bool:
        """Refuse calls from now on; says whether the channel is still to be closed."""
        open_here = not self._closed and not is_forked()
        self._closed = True
        return open_here

    def check_usable(self) -> None:
        """Raise ClientClosedError if a call would hang or fail for sure."""
        check_not_forked()
        if self._closed:
            raise ClientClosedError("the client is closed")

    async def predict(
        self, instance: Any, chosen: Selector = None, timeout: float | None = None
    ) -> Prediction:
        """Classify one instance."""
        array = await self.fitter(chosen, timeout).as_array(instance)
        known = self.class_names.known
        request = prediction_pb2.PredictRequest(
            instance=_wire.encode(array), model=chosen, known_class_names=known.hash
        )
        try:
            response = await self.ask(PREDICT, request, timeout)
        except InvalidInputError as error:
            if error.field != "instance.shape" or array.ndim < 2:
                raise
            text = f"{error} (predict_batch classifies several instances)"
            raise InvalidInputError(text, field=error.field) from error
        ref = self.answered_by(response)
        names = await self.class_names.resolve(
            ref, response.class_names, known, len(response.probabilities), timeout
        )
        return _wire.prediction(response, ref, names)

    def answered_by(
        self, response: prediction_pb2.PredictResponse | prediction_pb2.BatchPredictResponse
    ) -> ModelRef:
        """Return the version that answered, and remember that some replica has it."""
        self._answered.add(response.model.version)
        return _wire.ref(response.model)

    async def model(self, chosen: Selector = None, timeout: float | None = None) -> ModelVersion:
        """Describe one version."""
        request = model_pb2.GetModelVersionRequest(model=chosen)
        response = await self.ask(GET_MODEL, request, timeout)
        return _wire.model_version(response.model_version)

    async def models(self, timeout: float | None = None) -> list[ModelVersion]:
        """Describe every version, newest first."""
        found: list[ModelVersion] = []
        token, asked = "", set[str]()
        while token not in asked:
            asked.add(token)
            request = model_pb2.ListModelVersionsRequest(page_token=token)
            response = await self.ask(LIST_MODELS, request, timeout)
            found += map(_wire.model_version, response.model_versions)
            token = response.next_page_token
            if not token:
                return found
        raise ServerError("the server's list has no end: it repeats a page")

    async def health(self, live: bool = False, timeout: float | None = None) -> bool:
        """Say whether any target is ready (or merely alive)."""
        self.check_usable()
        request = _health.request("" if live else READINESS)
        share = self._seconds(timeout) / len(self.settings.targets)
        unreachable: ConnectionFailedError | None = None
        serving: list[bool] = []
        for target in self.settings.targets:
            try:
                serving.append(await self._is_serving(target, request, share))
            except ConnectionFailedError as error:
                unreachable = error
        if not serving and unreachable:
            raise unreachable
        return any(serving)

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return as soon as a server is ready."""
        ends = time.monotonic() + self._seconds(timeout)
        while problem := await self._unreadiness(_look_timeout(ends)):
            if time.monotonic() >= ends:
                raise problem
            await self.transport.sleep(_POLL)

    async def ask(
        self,
        method: Method[Request_contra, Response_co],
        request: Request_contra,
        timeout: float | None = None,
        started: Call[Response_co] | None = None,
    ) -> Response_co:
        """Call, and again when that may help.

        It may when the server is overloaded and says for how long, and when a replica does not
        have a version that another one has answered by.
        """
        self.check_usable()
        ends = time.monotonic() + self._seconds(timeout)
        retries = 0
        while True:
            try:
                if started:
                    return await started.result()
                left = max(ends - time.monotonic(), 0.001)
                return await self.transport.call(method, request, left)
            except grpc.RpcError as error:
                problem = self._translated(error, self.settings.targets)
                delay = self._delay(problem, request, retries)
                if delay is None or time.monotonic() + delay >= ends:
                    raise await self._explained(problem) from error
            await self.transport.sleep(delay)
            started, retries = None, retries + 1

    def start(
        self,
        method: Method[Request_contra, Response_co],
        request: Request_contra,
        timeout: float | None = None,
    ) -> Call[Response_co]:
        """Call and return at once; `ask` takes it from there."""
        self.check_usable()
        return self.transport.start(method, request, self._seconds(timeout))

    def fitter(self, chosen: Selector, timeout: float | None) -> Fitter:
        """Make what turns images into arrays for the selected version."""
        return Fitter(lambda: self.model(chosen, timeout))

    def _delay(self, problem: MlpserveError, request: object, retries: int) -> float | None:
        """Seconds to wait before calling again; None to give up."""
        if isinstance(problem, OverloadedError):
            return _overload_delay(problem, retries)
        seen_elsewhere = _selected_version(request) in self._answered
        if isinstance(problem, ModelNotFoundError) and seen_elsewhere:
            return _NOT_FOUND_DELAY if retries < _NOT_FOUND_RETRIES else None
        return None

    def _seconds(self, timeout: float | None) -> float:
        if timeout is None:
            return self.settings.timeout
        return check_timeout(timeout)

    async def _is_serving(self, target: str, request: bytes, timeout: float) -> bool:
        try:
            return _health.is_serving(await self.transport.check(target, request, timeout))
        except grpc.RpcError as error:
            match code_of(error):
                case grpc.StatusCode.NOT_FOUND | grpc.StatusCode.UNIMPLEMENTED:
                    return False  # alive, and knows of no such service
                case grpc.StatusCode.DEADLINE_EXCEEDED:
                    text = f"{target} does not answer"
                    text += unreachable_hint(self.settings, [target], text)
                    raise ConnectionFailedError(text, target=target) from error
                case _:
                    raise self._translated(error, [target]) from error

    def _translated(self, error: grpc.RpcError, targets: Sequence[str]) -> MlpserveError:
        problem = translate(error, ",".join(targets))
        if isinstance(problem, ConnectionFailedError):
            hint = unreachable_hint(self.settings, targets, str(problem))
            problem = ConnectionFailedError(f"{problem}{hint}", target=problem.target)
        return problem

    async def _unreadiness(self, timeout: float) -> MlpserveError | None:
        """Say what keeps a call from being answered, if anything does."""
        try:
            if await self.health(timeout=timeout):
                return None
        except ConnectionFailedError as error:
            return error
        return NotReadyError(
            f"{self.where} is alive but not ready: it has no model to serve yet, or it is stopping"
        )

    async def _explained(self, problem: MlpserveError) -> MlpserveError:
        # Calls wait for a server until their deadline, so gRPC says no more than that it
        # passed. A look tells nobody there, nothing to serve and too slow apart.
        if not isinstance(problem, DeadlineError):
            return problem
        return await self._lookout.problem() or problem


def _look_timeout(ends: float) -> float:
    return min(_CHECK_TIMEOUT, max(_EXTRA, ends - time.monotonic()))


def _selected_version(request: object) -> int:
    """Return the version number that a request selects; 0 if it selects none."""
    return getattr(getattr(request, "model", None), "version", 0)


def _overload_delay(problem: OverloadedError, retries: int) -> float | None:
    if problem.retry_after is None:
        return None
    if retries >= _OVERLOAD_RETRIES or problem.retry_after > _LONGEST_DELAY:
        return None
    # Longer each time, and never together with everyone else who was refused just now.
    return float(problem.retry_after * 2**retries * random.uniform(1, 1.5))
