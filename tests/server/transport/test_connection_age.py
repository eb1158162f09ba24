"""Clients are asked to reconnect at the connection age, and lose no call by it."""

import threading
from typing import Any

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.transport.services import channel_options
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.raw_http2 import RawConnection
from tests.support.server import Serve
from tests.support.waiting import eventually

PIXELS = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))


def test_a_call_in_flight_is_answered_after_its_connection_has_reached_the_age(
    publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    stubs = serve(connection_age_seconds=1)
    eventually(stubs.serving)
    states: list[grpc.ChannelConnectivity] = []
    computing, released = threading.Event(), threading.Event()
    predict = stubs.served.predict

    def held(x: Any) -> Any:
        computing.set()
        assert released.wait(30)
        return predict(x)

    patch_method(monkeypatch, stubs.served, "predict", held)
    call = stubs.prediction.Predict.future(pb.PredictRequest(instance=PIXELS), timeout=30)
    assert computing.wait(30)
    stubs.channel.subscribe(states.append)
    eventually(lambda: grpc.ChannelConnectivity.IDLE in states)  # the connection takes no new calls
    released.set()

    assert call.result().model.version == 1


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0, 2**31 - 1), (0.0001, 1), (300, 300_000)])
def test_0_is_never(seconds: float, milliseconds: int) -> None:
    options = dict(channel_options(connection_age_seconds=seconds))
    assert options["grpc.max_connection_age_ms"] == milliseconds


def test_a_connection_without_a_call_is_closed_and_one_with_a_call_is_not(
    publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve_server.transport.services._IDLE_MS", 300)
    publish()
    stubs = serve()
    with RawConnection(stubs.address) as idle, RawConnection(stubs.address) as waiting:
        waiting.open("/mlpserve.v1.PredictionService/Predict")

        def is_closed() -> bool:
            idle.receive(0.1)
            return idle.terminated

        eventually(is_closed)
        waiting.receive(0)
        assert not waiting.terminated
    eventually(stubs.serving)
