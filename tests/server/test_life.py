"""Starting, draining, stopping and too much work."""

import ctypes
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from mlpserve_model import Store
from mlpserve_server.cli import main
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Refuse, Run, Serve
from tests.support.waiting import eventually

REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)
INTERFACES = Path("/proc/net/if_inet6")
NEEDS_IPV6 = pytest.mark.skipif(
    INTERFACES.exists() and "lo" not in INTERFACES.read_text().split(), reason="no IPv6 loopback"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(publish: Publish, run: Run, number: int) -> None:
    publish()
    server = run("--drain-seconds", "0.1")
    server.event("serving")
    assert server.end(number) == 0


@ANY_TRANSPORT
@pytest.mark.skipif(sys.platform != "linux", reason="signals to one thread are sent Linux's way")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_that_another_thread_takes_ends_the_server_too(
    publish: Publish, run: Run, workers: str
) -> None:
    publish()
    server = run("--drain-seconds", "0.1", "--workers", workers)
    server.event("serving")
    process = server.process.pid
    others = [int(task.name) for task in Path(f"/proc/{process}/task").iterdir()]
    others.remove(process)
    assert ctypes.CDLL(None).tgkill(process, others[0], signal.SIGTERM) == 0
    assert server.process.wait(20) == 0


def test_a_second_signal_does_not_wait_for_the_drain(publish: Publish, run: Run) -> None:
    publish()
    server = run("--drain-seconds", "60")
    server.event("serving")
    server.process.send_signal(signal.SIGTERM)
    server.event("draining")
    assert server.end(signal.SIGINT) == 1


def test_a_draining_server_is_not_ready_yet_answers(publish: Publish, run: Run) -> None:
    publish()
    server = run("--drain-seconds", "5")
    address = server.event("listening")["address"]
    server.event("serving")
    with grpc.insecure_channel(address) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service="mlpserve.v1.PredictionService"), timeout=20)
        states = iter(watch)
        # "serving" is logged a moment before it is announced.
        assert any(state.status == health_pb2.HealthCheckResponse.SERVING for state in states)
        server.process.send_signal(signal.SIGTERM)
        assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = PredictionServiceStub(channel).Predict(REQUEST, timeout=5)
        assert answer.model.version == 1
        watch.cancel()
    server.process.communicate(timeout=20)
    assert server.process.returncode == 0


def test_a_watch_flips_at_the_start_and_at_the_drain_and_not_at_a_swap(
    publish: Publish, run: Run
) -> None:
    server = run("--drain-seconds", "1")
    address = server.event("listening")["address"]
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service="mlpserve.v1.PredictionService")
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=60)
        states = (state.status for state in watch)
        assert next(states) == health_pb2.HealthCheckResponse.NOT_SERVING
        for seed in (0, 1, 2):
            version = publish(seed=seed)
            assert server.event("serving")["version"] == version
        server.process.send_signal(signal.SIGTERM)
        assert next(states) == health_pb2.HealthCheckResponse.SERVING  # once, for all three
        assert next(states) == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
    server.process.communicate(timeout=20)
    assert server.process.returncode == 0


@ANY_TRANSPORT
def test_a_taken_port_is_an_error(publish: Publish, run: Run) -> None:
    publish()
    address = run().event("listening")["address"]
    second = run("--listen", address)
    assert f"{address}: Address already in use" in second.event("cannot start")["reason"]
    assert second.process.wait(timeout=20) == 1


@ANY_TRANSPORT
@NEEDS_IPV6
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_host_of_two_addresses_is_taken_if_one_of_them_is(
    run: Run, family: socket.AddressFamily, host: str, workers: str
) -> None:
    with socket.create_server((host, 0), family=family) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        server = run("--listen", address, "--workers", workers)
        said = server.event("cannot start")["reason"]
        reason = f"Address already in use on {host} (--listen chooses another)"
        assert said == f"cannot listen on {address}: {reason}"
        assert server.process.wait(timeout=20) == 1


@ANY_TRANSPORT
@NEEDS_IPV6
def test_all_addresses_of_a_host_get_the_same_port(publish: Publish, run: Run) -> None:
    publish()
    port = run("--listen", "localhost:0", "--workers", "2").event("listening")["address"][10:]
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, int(port)), timeout=10).close()


@ANY_TRANSPORT
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("unix:/nosuch/dir/x", "there is no folder /nosuch/dir"),
        ("unix:/etc/passwd", "there is something else of this name"),
        ("unix:/tmp/" + "x" * 120, "a socket's path may have 107 bytes, this has 125"),
        ("203.0.113.5:50051", "Cannot assign requested address"),
    ],
)
def test_an_address_that_cannot_be_had_is_an_error_that_says_why(
    run: Run, address: str, reason: str
) -> None:
    server = run("--listen", address, "--allow-plaintext")
    said = server.event("cannot start")["reason"]
    assert said == f"cannot listen on {address}: {reason} (--listen chooses another)"
    assert server.process.wait(timeout=20) == 1


@ANY_TRANSPORT
@pytest.mark.parametrize("form", ["there is no folder", "champion of mnist is not there"])
def test_a_server_that_waits_says_whether_there_is_a_store_at_all(
    run: Run, store: Store, form: str
) -> None:
    if form != "there is no folder":
        store.folder.parent.mkdir(exist_ok=True)
    assert form in run().event("waiting for a model")["reason"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "nonsense"],
        ["--listen", "127.0.0.1:70000"],
        ["--serve", "Not An Alias"],
        ["--poll-seconds", "0"],
        ["--poll-seconds", "nan"],
        ["--max-batch", "0"],
        ["--standby", "-1"],
        ["--unknown"],
    ],
)
def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    errors = capsys.readouterr().err
    assert end.value.code == 2
    assert errors.startswith("mlpserve-server: ")
    assert errors.endswith("(see mlpserve-server --help)\n")


@ANY_TRANSPORT
def test_a_wrong_variable_is_named_and_ends_with_2(run: Run) -> None:
    server = run(MLPSERVE_STANDBY="many")
    _, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 2
    assert "MLPSERVE_STANDBY" in errors


@ANY_TRANSPORT
def test_a_flag_wins_over_its_variable(publish: Publish, run: Run) -> None:
    publish()
    second = publish(seed=1, promote=False)
    server = run("--serve", "latest", MLPSERVE_SERVE="champion")
    assert server.event("serving")["version"] == second


def test_calls_beyond_the_bound_are_refused_while_health_answers(
    publish: Publish, serve: Serve, refusal: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    stubs = serve(max_waiting=10)
    eventually(stubs.serving)
    predict = stubs.served.predict

    def slow(x: Any) -> Any:
        time.sleep(0.2)
        return predict(x)

    patch_method(monkeypatch, stubs.served, "predict", slow)
    calls = [stubs.prediction.Predict.future(REQUEST, timeout=30) for _ in range(90)]
    assert stubs.serving()
    codes = [call.code() for call in calls]
    refused = [call for call in calls if call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert codes.count(grpc.StatusCode.OK) >= 10
    assert len(refused) >= 10
    assert codes.count(grpc.StatusCode.OK) + len(refused) == 90
    details = refusal(lambda *_, **__: refused[0].result(), REQUEST)
    assert details.info.reason == "OVERLOADED"
    assert details.retry.retry_delay.ToMilliseconds() == 100
    assert stubs.prediction.Predict(REQUEST).model.version == 1, "it recovers"


def test_an_abandoned_batch_ends_within_a_chunk(
    publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    chunks = []
    predict = stubs.served.predict

    def counted(x: Any) -> Any:
        chunks.append(len(x))
        time.sleep(0.3)
        return predict(x)

    patch_method(monkeypatch, stubs.served, "predict", counted)
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[5120, 12], data=bytes(5120 * 12))
    request = pb.BatchPredictRequest(instances=tensor)
    with pytest.raises(grpc.RpcError) as caught:
        stubs.prediction.BatchPredict(request, timeout=0.5)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    time.sleep(1)
    assert len(chunks) < 5, "ten chunks would have been the whole batch"
