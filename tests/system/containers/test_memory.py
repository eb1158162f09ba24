"""Compose's defaults of memory survive the largest requests of many callers."""

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from tests.support.bursts import BATCH_PREDICT, PREDICT, call_at_once
from tests.support.containers import NewStack, Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]

PUBLISH = """
import numpy as np
from mlpserve_model import *
draft = Draft(
    model="mnist",
    network=Network((784, 128, 10)),
    signature=Signature((28, 28), 255, tuple("0123456789")),
    dataset=DatasetInfo("made up", "sha256:0", "none"),
    recipe={},
    seed=0,
    libraries={},
    metrics={"accuracy": 0.9},
)
store, weights = Store("/models", "mnist"), initialise(draft.network, np.random.default_rng(0))
version = store.publish(draft, Verdict("PROMOTED"), weights, np.zeros((4, 784), np.float32)).version
with store.lock():
    store.move_alias(CHAMPION, version, expected=None, event="promote", reason="test")
"""
ANSWERED = {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
REFUSED = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}


@pytest.fixture
def memory() -> str:
    """Compose's default."""
    return "2g"


@pytest.fixture
def large(new_stack: NewStack, memory: str) -> Stack:
    """Two workers, and a model of MNIST's size."""
    stack = new_stack(MLPSERVE_WORKERS="2", MLPSERVE_SERVER_MEMORY=memory)
    entry = ("--entrypoint", "python", "trainer", "-c", PUBLISH)
    stack.compose("run", "--rm", "--no-deps", "--no-TTY", *entry)
    stack.compose("up", "--wait", "--no-deps", "server")
    return stack


@pytest.mark.parametrize("callers", [32, 64])
def test_the_largest_batches_of_many_callers_end_no_worker(callers: int, large: Stack) -> None:
    rows = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[8192, 784], data=bytes(8192 * 784 * 4))
    request = pb.BatchPredictRequest(instances=rows).SerializeToString()
    rounds = 3  # of calls of each caller

    codes = call_at_once(large.target, BATCH_PREDICT, request, callers * rounds, callers)

    print(f"\n{callers} callers: {codes}")
    assert set(codes) <= ANSWERED
    assert codes[grpc.StatusCode.OK]
    _is_unharmed(large)


@pytest.mark.parametrize("memory", ["512m"])
@pytest.mark.parametrize("mebibytes", [31, 60])
def test_wrong_batches_end_no_worker_of_a_small_container(mebibytes: int, large: Stack) -> None:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[3], data=bytes(mebibytes << 20))
    request = pb.BatchPredictRequest(instances=tensor).SerializeToString()

    codes = call_at_once(large.target, BATCH_PREDICT, request, 60, 8)

    print(f"\n{codes}")
    assert set(codes) <= REFUSED
    _is_unharmed(large)


def test_single_calls_of_60_mib_end_no_worker(large: Stack) -> None:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[3], data=bytes(60 << 20))
    request = pb.PredictRequest(instance=tensor).SerializeToString()

    codes = call_at_once(large.target, PREDICT, request, 100, 8)

    print(f"\n{codes}")
    assert set(codes) <= REFUSED
    _is_unharmed(large)


def _is_unharmed(stack: Stack) -> None:
    assert "a worker ended" not in stack.events("server")
    assert stack.inspect("server")["RestartCount"] == 0
    assert not stack.inspect("server")["State"]["OOMKilled"]
    assert stack.served() == 1
