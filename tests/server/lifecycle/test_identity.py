"""A version is its number and its manifest: answers, lists and memory agree about both."""

import itertools
import json
import logging
import shutil
from dataclasses import replace
from typing import Any, Protocol

import grpc
import numpy as np
import pytest

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store, StoredModel, Verdict
from mlpserve_model.process.choices import VersionChoice
from mlpserve_server.dataplane.inference import Inference
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.dataplane.query import Result
from mlpserve_server.lifecycle import loader as loaders
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.shadow import Shadow
from mlpserve_server.observability.observer import Observer
from mlpserve_server.observability.recorder import Recorder
from tests.support.managers import models_of
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

State = model_pb2.ModelVersion
Twins = tuple[StoredModel, StoredModel]
INSTANCE = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(range(12)))


@pytest.fixture(autouse=True)
def every_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the versions in memory with the store at every poll."""
    monkeypatch.setattr(loaders, "_COMPARE_SECONDS", 0)


class PublishAgain(Protocol):
    """Publishes in place of the newest version, as a release does that forgets numbers."""

    def __call__(self, seed: int, **changes: Any) -> str:
        """Return the digest."""
        ...


@pytest.fixture
def publish_again(store: Store, publish: Publish) -> PublishAgain:
    """As PublishAgain says."""

    def publish_again(seed: int, **changes: Any) -> str:
        newest = store.versions()[-1]
        shutil.rmtree(store.path(newest))
        history = store.folder / "history.jsonl"
        lines = [json.loads(line) for line in history.read_text().splitlines()]
        kept = [event for event in lines if event["version"] != newest]
        history.write_text("".join(json.dumps(event) + "\n" for event in kept))
        assert publish(seed=seed, promote=False, **changes) == newest
        return store.manifest(newest).digest

    return publish_again


def answered(stubs: Stubs, **selector: Any) -> str:
    request = pb.PredictRequest(instance=INSTANCE, model=model_pb2.ModelSelector(**selector))
    return str(stubs.prediction.Predict(request, timeout=10).model.digest)


def listed(stubs: Stubs) -> dict[int, tuple[Any, str]]:
    answer = stubs.models.ListModelVersions(model_pb2.ListModelVersionsRequest(), timeout=10)
    return {v.ref.version: (v.state, v.ref.digest) for v in answer.model_versions}


def test_a_promoted_version_is_the_one_in_the_store_not_one_of_its_number_in_memory(
    store: Store, publish: Publish, publish_again: PublishAgain, serve: Serve
) -> None:
    publish()
    publish(seed=1)
    stubs = serve()
    eventually(stubs.serving)
    store.move_alias("champion", 1, expected=2, event="rollback", reason="test")
    eventually(lambda: listed(stubs)[1][0] == State.STATE_ACTIVE)
    digest = publish_again(seed=2)
    store.move_alias("champion", 2, expected=1, event="promote", reason="test")
    eventually(lambda: answered(stubs) == digest)
    assert listed(stubs)[2] == (State.STATE_ACTIVE, digest)
    assert answered(stubs, version=2) == digest


def test_a_version_on_standby_that_was_replaced_answers_no_more(
    publish: Publish, publish_again: PublishAgain, serve: Serve
) -> None:
    publish()
    publish(seed=1, promote=False)
    stubs = serve()
    eventually(stubs.serving)
    before = answered(stubs, version=2)
    digest = publish_again(seed=2)
    assert digest != before
    eventually(lambda: answered(stubs, version=2) == digest)
    assert listed(stubs)[2] == (State.STATE_STANDBY, digest)


def test_a_store_that_is_made_anew_is_served_as_it_is(
    store: Store, publish: Publish, serve: Serve
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    before = answered(stubs)
    shutil.rmtree(store.folder)
    publish(seed=1)
    assert store.versions() == [1]
    digest = store.manifest(1).digest
    assert digest != before
    eventually(lambda: answered(stubs) == digest)
    assert listed(stubs) == {1: (State.STATE_ACTIVE, digest)}


def test_what_answers_is_listed_as_it_answers_until_the_other_has_taken_its_place(
    store: Store, publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, "_COMPARE_SECONDS", 1e9)
    publish()
    stubs = serve()
    eventually(stubs.serving)
    shutil.rmtree(store.path(1))
    digest = answered(stubs)
    assert listed(stubs) == {} or listed(stubs)[1] == (State.STATE_ACTIVE, digest)
    publish(seed=1, promote=False)
    assert answered(stubs) == digest
    assert listed(stubs)[1] == (State.STATE_ACTIVE, digest)


def test_the_verdict_on_a_removed_version_is_not_that_on_another_of_its_number(
    publish: Publish, publish_again: PublishAgain, serve: Serve
) -> None:
    publish()
    publish(seed=1, promote=False, verdict=Verdict("REJECTED", ("too bad",)))
    stubs = serve(serve=VersionChoice("latest"))
    eventually(stubs.serving)
    assert listed(stubs)[2][0] == State.STATE_REJECTED
    digest = publish_again(seed=2)
    eventually(lambda: answered(stubs) == digest)


def test_the_damage_of_a_removed_version_is_not_that_of_another_of_its_number(
    store: Store, publish: Publish, publish_again: PublishAgain
) -> None:
    publish()
    publish(seed=1)
    (store.path(2) / "model.npz").write_bytes(b"damaged")
    manager = ModelManager(Loader(store, 3), "champion")
    manager.poll()
    assert manager.loader.refusals.of(2, store.manifest(2).own_digest)
    publish_again(seed=2)
    assert manager.loader.refusals.of(2, store.manifest(2).own_digest) == ""
    # Another alias tells that somebody was at work: nothing is held back any longer.
    store.move_alias("other", 1, expected=None, event="promote", reason="test")
    assert manager.poll()
    assert manager.current is not None
    assert manager.current.manifest.digest == store.manifest(2).digest


def test_a_replaced_version_that_cannot_be_loaded_leaves_the_old_one_in_service(
    store: Store, publish: Publish, publish_again: PublishAgain
) -> None:
    publish()
    manager = ModelManager(Loader(store, 3), "champion")
    assert manager.poll()
    before = manager.current
    publish_again(seed=1)
    (store.path(1) / "model.npz").write_bytes(b"damaged")
    for _ in range(3):
        assert not manager.poll()
        assert manager.current is before


@pytest.mark.parametrize("gone", ["the root", "the folder", "what is in it"])
def test_a_store_that_goes_away_is_in_the_log_and_unavailable_not_empty_and_not_found(
    gone: str,
    store: Store,
    publish: Publish,
    serve: Serve,
    refusal: Refuse,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    publish()
    publish(seed=1, promote=False)
    stubs = serve(standby=0)
    eventually(stubs.serving)
    digest = answered(stubs)
    place = store.folder.parent if gone == "the root" else store.folder
    shutil.rmtree(place)
    if gone == "what is in it":
        place.mkdir()
    eventually(lambda: "the store cannot be read" in caplog.text)
    for call, request in (
        (stubs.models.ListModelVersions, model_pb2.ListModelVersionsRequest()),
        (
            stubs.models.GetModelVersion,
            model_pb2.GetModelVersionRequest(model=model_pb2.ModelSelector(version=2)),
        ),
        (
            stubs.prediction.Predict,
            pb.PredictRequest(instance=INSTANCE, model=model_pb2.ModelSelector(version=2)),
        ),
    ):
        assert refusal(call, request).code == grpc.StatusCode.UNAVAILABLE
    assert answered(stubs) == answered(stubs, version=1) == digest
    assert stubs.serving()


def test_a_store_away_is_said_at_the_next_poll(
    store: Store, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish()
    for serve in ("champion", "latest", "1"):
        manager = ModelManager(Loader(store, 3), serve)
        assert manager.poll()
        away = store.folder.rename(store.folder.with_name("away"))
        caplog.clear()
        for _ in range(3):
            assert not manager.poll()
        reasons = [getattr(record, "reason", "") for record in caplog.records]
        assert len(reasons) == 1
        assert "is the volume mounted?" in reasons[0]
        assert manager.current is not None
        away.rename(store.folder)
        caplog.clear()
        manager.poll()
        assert "the store can be read again" in caplog.text or caplog.text == ""


@pytest.fixture
def two_of_one_number(store: Store, publish: Publish, publish_again: PublishAgain) -> Twins:
    """Two models with the same number and other weights, as a swap may bring them together."""
    publish()
    one = store.load(1)
    publish_again(seed=1)
    return one, store.load(1)


def test_two_models_of_one_number_in_one_product_answer_each_by_itself(
    store: Store, two_of_one_number: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ModelManager(Loader(store), "champion")
    models = itertools.cycle(two_of_one_number)
    monkeypatch.setattr(manager, "get", lambda *_, **__: next(models))
    # Those that select alike are answered alike: by turns there are two ways to select it.
    selectors = None, model_pb2.ModelSelector(alias="champion")
    requests = [
        pb.PredictRequest(instance=INSTANCE, model=selector).SerializeToString()
        for selector in selectors
    ]
    answers = DataPlane(models_of(manager), 8, Inference(max_rows=8)).predict(requests * 2)
    digests = [
        pb.PredictResponse.FromString(answer.response).model.digest
        for answer in answers
        if isinstance(answer, Result)
    ]
    assert digests == [m.manifest.digest for m in two_of_one_number] * 2


def test_predictions_of_two_models_of_one_number_are_counted_by_their_own_class_names(
    two_of_one_number: Twins,
) -> None:
    one, other = two_of_one_number
    names = replace(one.manifest.signature, class_names=("a", "b"))
    renamed = replace(one.manifest, signature=names)
    reports: list[Any] = []
    recorder = Recorder(reports.append, [])
    for manifest, label in ((other.manifest, 2), (renamed, 1)):
        recorder.predicted(manifest, np.eye(3, dtype=np.float32)[[label]])
    recorder.flush()
    counted = [
        labels for report in reports for name, labels, *_ in report
        if name == "mlpserve_predictions_total"
    ]  # fmt: skip
    assert sorted(counted) == [("mnist", "1", "b"), ("mnist", "1", "star")]


def test_a_shadow_of_the_served_number_with_other_weights_is_compared(
    store: Store, two_of_one_number: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    manager = ModelManager(Loader(store), "champion")
    manager.current, manager.shadow = two_of_one_number
    Shadow(models_of(manager), 1.0, lambda: False, Observer()).work_off()
    assert [record.message for record in caplog.records] == ["shadowing"]
