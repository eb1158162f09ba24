"""Several processes on one port behave as one server."""

import os
import signal
from pathlib import Path
from typing import Any

import grpc

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub

REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)


def children(pid: int) -> set[int]:
    stats = [stat for path in Path("/proc").glob("[0-9]*/stat") if (stat := read(path))]
    fields = [(int(stat.split()[0]), stat.rpartition(")")[2].split()) for stat in stats]
    return {child for child, (state, parent, *_) in fields if int(parent) == pid and state != "Z"}


def read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended meanwhile


def call(address: str) -> int:
    """Call on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        answer = PredictionServiceStub(channel).Predict(REQUEST, timeout=10, wait_for_ready=True)
    return int(answer.model.version)


def test_all_workers_answer_on_one_port_and_stop_together(publish: Any, run: Any) -> None:
    publish()
    server = run("--workers", "2", "--drain-seconds", "0.1")
    address = server.event("listening")["address"]
    server.event("serving")
    server.event("serving")
    assert len(children(server.process.pid)) == 2
    assert {call(address) for _ in range(20)} == {1}
    second = publish(seed=1)
    server.event("serving")
    server.event("serving")
    assert {call(address) for _ in range(20)} == {second}
    workers = children(server.process.pid)
    assert server.end() == 0
    assert not any(map(running, workers))


def test_a_worker_that_dies_is_replaced(publish: Any, run: Any, eventually: Any) -> None:
    publish()
    server = run("--workers", "2")
    address = server.event("listening")["address"]
    server.event("serving")
    server.event("serving")
    before = children(server.process.pid)
    os.kill(min(before), signal.SIGKILL)
    assert server.event("a worker ended")["exit_code"] == -signal.SIGKILL
    server.event("serving")
    after = children(server.process.pid)
    assert len(after) == 2
    assert len(after & before) == 1
    assert {call(address) for _ in range(20)} == {1}
    assert server.end() == 0


def test_a_worker_that_cannot_start_ends_the_server_with_its_error(
    run: Any, transport: str
) -> None:
    server = run("--workers", "2", "--model", "no/such/model")
    assert "no/such/model" in server.event("cannot start")["reason"]
    assert server.process.wait(timeout=20) == 1


def test_a_port_of_sharing_workers_is_taken_for_anyone_else(publish: Any, run: Any) -> None:
    publish()
    server = run("--workers", "2")
    address = server.event("listening")["address"]
    for count in ("1", "2"):
        other = run("--workers", count, "--listen", address)
        assert address in other.event("cannot start")["reason"]
        assert other.process.wait(timeout=20) == 1


def test_workers_stop_when_their_parent_is_killed(publish: Any, run: Any, eventually: Any) -> None:
    publish()
    server = run("--workers", "2", "--drain-seconds", "0")
    server.event("serving")
    server.event("serving")
    workers = children(server.process.pid)
    server.process.kill()
    server.process.wait()
    eventually(lambda: not any(map(running, workers)))


def running(pid: int) -> bool:
    stat = read(Path(f"/proc/{pid}/stat"))
    return bool(stat) and stat.rpartition(")")[2].split()[0] != "Z"
