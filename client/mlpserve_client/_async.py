"""The client for asyncio: `Client` with `await`."""

import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlpserve_client._awaited import AwaitedTransport
from mlpserve_client._batches import Batches
from mlpserve_client._calls import Calls
from mlpserve_client._explain import explain
from mlpserve_client._explanation import Explanation
from mlpserve_client._report import report
from mlpserve_client._results import (
    BatchPrediction,
    ModelVersion,
    Prediction,
    Report,
    ReportResult,
)
from mlpserve_client._settings import Tls, resolve

if TYPE_CHECKING:
    from mlpserve_client._inputs import Instance, Instances


class AsyncClient:
    """Calls mlpserve servers from asyncio code.

    It has the arguments, results and errors of `Client`. All tasks of one event loop may share
    a client. Use it with `async with`, or await `close`.

    Args:
        target: as for `Client`.
        timeout: as for `Client`.
        tls: as for `Client`.
        token: as for `Client`.
        model: as for `Client`.

    Raises:
        SettingsError: a setting is invalid.
        ConnectionFailedError: several targets were given, and none of them has an address.

    """

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        tls: Tls | None = None,
        token: str | None = None,
        model: str | None = None,
    ) -> None:
        settings = resolve(
            os.environ, target=target, timeout=timeout, tls=tls, token=token, model=model
        )
        self._transport = AwaitedTransport(settings)
        self._calls = Calls(self._transport, settings)
        self._batches = Batches(self._calls)

    async def predict(
        self,
        instance: "Instance",
        *,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        receipt: bool = False,
    ) -> Prediction:
        """Classify one instance, as `Client.predict`."""
        return await self._calls.predict(
            instance, self._calls.selector(version, alias, model), timeout, receipt
        )

    async def predict_batch(
        self,
        instances: "Instances",
        *,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        receipts: bool = False,
    ) -> BatchPrediction:
        """Classify any number of instances by one version, as `Client.predict_batch`."""
        selector = self._calls.selector(version, alias, model)
        return await self._batches.predict_batch(instances, selector, timeout, receipts)

    def predict_stream(
        self,
        instances: "Iterable[Instance] | AsyncIterable[Instance]",
        *,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        batch_size: int = 256,
    ) -> AsyncGenerator[Prediction, None]:
        """Classify instances as they come, as `Client.predict_stream`; use `async for`.

        `instances` may be an asynchronous iterable too.
        """
        selector = self._calls.selector(version, alias, model)
        return self._batches.predict_stream(instances, selector, timeout, batch_size)

    async def explain(
        self,
        instance: "Instance",
        *,
        label: int | None = None,
        baseline: "Instance | None" = None,
        activations: bool = False,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> Explanation:
        """Explain why one instance gets the score of a class, as `Client.explain`."""
        selector = self._calls.selector(version, alias, model)
        return await explain(self._calls, instance, label, baseline, activations, selector, timeout)

    async def report(
        self,
        receipt: bytes | str,
        *,
        class_name: str | None = None,
        right: bool | None = None,
        instance: "Instance | None" = None,
        note: str = "",
        timeout: float | None = None,
    ) -> ReportResult:
        """Report what the truth about one answer was, as `Client.report`."""
        one = Report(receipt, class_name, right, instance, note)
        return await report(self._calls, [one], timeout)

    async def report_batch(
        self, reports: Iterable[Report], *, timeout: float | None = None
    ) -> ReportResult:
        """Report on any number of answers, as `Client.report_batch`."""
        return await report(self._calls, reports, timeout)

    async def model(
        self,
        *,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> ModelVersion:
        """Describe the version being served, or the selected one, as `Client.model`."""
        return await self._calls.model(self._calls.selector(version, alias, model), timeout)

    async def models(self, *, timeout: float | None = None) -> list[ModelVersion]:
        """Describe what each of the server's models answers with, as `Client.models`."""
        return await self._calls.models(timeout)

    async def versions(
        self, model: str | None = None, *, timeout: float | None = None
    ) -> list[ModelVersion]:
        """Describe every version of a model, newest first, as `Client.versions`."""
        return await self._calls.versions(model, timeout)

    async def health(
        self, *, live: bool = False, model: str | None = None, timeout: float | None = None
    ) -> bool:
        """Return True if a server is ready to predict, as `Client.health`."""
        return await self._calls.health(live, model, timeout)

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return as soon as a server is ready to predict, as `Client.wait_until_ready`."""
        await self._calls.wait_until_ready(timeout)

    async def close(self) -> None:
        """Close the connections; calls under way fail. Closing again does nothing."""
        if self._calls.close():
            await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._calls.settings.where!r})"
