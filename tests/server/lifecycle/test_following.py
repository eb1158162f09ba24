"""The server follows the store, and never drops what works for what does not."""

import json
import shutil
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store, Verdict
from mlpserve_model.process.choices import VersionChoice
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(range(12)))
)


def pinned(**selector: Any) -> pb.PredictRequest:
    return pb.PredictRequest(instance=REQUEST.instance, model=model_pb2.ModelSelector(**selector))


def version_of(stubs: Stubs, request: pb.PredictRequest = REQUEST) -> int:
    return int(stubs.prediction.Predict(request, timeout=10).model.version)


def serves(stubs: Stubs, version: int) -> bool:
    return version_of(stubs) == version


def damage(store: Store, version: int) -> None:
    (store.path(version) / "model.npz").write_bytes(b"damaged")


def test_a_server_without_a_store_is_alive_but_not_ready(
    serve: Serve, refusal: Refuse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stubs = serve()
    assert stubs.serving("")
    assert not stubs.serving()
    refused = refusal(stubs.prediction.Predict, REQUEST)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
    assert "champion of mnist is not there" in refused.message
    eventually(lambda: "waiting for a model" in caplog.text)


def test_a_server_whose_store_has_rejected_versions_alone_says_so_and_what_to_do(
    publish: Publish, serve: Serve, refusal: Refuse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stubs = serve()
    eventually(lambda: "waiting for a model" in caplog.text)
    publish(promote=False, verdict=Verdict("REJECTED", ("below the floor",)))

    def said() -> bool:
        message = refusal(stubs.prediction.Predict, REQUEST).message
        return "the gate rejected version 1, the newest (`mlpserve models promote 1" in message

    eventually(said)
    eventually(lambda: caplog.text.count("waiting for a model") == 2)
    publish(seed=1)
    eventually(stubs.serving)


def test_a_server_of_another_model_than_the_store_has_says_which_there_are(
    publish: Publish, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    publish()
    caplog.set_level("INFO")
    serve(model=("mnits",))
    expected = "champion of mnits is not there: the store has mnist; did you mean --model mnist?"
    eventually(lambda: expected in [vars(record).get("reason") for record in caplog.records])


def test_the_first_version_is_served_as_soon_as_it_appears(publish: Publish, serve: Serve) -> None:
    stubs = serve()
    version = publish()
    eventually(stubs.serving)
    assert version_of(stubs) == version


def test_a_version_that_was_not_promoted_is_not_served(publish: Publish, serve: Serve) -> None:
    first = publish()
    stubs = serve()
    eventually(stubs.serving)
    second = publish(seed=1, promote=False)
    assert version_of(stubs, pinned(version=second)) == second  # seen, and yet
    assert version_of(stubs) == first


def test_a_promotion_is_followed_and_so_is_a_rollback(
    store: Store, publish: Publish, serve: Serve
) -> None:
    first = publish()
    stubs = serve()
    eventually(stubs.serving)
    second = publish(seed=1)
    eventually(lambda: version_of(stubs) == second)
    store.move_alias("champion", first, expected=second, event="rollback", reason="test")
    eventually(lambda: version_of(stubs) == first)


def test_a_damaged_version_leaves_the_old_one_in_service_and_is_reported(
    store: Store, publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    first = publish()
    stubs = serve()
    eventually(stubs.serving)
    second = publish(seed=1, promote=False)
    damage(store, second)
    store.move_alias("champion", second, expected=first, event="promote", reason="test")

    def state() -> Any:
        selector = model_pb2.ModelSelector(version=second)
        request = model_pb2.GetModelVersionRequest(model=selector)
        return stubs.models.GetModelVersion(request).model_version

    eventually(lambda: state().state == model_pb2.ModelVersion.STATE_FAILED)
    assert "model.npz has 7 bytes" in state().state_reason
    assert version_of(stubs) == first
    assert stubs.serving()
    refused = refusal(stubs.prediction.Predict, pinned(version=second))
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION


def test_a_restart_with_a_damaged_champion_serves_the_version_before(
    store: Store, publish: Publish, serve: Serve
) -> None:
    first, second = publish(), publish(seed=1)
    damage(store, second)
    stubs = serve()
    eventually(stubs.serving)
    assert version_of(stubs) == first


def test_a_damaged_version_that_was_asked_for_by_number_has_no_substitute(
    store: Store, publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    publish()
    damage(store, second := publish(seed=1))
    stubs = serve(serve=VersionChoice(str(second)))
    refused = refusal(stubs.prediction.Predict, REQUEST)
    assert refused.code == grpc.StatusCode.UNAVAILABLE


def test_a_store_that_vanishes_leaves_the_model_in_service(
    store: Store, publish: Publish, serve: Serve
) -> None:
    first = publish()
    stubs = serve()
    eventually(stubs.serving)
    shutil.rmtree(store.folder)
    assert version_of(stubs) == first
    answer = stubs.models.GetModelVersion(model_pb2.GetModelVersionRequest())
    assert answer.model_version.ref.version == first
    second = publish(seed=1)
    eventually(lambda: version_of(stubs) == second)


def test_broken_aliases_leave_the_model_in_service_and_do_not_end_the_polling(
    store: Store, publish: Publish, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish()
    stubs = serve()
    eventually(stubs.serving)
    aliases = store.folder / "aliases.json"
    aliases.write_text("{")
    eventually(lambda: "the store cannot be read" in caplog.text)
    assert version_of(stubs) == first
    second = publish(seed=1, promote=False)
    aliases.write_text(json.dumps({"champion": second}))
    eventually(lambda: version_of(stubs) == second)


def test_a_version_can_be_selected_by_number_and_by_alias(
    store: Store, publish: Publish, serve: Serve
) -> None:
    first = publish()
    second = publish(seed=1)
    store.move_alias("challenger", first, expected=None, event="promote", reason="test")
    stubs = serve()
    eventually(stubs.serving)
    assert version_of(stubs) == second
    assert version_of(stubs, pinned(version=first)) == first
    assert version_of(stubs, pinned(alias="challenger")) == first
    assert version_of(stubs, pinned(alias="champion")) == second


def test_a_pinned_version_answers_however_many_came_after(publish: Publish, serve: Serve) -> None:
    first = publish()
    stubs = serve(standby=1)
    eventually(stubs.serving)
    for seed in range(1, 5):
        eventually(serves, stubs, publish(seed=seed))
    assert version_of(stubs, pinned(version=first)) == first


def test_a_version_on_standby_answers_after_it_was_pruned(
    store: Store, publish: Publish, serve: Serve
) -> None:
    first = publish()
    stubs = serve()
    eventually(stubs.serving)
    second = publish(seed=1)
    eventually(lambda: version_of(stubs) == second)
    assert store.prune(keep=1) == [first]
    assert version_of(stubs, pinned(version=first)) == first
    selector = model_pb2.ModelSelector(version=first)
    described = stubs.models.GetModelVersion(model_pb2.GetModelVersionRequest(model=selector))
    assert described.model_version.ref.version == first


def test_a_rejected_version_does_not_answer(
    publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    rejected = publish(seed=1, promote=False, verdict=Verdict("REJECTED", ("accuracy 0.5 < 0.9",)))
    refused = refusal(stubs.prediction.Predict, pinned(version=rejected))
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    assert refused.info.reason == "MODEL_REJECTED"
    assert "accuracy 0.5 < 0.9" in refused.message


@pytest.mark.parametrize("serve_what", ["latest", "3"])
def test_the_server_can_be_told_what_to_serve(
    publish: Publish, serve: Serve, serve_what: str
) -> None:
    publish()
    stubs = serve(serve=VersionChoice(serve_what))
    publish(seed=1)
    third = publish(seed=2, promote=False)
    publish(seed=3, promote=False, verdict=Verdict("REJECTED"))
    eventually(lambda: stubs.serving() and version_of(stubs) == third)


def test_the_answer_of_a_version_is_not_changed_by_a_swap(
    store: Store, publish: Publish, serve: Serve
) -> None:
    first = publish()
    stubs = serve()
    eventually(stubs.serving)
    before = stubs.prediction.Predict(REQUEST).probabilities
    second = publish(seed=1)
    eventually(lambda: version_of(stubs) == second)
    after = stubs.prediction.Predict(REQUEST).probabilities
    assert not np.allclose(before, after)
    assert stubs.prediction.Predict(pinned(version=first)).probabilities == before


def test_a_watch_sees_readiness_come(publish: Publish, serve: Serve) -> None:
    stubs = serve()
    request = health_pb2.HealthCheckRequest(service="mlpserve.v1.PredictionService")
    watch = stubs.health.Watch(request, timeout=10)
    states = iter(watch)
    assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
    publish()
    assert next(states).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
