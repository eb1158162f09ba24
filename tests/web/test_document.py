"""The calls in docs/web.md work as they stand there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mlpserve_client.testing import serve
from tests.web.conftest import StartWeb

TEXT = (Path(__file__).parents[2] / "docs" / "web.md").read_text()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_calls_everything(start_web: StartWeb) -> None:
    (script,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    with serve() as server:
        address = start_web("--target", server.target).address
        command = [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            script.replace("http://localhost:8080", address),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ('"mlpserve"', '"ready":true', '"labels"', '"probabilities"'):
        assert part in done.stdout, done.stdout
