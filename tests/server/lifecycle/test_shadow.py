"""A shadow is compared with the served version, off the path of the answers."""

import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from mlpserve_model import Network, Signature, Store
from mlpserve_server.lifecycle.shadow import DIFFERENCE, DROPPED, ROWS, compare
from tests.server.lifecycle.conftest import AS_MANY_AS_THERE_ARE, Challenge, SetUp
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.server import Serve
from tests.support.waiting import eventually

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]

CLASSES = ("circle", "square", "star")


@pytest.fixture
def x() -> NDArray[np.float32]:
    return np.random.default_rng(1).random((60, 12), dtype=np.float32)


def test_a_copy_of_the_served_version_agrees_in_every_row(
    publish: Publish, challenge: Challenge, set_up: SetUp
) -> None:
    publish(seed=0)
    challenge(seed=0)
    setup = set_up()
    setup.start()
    random = np.random.default_rng(1)
    for _ in range(40):
        setup.predict(random.random((50, 12), np.float32))
        time.sleep(0.002)
    eventually(lambda: setup.tally.compared() + setup.tally.dropped == 2000)
    assert setup.tally.compared() > 500
    assert setup.tally.totals[ROWS, "mnist", "2", "differed"] == 0
    assert setup.tally.totals[DIFFERENCE, "mnist", "2"] < 1e-6 * setup.tally.compared()


def test_another_model_is_compared_as_by_hand(
    store: Store, publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    setup = set_up()
    for row in range(0, 60, 20):
        setup.predict(x[row : row + 20])
    setup.start()
    eventually(lambda: setup.tally.compared() == 60)

    live, challenger = (store.load(version).predict(x) for version in (1, 2))
    same = sum(int(a.argmax() == b.argmax()) for a, b in zip(live, challenger, strict=True))
    assert 0 < same < 60
    assert setup.tally.totals[ROWS, "mnist", "2", "agreed"] == same
    by_hand = sum(
        sum(abs(float(p) - float(q)) for p, q in zip(a, b, strict=True)) / 3
        for a, b in zip(live, challenger, strict=True)
    )
    assert setup.tally.totals[DIFFERENCE, "mnist", "2"] == pytest.approx(by_hand, rel=1e-4)
    assert setup.tally.dropped == 0


def test_comparing_counts_rows_labels_and_mean_differences() -> None:
    live = np.array([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]], np.float32)
    other = np.array([[0.4, 0.6], [0.2, 0.8], [0.7, 0.3]], np.float32)
    found = compare(live, other)
    assert (found.rows, found.agreed) == (3, 2)
    assert found.difference == pytest.approx(0.2 + 0.0 + 0.2, abs=1e-6)


def test_rows_whose_answer_is_not_finite_differ_and_spoil_no_sum() -> None:
    live = np.array([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]], np.float32)
    other = np.array([[np.nan, np.nan], [0.2, 0.8], [np.inf, 0.3]], np.float32)
    found = compare(live, other)
    assert (found.rows, found.agreed, found.difference) == (3, 1, 0.0)


def test_answers_are_the_same_with_and_without_a_shadow(
    store: Store, publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    setup = set_up()
    setup.start()
    np.testing.assert_array_equal(setup.predict(x), store.load(1).predict(x))


def test_no_more_rows_a_second_are_taken_than_are_wanted(
    publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    setup = set_up(rate=100)
    setup.start()
    started = time.monotonic()
    while time.monotonic() - started < 1:
        setup.predict(x)
    most = 100 * (time.monotonic() - started + 1)
    time.sleep(0.1)
    assert 50 < setup.tally.compared() <= most
    assert setup.tally.dropped == 0


def test_under_load_the_sample_is_dropped_and_counted(
    publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    setup = set_up()
    setup.predict(x)  # waits to be compared when the load comes
    setup.busy = True
    setup.start()
    eventually(lambda: setup.tally.dropped == 60)
    setup.predict(x)
    assert setup.tally.dropped == 120
    assert setup.tally.compared() == 0
    setup.busy = False
    setup.predict(x)
    eventually(lambda: setup.tally.compared() == 60)


def test_when_too_many_rows_wait_the_newest_are_dropped(
    publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    setup = set_up()
    for _ in range(100):  # nobody compares yet
        setup.predict(x)
    assert setup.tally.dropped == 6000 - 2040
    setup.start()
    eventually(lambda: setup.tally.compared() == 2040)


def test_the_shadow_follows_its_alias(
    publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    setup = set_up()
    setup.start()
    setup.predict(x)
    assert setup.manager.shadow is None
    for version in (2, 3):
        assert challenge(seed=version) == version
        setup.manager.poll()
        setup.predict(x)
        eventually(setup.has_compared, version, rows=60)
    assert setup.tally.dropped == 0


def test_a_damaged_challenger_leaves_the_one_before_it(
    store: Store, publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    setup = set_up()
    (store.path(challenge(seed=2)) / "model.npz").write_bytes(b"damaged")
    setup.manager.poll()
    setup.start()
    setup.predict(x)
    eventually(lambda: setup.tally.compared(2) == 60)


def test_the_shadow_stays_in_memory_beside_the_standby_versions(
    store: Store, publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenger = challenge(seed=1)
    setup = set_up()
    for version in [publish(seed=seed, promote=False) for seed in range(3, 9)]:
        setup.manager.get(version)
    assert challenger in setup.manager.loaded
    assert setup.manager.get(challenger, may_load=False) is setup.manager.shadow


def test_a_challenger_that_is_promoted_is_not_read_again(
    store: Store,
    publish: Publish,
    challenge: Challenge,
    set_up: SetUp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(seed=0)
    challenger = challenge(seed=1)
    setup = set_up()
    monkeypatch.setattr(setup.manager.store, "load", None)
    store.move_alias("champion", challenger, expected=1, event="promote", reason="test")
    assert setup.manager.poll()
    assert setup.manager.current is setup.manager.shadow


@pytest.mark.parametrize(
    "changes",
    [
        {"network": Network((4, 8, 3)), "signature": Signature((2, 2), 16, CLASSES)},
        {"signature": Signature((3, 4), 255, CLASSES)},
        {"signature": Signature((3, 4), 16, CLASSES[::-1])},
    ],
    ids=["input_shape", "input_maximum", "class_names"],
)
def test_what_takes_or_gives_something_else_is_not_compared(
    publish: Publish,
    challenge: Challenge,
    set_up: SetUp,
    x: NDArray[np.float32],
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
) -> None:
    publish(seed=0)
    challenge(seed=1, **changes)
    setup = set_up()
    with caplog.at_level("INFO"):
        setup.start()
        eventually(lambda: any(r.message == "not shadowing" for r in caplog.records))
    setup.predict(x)
    time.sleep(0.05)
    assert (setup.tally.compared(), setup.tally.dropped) == (0, 0)


def test_the_served_version_is_not_compared_with_itself(
    publish: Publish, challenge: Challenge, store: Store, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    store.move_alias("champion", 2, expected=1, event="promote", reason="test")
    setup = set_up()
    setup.start()
    setup.predict(x)
    time.sleep(0.05)
    assert (setup.tally.compared(), setup.tally.dropped) == (0, 0)


def test_calls_for_another_version_than_the_served_one_are_not_compared(
    publish: Publish, challenge: Challenge, set_up: SetUp, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    third = publish(seed=2, promote=False)
    setup = set_up()
    setup.start()
    for version in (2, third):
        setup.predict(x, version=version)
    setup.predict(x)  # compared in its turn, after what came before it
    eventually(lambda: setup.tally.compared() > 0)
    assert (setup.tally.compared(), setup.tally.dropped) == (60, 0)


def test_the_metrics_of_a_server_tell_how_a_challenger_does(
    store: Store, publish: Publish, challenge: Challenge, serve: Serve, x: NDArray[np.float32]
) -> None:
    publish(seed=0)
    challenge(seed=1)
    stubs = serve(
        shadow="challenger", shadow_rows=AS_MANY_AS_THERE_ARE, metrics_listen="127.0.0.1:0"
    )
    eventually(stubs.serving)
    eventually(lambda: stubs.scrape()("mlpserve_shadow_info", version="2") == 1)
    for row in x[:20]:
        instance = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=row.tobytes())
        stubs.prediction.Predict(pb.PredictRequest(instance=instance))
    instances = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[20, 12], data=x[20:40].tobytes())
    stubs.prediction.BatchPredict(pb.BatchPredictRequest(instances=instances))
    request = inference_pb2.ModelInferRequest(
        model_name="mnist", raw_input_contents=[x[40:].tobytes()]
    )
    request.inputs.add(name="instances", datatype="FP32", shape=[20, 12])
    stubs.inference.ModelInfer(request)
    eventually(lambda: stubs.scrape()(ROWS, version="2") == 60)
    page = stubs.scrape()
    by_hand = compare(store.load(1).predict(x), store.load(2).predict(x))
    assert page(ROWS, version="2", result="agreed") == by_hand.agreed
    assert page(DIFFERENCE, version="2") == pytest.approx(by_hand.difference, rel=1e-4)
    assert page(DROPPED) == 0


def test_when_calls_pile_up_the_sample_goes_first_and_every_call_is_answered(
    publish: Publish, challenge: Challenge, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(seed=0)
    challenge(seed=1)
    stubs = serve(
        shadow="challenger",
        shadow_rows=AS_MANY_AS_THERE_ARE,
        max_waiting=400,
        max_wait_seconds=60,
        metrics_listen="127.0.0.1:0",
    )
    eventually(stubs.serving)
    eventually(lambda: stubs.scrape()("mlpserve_shadow_info", version="2") == 1)
    predict, release = stubs.served.predict, threading.Event()

    def held_up(x: NDArray[np.float32]) -> Any:
        assert release.wait(20)
        return predict(x)

    patch_method(monkeypatch, stubs.served, "predict", held_up)
    instance = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=bytes(48))
    request = pb.PredictRequest(instance=instance)
    channels = [grpc.insecure_channel(stubs.address, OWN_CONNECTION) for _ in range(4)]
    clients = [PredictionServiceStub(channel) for channel in channels]
    calls = [client.Predict.future(request) for client in clients for _ in range(90)]
    time.sleep(1)  # until they have arrived
    release.set()
    answers = [call.result(timeout=30) for call in calls]
    for channel in channels:
        channel.close()
    assert {answer.model.version for answer in answers} == {1}
    eventually(lambda: stubs.scrape()(DROPPED) > 0)
