"""However many workers a server has, it lists an object store once a poll."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlpserve_model import Store
from tests.support.object_store import DRAFT, Proxy
from tests.support.publishing import publish_to
from tests.support.waiting import eventually

PROGRAM = str(Path(sys.executable).with_name("mlpserve-server"))


@pytest.mark.parametrize(
    ("workers", "count"), [(2, 3), pytest.param(4, 100, marks=pytest.mark.slow)]
)
def test_a_poll_that_finds_nothing_new_is_one_request_for_all_workers(
    workers: int, count: int, address: str, proxy: Proxy, tmp_path: Path
) -> None:
    for number in range(count):
        publish_to(Store(address, f"model-{number}"), draft=DRAFT)
    command = [
        PROGRAM, "--store", address, "--model", "*", "--listen", "127.0.0.1:0",
        "--poll-seconds", "1", "--drain-seconds", "0", "--cache-dir", str(tmp_path),
        "--workers", str(workers), "--log-format", "json",
    ]  # fmt: skip

    def listings() -> int:
        return proxy.requests.count("GET a listing")

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        served = 0
        while served < workers * count:
            served += json.loads(process.stderr.readline())["event"] == "serving"

        def two_polls_are_two_listings() -> bool:
            proxy.requests.clear()
            eventually(lambda: listings() >= 2)
            return set(proxy.requests) == {"GET a listing"}

        eventually(two_polls_are_two_listings)  # once what was found has been read
        promoted = publish_to(Store(address, "model-1"), seed=1, draft=DRAFT)
        for _ in range(workers):
            while (event := json.loads(process.stderr.readline()))["event"] != "serving":
                pass
            assert (event["model"], event["version"]) == ("model-1", promoted)
        process.terminate()
        assert process.wait(30) == 0
