"""The metrics endpoint of several workers, and the supervisor behind it, under attack."""

import os
import resource
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server.test_supervisor import children
from tests.support.publishing import Publish
from tests.support.server import Page, Run


@pytest.fixture
def transport() -> str:
    """The supervisor has no transport."""
    return "auto"


def limit_files(pid: int, files: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, 4096))


def test_half_requests_keep_nobody_from_the_metrics_and_a_dead_worker_is_replaced(
    publish: Publish, run: Run, scrape: type[Page]
) -> None:
    publish()
    server = run("--workers", "2", "--metrics-listen", "127.0.0.1:0")
    page = server.event("showing metrics")["address"]
    server.event("serving")
    server.event("serving")
    supervisor = server.process.pid
    limit_files(supervisor, 256)
    host, _, port = page.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    with ExitStack() as stack:
        for _ in range(300):
            caller = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            caller.sendall(b"GET /metrics HTTP/1.1\r\n")
        os.kill(min(children(supervisor)), signal.SIGKILL)
        server.event("serving")
        assert scrape(page)("mlpserve_worker_ends_total") == 1


def test_a_worker_that_cannot_be_started_is_tried_again(publish: Publish, run: Run) -> None:
    publish()
    server = run("--workers", "2")
    server.event("serving")
    server.event("serving")
    supervisor = server.process.pid
    limit_files(supervisor, len(list(Path(f"/proc/{supervisor}/fd").iterdir())))
    os.kill(min(children(supervisor)), signal.SIGKILL)
    server.event("a worker ended")
    assert "Too many open files" in server.event("no process for a worker")["reason"]
    limit_files(supervisor, 4096)
    server.event("serving")
    assert len(children(supervisor)) == 2
    assert server.end() == 0
