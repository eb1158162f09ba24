"""Every RPC of the contracts has a label of its own in the metrics."""

import importlib
import pkgutil
from collections.abc import Iterator

import mlpserve
from mlpserve_server.observability.metrics import METHODS


def rpcs() -> Iterator[tuple[str, str]]:
    """The path and the name of every RPC in the descriptors of both contracts."""
    for module in pkgutil.walk_packages(mlpserve.__path__, "mlpserve."):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(module.name).DESCRIPTOR
            for service in file.services_by_name.values():
                for method in service.methods:
                    yield f"/{service.full_name}/{method.name}", method.name


def test_a_new_rpc_needs_a_label() -> None:
    found = dict(rpcs())
    assert len(found) > 10
    assert found == METHODS
