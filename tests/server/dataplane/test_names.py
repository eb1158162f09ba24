"""Class names come with an answer when its caller says that it has others."""

import hashlib
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.explanation_pb2 import ExplainRequest
from mlpserve_model import Network, Signature, Store
from mlpserve_server.dataplane import frames
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

NAMES = ("circle", "square", "star")
PIXELS = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
ROWS = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[2, 12], data=bytes(24))


def hash_of(*names: str) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:8], "little")


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    return stubs


@pytest.mark.parametrize(
    ("known", "sent"),
    [
        (None, ()),
        (hash_of(*NAMES), ()),
        (0, NAMES),
        (hash_of("circle", "square"), NAMES),
        (hash_of(), NAMES),
    ],
)
def test_names_are_sent_when_the_caller_has_others(
    known: int | None, sent: tuple[str, ...], stubs: Stubs
) -> None:
    single = pb.PredictRequest(instance=PIXELS, known_class_names=known)
    batch = pb.BatchPredictRequest(instances=ROWS, known_class_names=known)
    answer = stubs.prediction.Predict(single, timeout=10)
    assert tuple(answer.class_names) == sent
    assert (len(answer.probabilities), answer.model.version) == (3, 1)
    assert tuple(stubs.prediction.BatchPredict(batch, timeout=10).class_names) == sent


def test_calls_that_share_a_product_get_the_names_that_each_lacks(stubs: Stubs) -> None:
    known = [None, 0, hash_of(*NAMES)] * 20
    requests = [pb.PredictRequest(instance=PIXELS, known_class_names=k) for k in known]
    calls = [stubs.prediction.Predict.future(request, timeout=10) for request in requests]
    sent = [tuple(call.result().class_names) for call in calls]
    assert sent == [NAMES if k == 0 else () for k in known]


def test_names_with_a_newline_are_always_sent(publish: Publish, serve: Serve) -> None:
    names = ("a\nb", "c", "d")  # joined by newlines as ("a", "b\nc", "d")
    publish(signature=Signature((3, 4), 16, names))
    stubs = serve()
    eventually(stubs.serving)
    for known in (hash_of(*names), 0):
        request = pb.PredictRequest(instance=PIXELS, known_class_names=known)
        assert tuple(stubs.prediction.Predict(request, timeout=10).class_names) == names


def test_versions_that_differ_in_their_names_alone_answer_with_their_own(
    publish: Publish, serve: Serve
) -> None:
    publish()
    publish(signature=Signature((3, 4), 16, ("a", "b", "c")))
    stubs = serve()
    eventually(stubs.serving)
    for version, names in ((1, NAMES), (2, ("a", "b", "c"))):
        selector = model_pb2.ModelSelector(version=version)
        request = pb.PredictRequest(instance=PIXELS, model=selector, known_class_names=0)
        assert tuple(stubs.prediction.Predict(request, timeout=10).class_names) == names


def test_labels_beyond_one_byte_are_encoded(publish: Publish, serve: Serve) -> None:
    """Labels take one, two or three bytes in a response."""
    classes = 20_000
    names = tuple(map(str, range(classes)))
    publish(network=Network((12, 1, classes)), signature=Signature((3, 4), 16, names))
    stubs = serve()
    eventually(stubs.serving)
    instances = np.random.default_rng(0).integers(0, 17, (50, 12), np.uint8)
    for pixels in instances:
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=pixels.tobytes())
        answer = stubs.prediction.Predict(pb.PredictRequest(instance=tensor), timeout=10)
        assert answer.label == np.argmax(answer.probabilities)
        assert len(answer.probabilities) == classes


@pytest.mark.parametrize("known", ["served", "another"])
def test_a_model_is_selected_by_name(known: str, stubs: Stubs, refusal: Refuse) -> None:
    selector = model_pb2.ModelSelector(name="mnist" if known == "served" else "letters")
    requests: list[tuple[Callable[..., Any], Any]] = [
        (stubs.prediction.Predict, pb.PredictRequest(instance=PIXELS, model=selector)),
        (stubs.prediction.BatchPredict, pb.BatchPredictRequest(instances=ROWS, model=selector)),
        (stubs.explanation.Explain, ExplainRequest(instances=ROWS, model=selector)),
        (stubs.models.GetModelVersion, model_pb2.GetModelVersionRequest(model=selector)),
        (
            stubs.models.ListModelVersions,
            model_pb2.ListModelVersionsRequest(name=selector.name),
        ),
    ]
    for call, request in requests:
        if known == "served":
            assert call(request, timeout=10)
        else:
            refused = refusal(call, request)
            assert refused.code == grpc.StatusCode.NOT_FOUND
            assert "'letters'" in refused.message


def test_the_served_model_is_listed(stubs: Stubs) -> None:
    answer = stubs.models.ListModels(model_pb2.ListModelsRequest(), timeout=10)
    (model,) = answer.models
    assert (model.ref.name, model.ref.version) == ("mnist", 1)
    assert model.state == model_pb2.ModelVersion.STATE_ACTIVE
    assert answer.next_page_token == ""
    after = model_pb2.ListModelsRequest(page_token="mnist")
    assert not stubs.models.ListModels(after, timeout=10).models


def test_a_model_of_which_nothing_is_served_is_listed_with_the_reason(serve: Serve) -> None:
    (model,) = serve().models.ListModels(model_pb2.ListModelsRequest(), timeout=10).models
    assert (model.ref.name, model.ref.version) == ("mnist", 0)
    assert "champion of mnist is not there" in model.state_reason


def test_a_model_whose_champion_is_damaged_is_listed_with_the_reason(
    publish: Publish, store: Store, serve: Serve, refusal: Refuse
) -> None:
    path = store.path(publish()) / "model.npz"
    path.write_bytes(path.read_bytes()[:-1])
    stubs = serve()

    def listed() -> model_pb2.ModelVersion:
        (model,) = stubs.models.ListModels(model_pb2.ListModelsRequest(), timeout=10).models
        return model

    eventually(lambda: listed().state == model_pb2.ModelVersion.STATE_FAILED)
    assert "champion of mnist cannot answer: version 1: model.npz" in listed().state_reason
    refused = refusal(stubs.models.GetModelVersion, model_pb2.GetModelVersionRequest())
    assert refused.code == grpc.StatusCode.UNAVAILABLE
    assert "version 1: model.npz" in refused.message


def test_a_negative_page_of_models_is_refused(serve: Serve, refusal: Refuse) -> None:
    refused = refusal(serve().models.ListModels, model_pb2.ListModelsRequest(page_size=-1))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_size"])


def test_what_answers_have_in_common_is_encoded_when_a_version_is_loaded(
    publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes long for many classes, and the first call would keep all others waiting."""
    publish()
    stubs = serve()
    eventually(stubs.serving)
    monkeypatch.setattr(frames, "_make", None)  # a call that needs it fails
    for _ in range(2):
        answer = stubs.prediction.Predict(pb.PredictRequest(instance=PIXELS), timeout=10)
        assert answer.model.version == 1
    batch = pb.BatchPredictRequest(instances=ROWS, known_class_names=0)
    assert tuple(stubs.prediction.BatchPredict(batch, timeout=10).class_names) == NAMES
