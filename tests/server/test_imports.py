"""What a process loads before it needs it, which takes time and memory."""

import subprocess
import sys

import pytest

HEAVY = {"grpc", "numpy", "prometheus_client", "mlpserve_server.transport", "google.protobuf"}
CASES = {
    "mlpserve_server.supervisor": HEAVY - {"numpy"},
    "mlpserve_server.cli": HEAVY - {"numpy"},
    "mlpserve_server.observability.endpoint": HEAVY - {"numpy", "prometheus_client"},
    "mlpserve_server.settings": HEAVY - {"numpy"},
}


@pytest.mark.parametrize(("module", "forbidden"), CASES.items())
def test_the_supervisor_and_what_it_uses_import_no_grpc(module: str, forbidden: set[str]) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert module in loaded
    assert not loaded & forbidden


def test_a_server_starts_without_what_it_needs_later_or_never() -> None:
    code = (
        "import sys, numpy, grpc, prometheus_client; before = {*sys.modules}; "
        "import mlpserve_server.server; print(*{*sys.modules} - before)"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert "mlpserve_server.server" in loaded
    assert not loaded & {"numpy.random", "importlib.metadata"}
