"""A volume dies under a server that follows it, and comes back."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from tests.support.publishing import publish_to
from tests.support.server import Process, Stubs
from tests.support.volumes import Volume

pytestmark = pytest.mark.faults

REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)
ROUNDS = 3


@pytest.fixture(params=["ext4", "xfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    with Volume(request.param, tmp_path) as volume:
        yield volume


@pytest.fixture
def server(volume: Volume) -> Iterator[Process]:
    arguments = ["--store", str(volume.path / "models"), "--listen", "127.0.0.1:0"]
    process = Process(*arguments, "--poll-seconds", "0.05", "--workers", "1")
    yield process
    process.process.kill()
    process.process.communicate()


def test_a_server_answers_while_its_volume_is_dead_and_follows_once_it_is_back(
    volume: Volume, server: Process
) -> None:
    store = Store(volume.path / "models", "mnist")
    stubs = Stubs(server.event("listening")["address"])
    publish_to(store)
    assert server.event("serving")["version"] == 1
    answered = 0
    with stubs.channel:
        for version in range(2, 2 + ROUNDS):
            volume.cut_power()
            server.event("the store cannot be read")
            for _ in range(100):
                assert _version(stubs) == version - 1
                answered += 1
            assert stubs.serving()
            volume.remount()
            assert publish_to(store, seed=version) == version
            assert server.event("serving")["version"] == version
    print(f"\n{volume.kind}: dead {ROUNDS} times, {answered} calls answered meanwhile, none failed")


def test_a_server_that_starts_on_a_dead_volume_waits_for_it(volume: Volume) -> None:
    store = Store(volume.path / "models", "mnist")
    publish_to(store)
    volume.remount()
    volume.cut_power()
    arguments = ["--store", str(volume.path / "models"), "--listen", "127.0.0.1:0"]
    server = Process(*arguments, "--poll-seconds", "0.05", "--workers", "1")
    try:
        stubs = Stubs(server.event("listening")["address"])
        reason = server.event("the store cannot be read")["reason"]
        assert "Input/output error" in reason
        with stubs.channel, pytest.raises(grpc.RpcError) as caught:
            _version(stubs)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        volume.remount()
        assert server.event("serving")["version"] == 1
    finally:
        server.process.kill()
        server.process.communicate()
    print(f"\n{volume.kind}: started on a dead volume: {reason}")


def _version(stubs: Stubs) -> int:
    return int(stubs.prediction.Predict(REQUEST, timeout=20).model.version)
