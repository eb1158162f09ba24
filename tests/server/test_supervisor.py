"""Several processes on one port behave as one server."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from mlpserve_server.settings import read_settings
from mlpserve_server.supervisor import _command
from tests.support.publishing import Publish
from tests.support.server import Run
from tests.support.waiting import eventually

REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)


@pytest.fixture
def transport() -> str:
    """The supervisor has no transport."""
    return "auto"


def children(pid: int) -> set[int]:
    stats = [stat for path in Path("/proc").glob("[0-9]*/stat") if (stat := read(path))]
    fields = [(int(stat.split()[0]), stat.rpartition(")")[2].split()) for stat in stats]
    return {child for child, (state, parent, *_) in fields if int(parent) == pid and state != "Z"}


def read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended meanwhile


def accepted(pid: int, address: str) -> int:
    """How many connections to this address the process has."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    ours = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "01"}
    return sum(str(fd.readlink()) in ours for fd in Path(f"/proc/{pid}/fd").iterdir())


class Calls:
    """Calls on twenty connections, which stay open."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(address, options) for _ in range(20)]
        self._stubs = [PredictionServiceStub(stack.enter_context(c)) for c in channels]

    def versions(self) -> set[int]:
        """Call once on each connection; gives the versions that answered."""
        calls = [
            stub.Predict.future(REQUEST, timeout=10, wait_for_ready=True) for stub in self._stubs
        ]
        return {int(call.result().model.version) for call in calls}


@pytest.fixture
def connect() -> Iterator[Callable[[str], Calls]]:
    with ExitStack() as stack:
        yield lambda address: Calls(address, stack)


def test_all_workers_answer_on_one_port_and_stop_together(
    publish: Publish, run: Run, connect: Callable[[str], Calls]
) -> None:
    publish()
    server = run("--workers", "2", "--drain-seconds", "0.1")
    address = server.event("listening")["address"]
    server.event("serving")
    server.event("serving")
    workers = children(server.process.pid)
    assert len(workers) == 2
    calls = connect(address)
    assert calls.versions() == {1}
    assert all(accepted(worker, address) > 0 for worker in workers)
    second = publish(seed=1)
    server.event("serving")
    server.event("serving")
    assert calls.versions() == {second}
    assert children(server.process.pid) == workers
    assert server.end() == 0
    assert not any(map(running, workers))


def test_a_worker_that_dies_is_replaced(
    publish: Publish, run: Run, connect: Callable[[str], Calls]
) -> None:
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
    assert connect(address).versions() == {1}
    assert server.end() == 0


def test_a_worker_that_ends_with_an_error_after_it_served_is_replaced(
    publish: Publish, run: Run, connect: Callable[[str], Calls]
) -> None:
    publish()
    server = run("--workers", "2", "--drain-seconds", "2")
    address = server.event("listening")["address"]
    server.event("serving")
    server.event("serving")
    worker = min(children(server.process.pid))
    os.kill(worker, signal.SIGTERM)
    server.event("draining")
    os.kill(worker, signal.SIGTERM)  # the second does not wait, and ends it with 1
    assert server.event("a worker ended")["exit_code"] == 1
    server.event("serving")
    assert connect(address).versions() == {1}
    assert server.end() == 0


def test_a_stop_before_the_workers_are_up_ends_with_0(run: Run) -> None:
    server = run("--workers", "2", "--drain-seconds", "0")
    eventually(lambda: len(children(server.process.pid)) == 2)
    assert server.end() == 0


def test_two_dashes_behind_the_flags_change_nothing() -> None:
    given = ["--workers", "2", "--log-level", "error", "--"]
    command = _command(read_settings(given), given, ["127.0.0.1:50051"], 1)
    worker = read_settings(command[command.index("mlpserve_server") + 1 :])
    assert (worker.workers, worker.worker, worker.log_level) == (1, 1, "error")


def test_a_signal_to_the_workers_too_is_one_stop(publish: Publish, run: Run) -> None:
    """As from systemd, or `kill` of the whole group; each worker drains once."""
    publish()
    server = run("--workers", "2", "--drain-seconds", "1")
    server.event("serving")
    server.event("serving")
    for process in (*children(server.process.pid), server.process.pid):
        os.kill(process, signal.SIGTERM)
    assert server.process.stderr
    events = [json.loads(line) for line in server.process.stderr]
    assert server.process.wait(30) == 0
    stopped = [event["worker"] for event in events if event["event"] == "stopped"]
    assert sorted(stopped) == [1, 2]


def test_a_stop_just_after_a_worker_died_ends_with_0(publish: Publish, run: Run) -> None:
    publish()
    server = run("--workers", "2", "--drain-seconds", "0")
    server.event("serving")
    server.event("serving")
    os.kill(min(children(server.process.pid)), signal.SIGKILL)
    assert server.end() == 0


def test_a_socket_file_is_served_by_one_worker(run: Run, tmp_path: Path) -> None:
    server = run("--workers", "2", "--listen", f"unix:{tmp_path}/socket")
    assert "socket file" in server.event("one worker instead of several")["reason"]
    server.event("listening")
    assert server.end() == 0


def test_a_worker_that_cannot_start_ends_the_server_with_its_error(
    run: Run, transport: str
) -> None:
    server = run("--workers", "2", "--tls-cert", "/no/such.pem", "--tls-key", "/no/such.pem")
    assert "/no/such.pem" in server.event("cannot start")["reason"]
    assert server.process.wait(timeout=20) == 1


def test_a_port_of_sharing_workers_is_taken_for_anyone_else(publish: Publish, run: Run) -> None:
    publish()
    server = run("--workers", "2")
    address = server.event("listening")["address"]
    for count in ("1", "2"):
        other = run("--workers", count, "--listen", address)
        assert address in other.event("cannot start")["reason"]
        assert other.process.wait(timeout=20) == 1


def test_workers_stop_when_their_parent_is_killed(publish: Publish, run: Run) -> None:
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
