"""Every call, written once, as coroutines.

The asynchronous client awaits them. The blocking client runs them on a transport that blocks
instead of suspending, so they return before anything could await them.
"""

import random
import time
from typing import Any, TypeAlias

import grpc
import numpy as np

from mlpserve.v1 import explanation_pb2, model_pb2, prediction_pb2
from mlpserve_client import _answers, _descriptions, _messages
from mlpserve_client._class_names import ClassNames
from mlpserve_client._diagnosis import DeadlineDiagnosis
from mlpserve_client._error_mapping import is_of_broken_connection
from mlpserve_client._errors import (
    ClientClosedError,
    DeadlineError,
    InvalidInputError,
    MlpserveError,
    ModelNotFoundError,
    ModelRejectedError,
    OverloadedError,
)
from mlpserve_client._fork import check_not_forked, is_forked
from mlpserve_client._hints import translate_with_hint
from mlpserve_client._images import Fitter
from mlpserve_client._inputs import as_array, is_image, why_not_scaled
from mlpserve_client._readiness import DIAGNOSIS_SECONDS, Readiness
from mlpserve_client._results import ModelRef, ModelVersion, Prediction
from mlpserve_client._scale import ScaleCheck, looks_scaled
from mlpserve_client._settings import Settings, check_timeout
from mlpserve_client._transport import (
    GET_MODEL,
    LIST_MODELS,
    LIST_VERSIONS,
    PREDICT,
    Call,
    Method,
    Request_contra,
    Response_co,
    Transport,
)

_OVERLOAD_RETRIES = 5
_BROKEN_RETRIES = 4  # as many as gRPC's own, which do not cover these
_BROKEN_DELAY = 0.05  # seconds
_MAX_DELAY = 2.0  # seconds; a server that asks for more gets no retry
_LACKING_RETRIES = 8  # of a version that a replica lacks; each may reach another replica
_LACKING_DELAY = 0.02  # seconds

Selector: TypeAlias = model_pb2.ModelSelector | None


class Calls:
    """The calls over some transport. Threads and tasks may share it: its state is caches."""

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self.transport = transport
        self.settings = settings
        self.class_names = ClassNames(self.model)
        self.scale = ScaleCheck(self.model)
        self._readiness = Readiness(transport, settings)
        self._diagnosis = DeadlineDiagnosis(
            lambda: self._readiness.problem(DIAGNOSIS_SECONDS), transport.sleep
        )
        self._answered: set[tuple[str, int]] = set()  # model and version that some replica has
        self._closed = False

    def close(self) -> bool:
        """Refuse calls from now on; return True if the channel is still to be closed."""
        open_here = not self._closed and not is_forked()
        self._closed = True
        return open_here

    def check_usable(self) -> None:
        """Raise ClientClosedError if a call would hang or fail for sure."""
        check_not_forked()
        if self._closed:
            raise ClientClosedError("the client is closed")

    async def predict(
        self,
        instance: Any,
        selector: Selector = None,
        timeout: float | None = None,
        receipt: bool = False,
    ) -> Prediction:
        """Classify one instance."""
        array = (
            await self.fitter(selector, timeout).as_array(instance)
            if is_image(instance)
            else as_array(instance)
        )
        if looks_scaled(array):
            await self.scale.check(array, selector, timeout)
        known = self.class_names.known
        request = prediction_pb2.PredictRequest(model=selector, known_class_names=known.hash)
        _messages.encode_into(request.instance, array)
        if receipt:
            request.receipt = True
        try:
            response = await self.call_with_retry(PREDICT, request, timeout)
        except InvalidInputError as error:
            if error.field != "instance.shape" or array.ndim < 2:
                raise
            text = f"{error} (predict_batch classifies several instances)"
            raise InvalidInputError(text, field=error.field) from error
        ref = self.answered_by(response, selector.name if selector else "")
        probabilities = _answers.probabilities(response)
        names = await self.class_names.resolve(
            ref, response.class_names, known, len(probabilities), timeout
        )
        given = [response.receipt] if response.receipt else []
        receipts = _answers.receipts(given, receipt) if receipt or given else ()
        return _answers.prediction(response, probabilities, ref, names, *receipts)

    def selector(self, version: int | None, alias: str | None, model: str | None) -> Selector:
        """Return a selector, of the client's model if none is named; raise InvalidInputError."""
        return _messages.selector(version, alias, self.settings.model if model is None else model)

    def answered_by(
        self,
        response: prediction_pb2.PredictResponse
        | prediction_pb2.BatchPredictResponse
        | explanation_pb2.ExplainResponse,
        selected: str,
    ) -> ModelRef:
        """Return the version that answered, and remember that some replica has it.

        Args:
            response: the answer.
            selected: name of the selected model; "" for none.

        Raises:
            ServerError: another model has answered than the selected one.

        """
        ref = _answers.ref(response.model, selected)
        answered = selected, ref.version
        if answered not in self._answered:
            self._answered |= {(ref.name, ref.version), answered}
        return ref

    async def model(self, selector: Selector = None, timeout: float | None = None) -> ModelVersion:
        """Describe one version."""
        request = model_pb2.GetModelVersionRequest(model=selector)
        response = await self.call_with_retry(GET_MODEL, request, timeout)
        name = selector.name if selector else ""
        return _descriptions.model_version(response.model_version, name)

    async def models(self, timeout: float | None = None) -> list[ModelVersion]:
        """Describe what every model answers with, by name."""
        listed = _descriptions.Listed()
        while not listed.complete:
            request = model_pb2.ListModelsRequest(page_token=listed.next_token)
            page = await self.call_with_retry(LIST_MODELS, request, timeout)
            listed.add(page.next_page_token, page.models, _descriptions.by_name)
        return listed.versions

    async def versions(
        self, model: str | None = None, timeout: float | None = None
    ) -> list[ModelVersion]:
        """Describe every version of a model, newest first."""
        chosen = self.selector(None, None, model)
        name = chosen.name if chosen else ""
        listed = _descriptions.Listed(name)
        while not listed.complete:
            request = model_pb2.ListModelVersionsRequest(page_token=listed.next_token, name=name)
            page = await self.call_with_retry(LIST_VERSIONS, request, timeout)
            listed.add(page.next_page_token, page.model_versions, _descriptions.newest_first)
        return listed.versions

    async def health(
        self, live: bool = False, model: str | None = None, timeout: float | None = None
    ) -> bool:
        """Return True if any target is ready for a model, or merely alive."""
        self.check_usable()
        chosen = self.selector(None, None, model)
        name = chosen.name if chosen else None
        return await self._readiness.health(live, self._seconds(timeout), name)

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return as soon as a server is ready."""
        self.check_usable()
        await self._readiness.wait_until_ready(self._seconds(timeout))

    async def call_with_retry(
        self,
        method: Method[Request_contra, Response_co],
        request: Request_contra,
        timeout: float | None = None,
        started: Call[Response_co] | None = None,
    ) -> Response_co:
        """Call, and call again where `_retry_delay` allows it.

        Args:
            method: the method to call.
            request: its request.
            timeout: seconds for all attempts together, instead of the client's.
            started: the first attempt, if it is under way.

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
                problem = translate_with_hint(error, self.settings, self.settings.targets)
                problem = _with_scale(problem, request)
                answered = _selected(request) in self._answered
                broken = is_of_broken_connection(error)
                delay = _retry_delay(problem, retries, answered, broken)
                if delay is None or time.monotonic() + delay >= ends:
                    raise await self._diagnosed(problem) from error
            await self.transport.sleep(delay)
            started, retries = None, retries + 1

    def start(
        self,
        method: Method[Request_contra, Response_co],
        request: Request_contra,
        timeout: float | None = None,
    ) -> Call[Response_co]:
        """Start a call without waiting for it; pass it to `call_with_retry` later."""
        self.check_usable()
        return self.transport.start(method, request, self._seconds(timeout))

    def fitter(self, selector: Selector, timeout: float | None) -> Fitter:
        """Return what turns images into arrays for the selected version."""
        return Fitter(lambda: self.model(selector, timeout))

    def _seconds(self, timeout: float | None) -> float:
        return self.settings.timeout if timeout is None else check_timeout(timeout)

    async def _diagnosed(self, problem: MlpserveError) -> MlpserveError:
        # Calls wait for a ready server until their deadline, so gRPC reports the deadline
        # alone. A probe tells an unreachable, a not ready and a slow server apart.
        if not isinstance(problem, DeadlineError):
            return problem
        return await self._diagnosis.diagnose() or problem


def _with_scale(problem: MlpserveError, request: object) -> MlpserveError:
    """Return a refusal of values with what to do about their scale, other problems as they are.

    Whether floats beyond 0 to 1 are a mistake depends on the model, so the server says so first.
    """
    tensor = getattr(request, "instance", None) or getattr(request, "instances", None)
    if not isinstance(problem, InvalidInputError) or tensor is None:
        return problem
    if not problem.field.endswith(".data") or tensor.dtype != prediction_pb2.DATA_TYPE_FLOAT32:
        return problem
    why = why_not_scaled(np.frombuffer(tensor.data, "<f4"))
    return InvalidInputError(why, field=problem.field) if why else problem


def _selected(request: object) -> tuple[str, int]:
    """Return the model and version number that a request selects, "" and 0 if it selects none."""
    selector = getattr(request, "model", None)
    return getattr(selector, "name", ""), getattr(selector, "version", 0)


def _retry_delay(
    problem: MlpserveError, retries: int, answered: bool, broken: bool
) -> float | None:
    """Return the seconds to wait before the next attempt, or None to give up.

    Args:
        problem: why the last attempt failed.
        retries: how often the call was retried.
        answered: True if the selected version has answered this client before, so that a
            replica which does not have it, or finds it damaged, is not the last word.
        broken: True if the connection broke in a way that gRPC does not retry.

    """
    if broken:
        return _spread(_BROKEN_DELAY, retries) if retries < _BROKEN_RETRIES else None
    if isinstance(problem, ModelNotFoundError | ModelRejectedError) and answered:
        return _LACKING_DELAY if retries < _LACKING_RETRIES else None
    if not isinstance(problem, OverloadedError) or problem.retry_after is None:
        return None
    if retries >= _OVERLOAD_RETRIES or problem.retry_after > _MAX_DELAY:
        return None
    return _spread(problem.retry_after, retries)


def _spread(seconds: float, retries: int) -> float:
    """Return a delay that is longer each time, and differs between callers refused together."""
    return seconds * 2.0**retries * random.uniform(1, 1.5)
