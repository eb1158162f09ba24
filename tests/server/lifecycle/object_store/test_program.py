"""The program on an object store: however many workers, one listing a poll; a start without it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlpserve_model import Store
from tests.support.object_store import DRAFT, Proxy, PublishTo
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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_program_starts_without_the_store_and_stops_while_it_hangs(
    workers: str, address: str, publish: PublishTo, proxy: Proxy, tmp_path: Path
) -> None:
    publish()
    command = [
        PROGRAM, "--store", address, "--model", "tiny", "--listen", "127.0.0.1:0",
        "--poll-seconds", "0.1", "--drain-seconds", "0", "--grace-seconds", "5",
        "--cache-dir", str(tmp_path), "--workers", workers, "--log-format", "json",
    ]  # fmt: skip

    def run(until: str) -> dict[str, Any]:
        environment = os.environ | {"AWS_TIMEOUT": "1s"}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr
        found = next(e for e in map(json.loads, process.stderr) if e["event"] == until)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert time.monotonic() - started < 6
        return dict(found)

    assert run(until="serving")["version"] == 1
    proxy.fault = lambda request: "hang"
    assert run(until="serving what was last seen of the store")["version"] == 1
