"""Importing the client is cheap and loads nothing of the other rooms."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import mlpserve_client


def loaded_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_an_import_loads_neither_grpc_nor_numpy() -> None:
    assert not loaded_after("import mlpserve_client") & {"grpc", "numpy", "google.protobuf"}


def test_the_clients_load_no_other_room_and_no_optional_library() -> None:
    loaded = loaded_after("from mlpserve_client import *")

    assert "grpc" in loaded
    assert not loaded & {
        "mlpserve_model",
        "mlpserve_server",
        "mlpserve_trainer",
        "sklearn",
        "scipy",
        "PIL",
        "grpc_health.v1",  # gRPC itself loads the empty package around it
        "grpc_status",
        "google.rpc",
    }


def test_every_public_name_is_there() -> None:
    assert sorted(mlpserve_client.__all__) == mlpserve_client.__all__
    assert dir(mlpserve_client) == mlpserve_client.__all__
    for name in mlpserve_client.__all__:
        assert getattr(mlpserve_client, name).__doc__


def test_every_public_name_is_imported_for_type_checkers_and_documents() -> None:
    tree = ast.parse(Path(mlpserve_client.__file__).read_text())
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    imported = {alias.name for node in imports for alias in node.names}

    assert set(mlpserve_client.__all__) <= imported


def test_the_package_says_its_version() -> None:
    assert mlpserve_client.__version__ == version("mlpserve")


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_this"):
        _ = mlpserve_client.nothing_of_this
