"""Whether a server is ready, asked over connections of their own.

The channel that carries the calls uses ready servers alone, so it cannot be asked.
"""

import time

import grpc

from mlpserve_client import _health
from mlpserve_client._channel import READINESS
from mlpserve_client._error_mapping import code_of, reason_of
from mlpserve_client._errors import ConnectionFailedError, MlpserveError, NotReadyError
from mlpserve_client._hints import translate_with_hint, unreachable_hint
from mlpserve_client._settings import Settings
from mlpserve_client._transport import Transport

DIAGNOSIS_SECONDS = 0.3  # beyond a deadline, at most, to find out why it passed

_MAX_PROBE_SECONDS = 1.0  # for one probe of a server that may become ready
_POLL_SECONDS = 0.1  # between two probes of a server that is not ready


class Readiness:
    """Probes the targets' health service."""

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self._transport = transport
        self._settings = settings

    async def health(self, live: bool, seconds: float, model: str | None = None) -> bool:
        """Return True if any target is ready, or merely alive.

        Args:
            live: whether it is enough to be alive.
            seconds: the time limit.
            model: name of the model that must be ready; None for what the server requires.

        Raises:
            ConnectionFailedError: no target answers.
            MlpserveError: a target refuses to answer.

        """
        service = "" if live else f"{READINESS}/{model}" if model else READINESS
        share = seconds / len(self._settings.targets)
        unreachable: ConnectionFailedError | None = None
        serving: list[bool] = []
        for target in self._settings.targets:
            try:
                serving.append(await self._is_serving(target, service, share))
            except ConnectionFailedError as error:
                unreachable = error
        if not serving and unreachable:
            raise unreachable
        return any(serving)

    async def wait_until_ready(self, seconds: float) -> None:
        """Return as soon as a server is ready.

        Raises:
            NotReadyError: a server is alive, but it has no model.
            ConnectionFailedError: no server answers.

        """
        ends = time.monotonic() + seconds
        while problem := await self.problem(_probe_seconds(ends)):
            if time.monotonic() >= ends:
                raise problem
            await self._transport.sleep(_POLL_SECONDS)

    async def problem(self, seconds: float) -> MlpserveError | None:
        """Return what keeps a call from being answered, if anything does."""
        try:
            if await self.health(False, seconds):
                return await self._problem_of_model(seconds)
        except ConnectionFailedError as error:
            return error
        return NotReadyError(
            f"{self._settings.where} is alive but not ready: it has no model to serve yet, or it "
            "is stopping"
        )

    async def _problem_of_model(self, seconds: float) -> MlpserveError | None:
        """Return what keeps a call to the client's model from being answered by a ready server."""
        model = self._settings.model
        if model is None or await self.health(False, seconds, model):
            return None
        return NotReadyError(f"{self._settings.where} is ready, but its model {model} is not")

    async def _is_serving(self, target: str, service: str, seconds: float) -> bool:
        request = _health.request(service)
        try:
            return _health.is_serving(await self._transport.check(target, request, seconds))
        except grpc.RpcError as error:
            match code_of(error):
                case grpc.StatusCode.NOT_FOUND if (
                    "/" in service and reason_of(error) != "MODEL_NOT_FOUND"
                ):
                    # A server of an earlier release, which has one model alone.
                    return await self._is_serving(target, READINESS, seconds)
                case grpc.StatusCode.NOT_FOUND | grpc.StatusCode.UNIMPLEMENTED:
                    return False  # alive, but without such a service
                # CANCELLED from a server that saw the deadline pass first, or that stops.
                case grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.CANCELLED:
                    text = f"{target} does not answer"
                    text += unreachable_hint(self._settings, [target], text)
                    raise ConnectionFailedError(text, target=target) from error
                case _:
                    raise translate_with_hint(error, self._settings, [target]) from error


def _probe_seconds(ends: float) -> float:
    return min(_MAX_PROBE_SECONDS, max(DIAGNOSIS_SECONDS, ends - time.monotonic()))
