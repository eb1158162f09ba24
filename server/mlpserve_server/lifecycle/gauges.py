"""The gauges of the models: which versions answer, and when the store was read."""

from collections.abc import Callable, Iterator
from functools import partial

from mlpserve_model import Manifest
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.observability.observer import Observer

__all__ = ["register_model_gauges"]

_Values = dict[tuple[str, ...], float]


def register_model_gauges(observer: Observer, models: Models) -> None:
    """Have the observer read the gauges of the models."""
    readings: dict[str, Callable[[Models], _Values]] = {
        "mlpserve_store_read_timestamp_seconds": _last_read,
        "mlpserve_model_info": _served,
        "mlpserve_model_created_timestamp_seconds": _created,
        "mlpserve_model_accuracy": _accuracy,
        "mlpserve_models": _counted,
    }
    for metric, read in readings.items():
        observer.gauge(metric, partial(read, models))


def _last_read(models: Models) -> _Values:
    """Return when the store was last readable for the model where that is longest ago."""
    return {(): min((manager.last_read for manager in models.managers.values()), default=0.0)}


def _served(models: Models) -> _Values:
    return {(m.model, str(m.version), m.digest): 1 for m in _manifests(models)}


def _created(models: Models) -> _Values:
    return {(m.model, str(m.version)): m.created.timestamp() for m in _manifests(models)}


def _accuracy(models: Models) -> _Values:
    manifests = [m for m in _manifests(models) if "accuracy" in m.metrics]
    return {(m.model, str(m.version)): m.metrics["accuracy"] for m in manifests}


def _counted(models: Models) -> _Values:
    managers = models.managers.values()
    answering = sum(manager.current is not None for manager in managers)
    return {("answering",): answering, ("waiting",): len(managers) - answering}


def _manifests(models: Models) -> Iterator[Manifest]:
    """Give the manifests of the versions that answer, of the models with gauges of their own."""
    for manager in models.labelled():
        if model := manager.current:
            yield model.manifest
