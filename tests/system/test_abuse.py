"""Clients that cancel, run out of time or vanish leave nothing behind, on both transports."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from tests.support.system import Resident, RunServer
from tests.support.waiting import eventually

MEBIBYTE = 2**20
SINGLE = pb.PredictRequest(instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[64], data=bytes(64)))
BATCH = pb.BatchPredictRequest(
    instances=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[4000, 64], data=bytes(4000 * 64))
)


@pytest.mark.faults
@pytest.mark.parametrize("transport", ["direct", "standard"])
@pytest.mark.parametrize("rounds", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_abandoned_calls_leak_nothing(
    rounds: int,
    transport: str,
    run_server: RunServer,
    publish: Callable[[], int],
    resident: Resident,
) -> None:
    publish()
    address, pid = run_server("--workers", "1", "--transport", transport)
    rng = random.Random(0)
    abandon_calls(address, rng)  # what is allocated once is there from here on
    before = (resident(pid), descriptors(pid))
    calls = sum(abandon_calls(address, rng) for _ in range(rounds))
    eventually(lambda: descriptors(pid) <= before[1])
    grown = resident(pid) - before[0]
    print(f"\n{transport}: {calls} abandoned calls, memory {grown / MEBIBYTE:+.1f} MiB")
    assert grown < 32 * MEBIBYTE
    with grpc.insecure_channel(address) as channel:
        predict: Any = channel.unary_unary("/mlpserve.v1.PredictionService/Predict")
        for _ in range(100):
            assert predict(SINGLE.SerializeToString(), timeout=10)


def abandon_calls(address: str, rng: random.Random) -> int:
    """Start calls on some connections, give most of them up, and leave."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(address, options) for _ in range(8)]
    calls = [abandoned(channel, rng) for channel in channels for _ in range(200)]
    if rng.random() < 0.5:  # now and then wait for the rest, else vanish
        for call in calls:
            call.code()
    for channel in channels:
        channel.close()
    return len(calls)


def abandoned(channel: grpc.Channel, rng: random.Random) -> Any:
    single = rng.random() < 0.95
    method = "Predict" if single else "BatchPredict"
    request = (SINGLE if single else BATCH).SerializeToString()
    start: Any = channel.unary_unary(f"/mlpserve.v1.PredictionService/{method}").future
    call = start(request, timeout=rng.choice([0.0005, 0.002, 0.02, 10]), wait_for_ready=True)
    if rng.random() < 0.7:
        call.cancel()
    return call


def descriptors(pid: int) -> int:
    """How many files and connections the process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
