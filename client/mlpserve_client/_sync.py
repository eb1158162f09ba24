"""The blocking client."""

import os
import weakref
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

from mlpserve_client._batches import Batches
from mlpserve_client._blocking import BlockingTransport, run
from mlpserve_client._calls import Calls
from mlpserve_client._explain import explain
from mlpserve_client._explanation import Explanation
from mlpserve_client._queries import ServerQueries
from mlpserve_client._report import report
from mlpserve_client._results import (
    BatchPrediction,
    Prediction,
    Report,
    ReportResult,
)
from mlpserve_client._settings import Tls, resolve

if TYPE_CHECKING:
    from mlpserve_client._inputs import Instance, Instances


class Client(ServerQueries):
    """Calls mlpserve servers and blocks until they answer.

    A client is safe to share between threads. It connects when it is first used and keeps its
    connections. Use it as a context manager, or call `close`.

    Arguments that are not given come from the environment (`MLPSERVE_TARGET`,
    `MLPSERVE_TIMEOUT`, `MLPSERVE_TLS`, `MLPSERVE_TLS_CA`, `MLPSERVE_TLS_CERT`,
    `MLPSERVE_TLS_KEY`, `MLPSERVE_TLS_SERVER_NAME`, `MLPSERVE_TOKEN`, `MLPSERVE_TOKEN_FILE`,
    `MLPSERVE_MODEL`).

    Every call waits for a ready server, moves to another one when a server stops, and is
    retried when that is safe, all within its timeout.

    Args:
        target: addresses of the servers: `host:port`, a `dns:///name:port` with many
            addresses, `unix:/path`, or a list of hosts, which are resolved once. Calls go to
            all of them in turn. Default `localhost:50051`.
        timeout: seconds that each request may take; default 10.
        tls: how to encrypt; None for plain text.
        token: a bearer token to send with every call; it needs TLS beyond this machine.
        model: name of the model for calls that name none; None for the server's only or default
            one.

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
        transport = BlockingTransport(settings)
        self._calls = Calls(transport, settings)
        self._batches = Batches(self._calls)
        # At the interpreter's exit too, while gRPC's threads can still be stopped in order.
        self._finalizer = weakref.finalize(self, _close, self._calls, transport)

    def predict(
        self,
        instance: "Instance",
        *,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        receipt: bool = False,
    ) -> Prediction:
        """Classify one instance.

        Args:
            instance: an array or nested lists of any shape with as many values as the model
                takes. uint8 and other integers are raw, 0 to the model's maximum (255 for
                MNIST); floats and booleans are scaled, 0 to 1. Or a Pillow image, or the path
                of a PNG or JPEG: it is scaled to the model's input shape, and inverted if its
                background is light.
            version: use this version instead of the one being served.
            alias: use the version that this alias points at.
            model: use this model instead of the client's.
            timeout: seconds, instead of the client's timeout.
            receipt: request a receipt, by which `report` says later what the truth was.

        Raises:
            InvalidInputError: the input does not fit the model.
            ModelNotFoundError: there is no such version or alias.
            ModelRejectedError: the selected version is not fit to be served.
            NotOfferedError: a receipt was requested, and the server gives none.
            MlpserveError: the call failed; its subclass says why.

        """
        selector = self._calls.selector(version, alias, model)
        return run(self._calls.predict(instance, selector, timeout, receipt))

    def predict_batch(
        self,
        instances: "Instances",
        *,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        receipts: bool = False,
    ) -> BatchPrediction:
        """Classify any number of instances, all by one version.

        The instances are split into requests under the server's limits. All requests use the
        version that answered the first.

        Args:
            instances: `[n, ...]` with values as for `predict`, or a list of images or paths.
            version: use this version instead of the one being served.
            alias: use the version that this alias points at.
            model: use this model instead of the client's.
            timeout: seconds that each request may take, instead of the client's timeout.
            receipts: request a receipt for each instance.

        Raises:
            MlpserveError: as for `predict`; then there is no answer at all.

        """
        selector = self._calls.selector(version, alias, model)
        return run(self._batches.predict_batch(instances, selector, timeout, receipts))

    def predict_stream(
        self,
        instances: "Iterable[Instance]",
        *,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        batch_size: int = 256,
    ) -> Generator[Prediction, None, None]:
        """Classify instances as they come, in order, holding only a few batches of them.

        It reads ahead by a few times `batch_size`. A long stream follows the server from
        version to version, and each answer names its version. Pass `version` to keep one.

        Args:
            instances: any iterable of what `predict` takes, without end if need be.
            version: use this version instead of the one being served.
            alias: use the version that this alias points at.
            model: use this model instead of the client's.
            timeout: seconds that each request may take, instead of the client's timeout.
            batch_size: maximum number of instances in one request.

        Raises:
            MlpserveError: as for `predict`, after the answers before it.

        """
        selector = self._calls.selector(version, alias, model)
        answers = self._batches.predict_stream(instances, selector, timeout, batch_size)
        try:
            while True:
                try:
                    answer = run(answers.__anext__())
                except StopAsyncIteration:
                    return
                yield answer
        finally:
            run(answers.aclose())

    def explain(
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
        """Explain why one instance gets the score of a class.

        The score is the class's logit. Each value of the input contributes a part of what it
        differs from the logit of the baseline (DeepLIFT's Rescale rule).

        Args:
            instance: as for `predict`.
            label: the class to explain; None explains the predicted one.
            baseline: what to compare with, as an instance; None is all zeros, or the means of
                the training rows for a table.
            activations: request the hidden layers' activations as well.
            version: use this version instead of the one being served.
            alias: use the version that this alias points at.
            model: use this model instead of the client's.
            timeout: seconds, instead of the client's timeout.

        Raises:
            ServerError: the server does not explain, because it is older than this client.
            MlpserveError: the call failed, as for `predict`.

        """
        selector = self._calls.selector(version, alias, model)
        return run(explain(self._calls, instance, label, baseline, activations, selector, timeout))

    def report(
        self,
        receipt: bytes | str,
        *,
        class_name: str | None = None,
        right: bool | None = None,
        instance: "Instance | None" = None,
        note: str = "",
        timeout: float | None = None,
    ) -> ReportResult:
        """Report what the truth about one answer was. A second report of it changes nothing.

        Args:
            receipt: the answer's receipt, as bytes or in hex.
            class_name: name of the true class.
            right: whether the predicted class was the true one; give this or `class_name`.
            instance: what was classified, exactly as it was given to `predict`, for the model to
                learn from; None keeps it from the server.
            note: free text for people.
            timeout: seconds, instead of the client's timeout.

        Raises:
            InvalidInputError: the report is wrong, such as a receipt of another server.
            NotOfferedError: the server takes no reports.
            OverloadedError: this caller has made too many reports; `retry_after` says how long to
                wait.
            MlpserveError: the call failed, as for `predict`.

        """
        one = Report(receipt, class_name, right, instance, note)
        return run(report(self._calls, [one], timeout))

    def report_batch(
        self, reports: Iterable[Report], *, timeout: float | None = None
    ) -> ReportResult:
        """Report on any number of answers, some hundred in a request.

        A failure may come after some requests; to send all of them again is safe.

        Args:
            reports: what to report.
            timeout: seconds that each request may take, instead of the client's timeout.

        Raises:
            MlpserveError: as for `report`.

        """
        return run(report(self._calls, reports, timeout))

    def __repr__(self) -> str:
        return f"Client({self._calls.settings.where!r})"


def _close(calls: Calls, transport: BlockingTransport) -> None:
    if calls.close():
        transport.close()
