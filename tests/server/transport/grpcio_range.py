"""Run the tests of calls on the direct transport with every grpcio that it is made for.

It stands on a layer of grpcio that may change with any version. Each is installed into a folder
of its own, beside which everything else is taken from this environment. Ends with 1 when a test
fails with any of them, or when the oldest or the newest cannot be had.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mlpserve_server.transport.grpc_core import SUPPORTED

PACKAGES = ("grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status")
TESTS = [
    "tests/server/dataplane",
    "tests/server/test_life.py",
    "tests/server/transport/test_calls.py",
    "tests/server/transport/test_raw_calls.py",
]


def main() -> int:
    """Install and test one after the other; returns the exit code."""
    (major, first), (_, end) = SUPPORTED
    versions = [f"{major}.{minor}" for minor in range(first, end)]
    results = {version: _result(version) for version in versions}
    for version, result in results.items():
        print(f"grpcio {version}: {result}")
    ends = {results[versions[0]], results[versions[-1]]}
    return int("failed" in results.values() or ends != {"passed"})


def _result(version: str) -> str:
    with tempfile.TemporaryDirectory(prefix=f"grpcio-{version}-") as folder:
        wanted = [f"{package}=={version}.*" for package in PACKAGES]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        installed = subprocess.run(
            [*pip, "--no-deps", "--target", folder, *wanted], capture_output=True, check=False
        )
        if installed.returncode:
            return "cannot be installed"  # some numbers were never published
        print(f"grpcio {version}", flush=True)
        paths = [folder, os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        test = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "direct", *TESTS]
        root = Path(__file__).parents[3]
        tested = subprocess.run(test, cwd=root, env=environment, check=False)
        return "failed" if tested.returncode else "passed"


if __name__ == "__main__":
    sys.exit(main())
