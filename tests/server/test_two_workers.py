"""What holds for one worker holds for two behind one port."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import numpy as np
import pytest

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.model_pb2_grpc import ModelServiceStub
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from mlpserve_client import Client
from mlpserve_model import Store
from tests.support.bursts import BATCH_PREDICT, PREDICT, call_at_once
from tests.support.publishing import Publish
from tests.support.server import Process, Run
from tests.support.waiting import eventually

REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)
LISTING = model_pb2.ListModelVersionsRequest()
REFUSALS = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}


class Server:
    """Two workers that serve version 1, keep no other in memory, and have little room."""

    def __init__(self, run: Run) -> None:
        self.process: Process = run(
            "--workers", "2", "--standby", "0", "--max-bytes", str(8 << 20), "--drain-seconds", "0"
        )
        self.address: str = self.process.event("listening")["address"]

    def ended_workers(self) -> int:
        """Stop, and return how many workers had ended before."""
        self.process.process.terminate()
        _, log = self.process.process.communicate(timeout=30)
        return log.count('"a worker ended"')


@pytest.fixture
def server(publish: Publish, run: Run) -> Server:
    publish()
    server = Server(run)
    for _ in range(2):
        server.process.event("serving")
    return server


@pytest.fixture
def channels(server: Server) -> Iterator[list[grpc.Channel]]:
    """Twenty connections, of which each worker has some."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        yield [
            stack.enter_context(grpc.insecure_channel(server.address, options)) for _ in range(20)
        ]


@pytest.mark.parametrize("method", [PREDICT, BATCH_PREDICT])
def test_large_requests_end_no_worker_and_are_refused(
    method: str, server: Server, channels: list[grpc.Channel]
) -> None:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[3], data=bytes(12 << 20))
    request = {
        PREDICT: pb.PredictRequest(instance=tensor),
        BATCH_PREDICT: pb.BatchPredictRequest(instances=tensor),
    }[method].SerializeToString()
    assert set(call_at_once(server.address, method, request, 24)) <= REFUSALS
    for channel in channels:
        assert PredictionServiceStub(channel).Predict(REQUEST, timeout=20).model.version == 1
    assert server.ended_workers() == 0


def test_a_number_that_is_used_again_answers_with_the_weights_in_the_store(
    server: Server, channels: list[grpc.Channel], store: Store, publish: Publish
) -> None:
    old = store.manifest(1).digest
    shutil.rmtree(store.folder)
    publish(seed=1)
    new = store.manifest(1).digest

    def answered() -> set[str]:
        calls = [PredictionServiceStub(c).Predict.future(REQUEST, timeout=10) for c in channels]
        # With so little memory a worker that is busy may refuse one.
        is_ok = grpc.StatusCode.OK
        return {c.result().model.digest if c.code() is is_ok else str(c.code()) for c in calls}

    assert new != old
    eventually(lambda: answered() == {new})
    for channel in channels:
        (version,) = ModelServiceStub(channel).ListModelVersions(LISTING, timeout=10).model_versions
        assert (version.ref.version, version.ref.digest) == (1, new)


def test_an_answer_is_never_lost_for_its_names(
    server: Server, store: Store, publish: Publish
) -> None:
    """One worker follows the store a moment after the other, which has dropped the version."""
    over = threading.Event()
    names: set[str | None] = set()
    failures: list[Exception] = []

    def call() -> None:
        while not over.is_set():
            try:
                with Client(server.address, timeout=20) as client:
                    names.add(client.predict(np.zeros(12, np.uint8)).name)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for seed in range(2, 8):
            version = publish(seed=seed)
            for _ in range(2):
                server.process.event("serving")
            shutil.rmtree(store.path(version - 1))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert names <= {"circle", "square", "star"}
    assert names
