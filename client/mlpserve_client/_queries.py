"""What the blocking client does beside predicting."""

import weakref
from types import TracebackType
from typing import Self

from mlpserve_client._blocking import run
from mlpserve_client._calls import Calls
from mlpserve_client._results import ModelVersion


class ServerQueries:
    """What a client does beside predicting: describe versions, check readiness, close."""

    _calls: Calls
    _finalizer: "weakref.finalize[..., ServerQueries]"

    def model(
        self,
        *,
        version: int | None = None,
        alias: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> ModelVersion:
        """Describe the version being served, or the selected one.

        Args:
            version: describe this version.
            alias: describe the version that this alias points at.
            model: describe this model instead of the client's.
            timeout: seconds, instead of the client's timeout.

        Raises:
            ModelNotFoundError: there is no such version or alias.
            MlpserveError: the call failed, as for `predict`.

        """
        return run(self._calls.model(self._calls.selector(version, alias, model), timeout))

    def models(self, *, timeout: float | None = None) -> list[ModelVersion]:
        """Describe what each of the server's models answers with, by name.

        A model without a version to serve has version 0, and `reason` says why.

        Args:
            timeout: seconds that each request may take, instead of the client's timeout.

        Raises:
            MlpserveError: the call failed, as for `predict`.

        """
        return run(self._calls.models(timeout))

    def versions(
        self, model: str | None = None, *, timeout: float | None = None
    ) -> list[ModelVersion]:
        """Describe every version of a model in the store, newest first.

        Args:
            model: its name; None for the client's.
            timeout: seconds that each request may take, instead of the client's timeout.

        Raises:
            ModelNotFoundError: the server has no such model.
            MlpserveError: the call failed, as for `predict`.

        """
        return run(self._calls.versions(model, timeout))

    def health(
        self, *, live: bool = False, model: str | None = None, timeout: float | None = None
    ) -> bool:
        """Return True if a server is ready to predict; of several targets, if any is.

        Args:
            live: return True if it is alive instead, with a model to serve or not.
            model: name of the model that must be ready; None for the client's or, if it has none,
                what the server requires. A server that is older than this check is asked whether
                it is ready as a whole.
            timeout: seconds, instead of the client's timeout.

        Raises:
            ConnectionFailedError: no server answers.
            UnauthenticatedError: the server requires credentials.

        """
        return run(self._calls.health(live, model, timeout))

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return as soon as a server is ready to predict.

        Args:
            timeout: seconds, instead of the client's timeout.

        Raises:
            NotReadyError: a server is alive, but it has no model to serve.
            ConnectionFailedError: no server answers.

        """
        run(self._calls.wait_until_ready(timeout))

    def close(self) -> None:
        """Close the connections; calls under way fail. Closing again does nothing."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
