"""The client of mlpserve: NumPy arrays in, NumPy arrays out.

    from mlpserve_client import Client

    with Client("localhost:50051") as client:
        prediction = client.predict(image)
        print(prediction.name, prediction.probability)

Importing this package is cheap: its names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpserve_client._async import AsyncClient
    from mlpserve_client._errors import (
        BatchTooLargeError,
        ClientClosedError,
        ConnectionFailedError,
        DeadlineError,
        InvalidInputError,
        MlpserveError,
        ModelForbiddenError,
        ModelNotFoundError,
        ModelRejectedError,
        NotOfferedError,
        NotReadyError,
        OverloadedError,
        ServerError,
        SettingsError,
        UnauthenticatedError,
    )
    from mlpserve_client._explanation import Explanation, ValueAttribution
    from mlpserve_client._results import (
        BatchPrediction,
        ClassProbability,
        InputValues,
        ModelRef,
        ModelVersion,
        Prediction,
        Report,
        ReportResult,
    )
    from mlpserve_client._settings import Tls
    from mlpserve_client._sync import Client

    __version__: str

__all__ = [
    "AsyncClient",
    "BatchPrediction",
    "BatchTooLargeError",
    "ClassProbability",
    "Client",
    "ClientClosedError",
    "ConnectionFailedError",
    "DeadlineError",
    "Explanation",
    "InputValues",
    "InvalidInputError",
    "MlpserveError",
    "ModelForbiddenError",
    "ModelNotFoundError",
    "ModelRef",
    "ModelRejectedError",
    "ModelVersion",
    "NotOfferedError",
    "NotReadyError",
    "OverloadedError",
    "Prediction",
    "Report",
    "ReportResult",
    "ServerError",
    "SettingsError",
    "Tls",
    "UnauthenticatedError",
    "ValueAttribution",
]

_RESULTS = (
    "BatchPrediction",
    "ClassProbability",
    "InputValues",
    "ModelRef",
    "ModelVersion",
    "Prediction",
    "Report",
    "ReportResult",
)
_HOMES = {
    "AsyncClient": "_async",
    "Client": "_sync",
    "Explanation": "_explanation",
    "Tls": "_settings",
    "ValueAttribution": "_explanation",
    **dict.fromkeys(_RESULTS, "_results"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("mlpserve")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES.get(name, '_errors')}")
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return __all__
