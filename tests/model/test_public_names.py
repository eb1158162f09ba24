"""What the package offers, and what importing it does."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import mlpserve_model

MODULES = [
    module.name for module in pkgutil.walk_packages(mlpserve_model.__path__, "mlpserve_model.")
]


def test_the_packages_names_are_these() -> None:
    assert mlpserve_model.__all__ == [
        "CHALLENGER", "CHAMPION", "AliasConflict", "CorruptVersion", "DatasetInfo", "Draft",
        "FileInfo",
        "InputValues", "Layer",
        "Manifest", "Network", "Signature", "Store", "StoreBusy", "StoreError", "StoredModel",
        "UnsupportedModel",
        "Verdict", "VersionNotFound", "Weights", "forward", "initialise",
        "loss_and_gradients", "scale_pixels",
    ]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there(name: str) -> None:
    module = importlib.import_module(name)
    assert all(hasattr(module, public) for public in getattr(module, "__all__", ()))


@pytest.mark.parametrize(
    "error", ["AliasConflict", "CorruptVersion", "StoreBusy", "VersionNotFound"]
)
def test_every_error_is_a_store_error(error: str) -> None:
    assert issubclass(getattr(mlpserve_model, error), mlpserve_model.StoreError)


def test_importing_the_package_needs_numpy_alone_and_does_nothing() -> None:
    code = (
        "import sys, mlpserve_model, mlpserve_model.cli, logging\n"
        "ours = {name.split('.')[0] for name in sys.modules if name.startswith('mlpserve')}\n"
        "foreign = {'grpc', 'google', 'sklearn', 'scipy', 'pandas', 'rich'} & set(sys.modules)\n"
        "print(sorted(ours), sorted(foreign), logging.getLogger().handlers)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("['mlpserve_model'] [] []\n", "")
