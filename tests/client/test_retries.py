"""What is sent again, how often and after how long; the server is told how to fail."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mlpserve_client import (
    Client,
    ConnectionFailedError,
    MlpserveError,
    NotReadyError,
    OverloadedError,
    ServerError,
    _calls,
    _channel,
)
from tests.support.client import Connect, Scripted, StartScripted

Code = grpc.StatusCode
Fail = Callable[[int, Any], object]


def failing(times: float, code: grpc.StatusCode, text: str = "as told") -> Fail:
    """Fail the first predictions with a code."""
    return lambda number, context: number < times and context.abort(code, text)


def refusing(times: float, seconds: float) -> Fail:
    """Refuse the first predictions as an overloaded server does, with a delay."""
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    return detailed(
        times,
        Code.RESOURCE_EXHAUSTED,
        error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="mlpserve"),
        error_details_pb2.RetryInfo(retry_delay=delay),
    )


def detailed(times: float, code: grpc.StatusCode, *details: Any) -> Fail:
    status = status_pb2.Status(code=code.value[0], message="as told")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)

    def fail(number: int, context: Any) -> None:
        if number < times:
            context.abort_with_status(rpc_status.to_status(status))

    return fail


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.CANCELLED])
def test_what_a_stopping_server_ends_is_sent_again(
    connect: Connect, scripted: StartScripted, code: grpc.StatusCode
) -> None:
    server = scripted(failing(2, code))

    assert connect(server.target).predict([0.0, 1.0]).name == "yes"
    assert server.predictions == 3


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS])
def test_a_fault_is_not_sent_again(
    connect: Connect, scripted: StartScripted, code: grpc.StatusCode
) -> None:
    server = scripted(failing(1, code))

    with pytest.raises(ServerError, match=code.name):
        connect(server.target).predict([0.0, 1.0])
    assert server.predictions == 1


# gRPC's words for a call whose connection broke under it; servers and their faults have others.
BROKEN = "Stream removed (Unwrap failed (TSI_DATA_CORRUPTED))"


def test_a_call_of_a_broken_connection_is_sent_again_though_its_code_is_that_of_a_fault(
    connect: Connect, scripted: StartScripted
) -> None:
    server = scripted(failing(2, Code.UNKNOWN, BROKEN))

    assert connect(server.target).predict([0.0, 1.0]).name == "yes"
    assert server.predictions == 3


def test_connections_that_break_every_time_are_no_fault_of_the_server(
    connect: Connect, scripted: StartScripted
) -> None:
    server = scripted(failing(float("inf"), Code.UNKNOWN, BROKEN))

    with pytest.raises(ConnectionFailedError, match="cannot be reached: Stream removed"):
        connect(server.target).predict([0.0, 1.0])
    assert server.predictions == 1 + _calls._BROKEN_RETRIES


def test_retries_end(connect: Connect, scripted: StartScripted) -> None:
    server = scripted(failing(float("inf"), Code.UNAVAILABLE))

    with pytest.raises(ConnectionFailedError, match="as told"):
        connect(server.target).predict([0.0, 1.0])
    assert server.predictions == 5


def test_a_server_that_says_it_is_not_ready_is_believed(
    connect: Connect, scripted: StartScripted
) -> None:
    not_ready = error_details_pb2.ErrorInfo(reason="NOT_READY", domain="mlpserve")
    server = scripted(detailed(float("inf"), Code.UNAVAILABLE, not_ready))

    with pytest.raises(NotReadyError, match="as told"):
        connect(server.target).predict([0.0, 1.0])


def test_an_overloaded_server_is_asked_again_after_the_delay_it_names(
    connect: Connect, scripted: StartScripted, slept: list[float]
) -> None:
    server = scripted(refusing(2, 0.1))

    assert connect(server.target).predict([0.0, 1.0]).name == "yes"

    assert server.predictions == 3
    first, second = slept
    assert 0.1 <= first <= 0.15
    assert 0.2 <= second <= 0.3


def test_a_server_that_stays_overloaded_is_left_alone(
    connect: Connect, scripted: StartScripted
) -> None:
    server = scripted(refusing(float("inf"), 0.001))

    with pytest.raises(OverloadedError, match="as told") as caught:
        connect(server.target).predict([0.0, 1.0])

    assert caught.value.retry_after == pytest.approx(0.001)
    assert server.predictions == 1 + _calls._OVERLOAD_RETRIES


@pytest.mark.parametrize(("patience", "timeout"), [(1000.0, 30.0), (2.0, 1000.0)])
def test_a_delay_beyond_the_deadline_or_all_patience_is_not_waited_for(
    connect: Connect,
    scripted: StartScripted,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    timeout: float,
    slept: list[float],
) -> None:
    monkeypatch.setattr(_calls, "_MAX_DELAY", patience)
    server = scripted(refusing(float("inf"), 60))

    with pytest.raises(OverloadedError):
        connect(server.target).predict([0.0, 1.0], timeout=timeout)

    assert slept == []
    assert server.predictions == 1


def attempts_a_call(server: Scripted, calls: int) -> float:
    with Client(server.target) as client:
        for _ in range(calls):
            with pytest.raises(MlpserveError):
                client.predict([0.0, 1.0])
    return server.predictions / calls


def test_a_broken_server_sees_no_storm_of_retries(
    scripted: StartScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Quick retries, so that many calls fit into a test; their number is what counts.
    # (Not below 5 ms: grpcio 1.85 loses retries after 1 ms, and the call hangs.)
    policy: Any = _channel._SERVICE_CONFIG["methodConfig"]
    monkeypatch.setitem(policy[0]["retryPolicy"], "initialBackoff", "0.005s")
    monkeypatch.setitem(policy[0]["retryPolicy"], "maxBackoff", "0.005s")
    throttled = attempts_a_call(scripted(failing(float("inf"), Code.UNAVAILABLE)), 1200)

    monkeypatch.delitem(_channel._SERVICE_CONFIG, "retryThrottling")
    unthrottled = attempts_a_call(scripted(failing(float("inf"), Code.UNAVAILABLE)), 100)

    print(f"attempts a call: {throttled:.2f} with throttling, {unthrottled:.2f} without")
    assert throttled < 1.2
    assert unthrottled > 4
