"""Possible causes, for the message that no server can be reached."""

from collections.abc import Sequence

import grpc

from mlpserve_client._error_mapping import translate
from mlpserve_client._errors import ConnectionFailedError, MlpserveError
from mlpserve_client._settings import Settings
from mlpserve_client._targets import is_local

# What gRPC says where one side speaks TLS and the other does not.
_CLOSED_AT_ONCE = ("Socket closed", "Connection reset", "Broken pipe", "Endpoint closing")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "wrong version number", "packet length too long")


def translate_with_hint(
    error: grpc.RpcError, settings: Settings, targets: Sequence[str]
) -> MlpserveError:
    """Turn a failed call's error into ours, with a possible cause; raise it `from error`."""
    problem = translate(error, ",".join(targets))
    if isinstance(problem, ConnectionFailedError):
        hint = unreachable_hint(settings, targets, str(problem))
        return ConnectionFailedError(f"{problem}{hint}", target=problem.target)
    return problem


def unreachable_hint(settings: Settings, targets: Sequence[str], text: str) -> str:
    """Return possible causes as the end of a message, empty if there are none.

    Args:
        settings: the client's settings.
        targets: where the call went.
        text: the message of gRPC.

    """
    hints = []
    if "Connection refused" in text and all(map(is_local, targets)):
        hints.append("nothing listens there: `mlpserve serve` starts a server")
    if settings.tls is None and any(words in text for words in _CLOSED_AT_ONCE):
        hints.append("the server may want TLS, which is off")
    if settings.tls and any(words in text for words in _NOT_TLS):
        hints.append("the server may not use TLS, which is on")
    if settings.proxy and not all(map(is_local, targets)):
        hints.append(
            f"connections go through the proxy of {settings.proxy}; no_proxy lists hosts to "
            "reach without it"
        )
    return f" ({'; '.join(hints)})" if hints else ""
