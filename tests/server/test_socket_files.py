"""A socket file belongs to one server at a time."""

import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Run, Serve

pytestmark = ANY_TRANSPORT  # both listen alike
REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def answers(path: Path) -> bool:
    """Whether a new connection is answered."""
    with grpc.insecure_channel(f"unix:{path}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer = PredictionServiceStub(channel).Predict(REQUEST, timeout=20, wait_for_ready=True)
    return bool(answer.model.version == 1)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_server_is_refused_and_the_first_goes_on(
    publish: Publish, run: Run, path: Path, workers: str
) -> None:
    publish()
    where = ["--listen", f"127.0.0.1:0,unix:{path}", "--workers", workers]
    first = run(*where)
    for _ in range(int(workers)):  # the first of them has the file
        first.event("serving")
    assert answers(path)
    second = run(*where)
    reason = second.event("cannot start")["reason"]
    assert reason == f"cannot listen on unix:{path}: Address already in use"
    assert second.process.wait(timeout=30) == 1
    assert answers(path)


def test_of_servers_that_start_at_once_one_gets_the_path(
    publish: Publish, run: Run, path: Path
) -> None:
    publish()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # what each of them may take for its own to replace
    servers = [run("--listen", f"unix:{path}") for _ in range(4)]
    said = [first_of(server, "listening", "cannot start") for server in servers]
    assert sorted(said) == ["cannot start"] * 3 + ["listening"]
    for server in servers:
        if said[servers.index(server)] == "cannot start":
            server.process.wait(timeout=30)
    assert answers(path)


def test_the_file_of_a_server_that_was_killed_is_replaced(
    publish: Publish, run: Run, path: Path
) -> None:
    publish()
    first = run("--listen", f"unix:{path}")
    first.event("serving")
    first.process.kill()
    first.process.wait()
    assert path.is_socket()
    run("--listen", f"unix:{path}").event("serving")
    assert answers(path)


def test_no_file_but_a_socket_is_replaced(run: Run, path: Path) -> None:
    path.write_text("precious")
    server = run("--listen", f"unix:{path}")
    assert "something else of this name" in server.event("cannot start")["reason"]
    assert path.read_text() == "precious"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o007, 0o770), (0o077, 0o700)])
def test_the_mask_of_the_server_says_who_may_connect(
    serve: Serve, path: Path, mask: int, mode: int
) -> None:
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(mask))
        serve(listen=(f"unix:{path}",))
    assert stat.S_IMODE(path.stat().st_mode) == mode


def first_of(server: Any, *events: str) -> str:
    """The event of these that comes first."""
    found = ""
    while found not in events:
        line = server.process.stderr.readline()
        assert line, "the server ended without a word"
        found = next((event for event in events if f'"event": "{event}"' in line), "")
    return found
