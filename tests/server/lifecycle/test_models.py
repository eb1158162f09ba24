"""Several models in one server: each answers, loads, fails and is ready by its own name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Store, StoreError
from mlpserve_model.process.choices import VersionChoice
from mlpserve_model.store.listing import ModelListing
from mlpserve_server.errors import InvalidInput, ModelNotFound
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from tests.support.managers import models_following, models_of, polled
from tests.support.publishing import publish_to
from tests.support.server import READINESS, Refuse, Serve, Stubs
from tests.support.waiting import eventually

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
Input = inference_pb2.ModelInferRequest.InferInputTensor
ROW = np.full(12, 0.5, np.float32)
NewStore = Callable[[str], Store]


@pytest.fixture
def root(store: Store) -> Path:
    return store.folder.parent


@pytest.fixture
def new_store(root: Path) -> NewStore:
    """The store of a model beside the others."""
    return lambda name: Store(root, name)


def predict_request(name: str = "", **selector: int | str) -> prediction_pb2.PredictRequest:
    instance = prediction_pb2.Tensor(
        dtype=prediction_pb2.DATA_TYPE_FLOAT32, shape=[12], data=ROW.tobytes()
    )
    chosen = model_pb2.ModelSelector(name=name, **selector)  # type: ignore[arg-type]
    return prediction_pb2.PredictRequest(instance=instance, model=chosen)


def served_by(stubs: Stubs, name: str) -> Callable[[], bool]:
    """Whether health says so; a model that is not found yet has no service."""

    def serving() -> bool:
        try:
            return stubs.serving(f"{READINESS}/{name}")
        except grpc.RpcError as error:
            if error.code() != NOT_FOUND:
                raise
            return False

    return serving


def test_each_name_is_answered_by_its_own_weights(new_store: NewStore, serve: Serve) -> None:
    stores = {name: new_store(name) for name in ("digits", "letters")}
    for seed, store in enumerate(stores.values()):
        publish_to(store, seed=seed)
    stubs = serve(model=("digits", "letters"))
    eventually(stubs.serving)
    for name, store in stores.items():
        answer = stubs.prediction.Predict(predict_request(name))
        assert answer.model.name == name
        np.testing.assert_allclose(
            answer.probabilities, store.load(1).predict(ROW[None])[0], atol=1e-6
        )
        infer = inference_pb2.ModelInferRequest(
            model_name=name,
            inputs=[Input(name="instances", datatype="FP32", shape=[1, 12])],
            raw_input_contents=[ROW.tobytes()],
        )
        assert stubs.inference.ModelInfer(infer).model_name == name


def test_a_call_without_a_name_is_not_guessed(
    new_store: NewStore, serve: Serve, refusal: Refuse
) -> None:
    for name in ("digits", "letters"):
        publish_to(new_store(name))
    stubs = serve(model=("digits", "letters"))
    eventually(stubs.serving)
    refused = refusal(stubs.prediction.Predict, predict_request())
    assert (refused.code, refused.fields) == (INVALID, ["model.name"])
    assert "served are digits, letters" in refused.message
    refused = refusal(stubs.prediction.Predict, predict_request("lettres"))
    assert refused.code == NOT_FOUND
    assert "did you mean letters" in refused.message
    listed = model_pb2.ListModelVersionsRequest()
    assert refusal(stubs.models.ListModelVersions, listed).fields == ["name"]


def test_a_wrong_name_is_not_compared_with_many(root: Path) -> None:
    """That takes 8 ms with a hundred long names, on the path of all calls."""
    for count, meant in ((20, "; did you mean model-00007?"), (21, "")):
        models = models_following(root, *(f"model-{n:05d}" for n in range(count)))
        with pytest.raises(ModelNotFound) as caught:
            models.get("modell-00007")
        assert str(caught.value).endswith(f" and {count - 10} more{meant}")
        models.close()


def test_the_default_model_answers_calls_without_a_name(new_store: NewStore, serve: Serve) -> None:
    for name in ("digits", "letters"):
        publish_to(new_store(name))
    stubs = serve(model=("*",), default_model="letters")
    eventually(stubs.serving)
    assert stubs.prediction.Predict(predict_request()).model.name == "letters"


def test_each_model_answers_with_the_version_chosen_for_it(
    new_store: NewStore, serve: Serve
) -> None:
    for name in ("shop-a", "shop-b"):
        for seed in range(2):
            publish_to(new_store(name), seed=seed)
    stubs = serve(
        model=("shop-*",), serve=VersionChoice("champion", {"shop-a": "1", "shop-c": "1"})
    )
    eventually(stubs.serving)
    publish_to(new_store("shop-c"))
    publish_to(new_store("shop-c"), seed=1)
    eventually(served_by(stubs, "shop-c"))
    answers = [stubs.prediction.Predict(predict_request(f"shop-{name}")) for name in "abc"]
    assert [answer.model.version for answer in answers] == [1, 2, 1]


def test_models_appear_and_vanish_with_the_store(
    root: Path, new_store: NewStore, serve: Serve, refusal: Refuse
) -> None:
    publish_to(new_store("letters-a"))
    stubs = serve(model=("letters-*",))
    eventually(stubs.serving)
    publish_to(new_store("digits"))
    publish_to(new_store("letters-b"))
    eventually(served_by(stubs, "letters-b"))
    answer = stubs.models.ListModels(model_pb2.ListModelsRequest())
    assert [model.ref.name for model in answer.models] == ["letters-a", "letters-b"]
    shutil.rmtree(root / "letters-a")

    def is_gone() -> bool:
        try:
            stubs.prediction.Predict(predict_request("letters-a"))
        except grpc.RpcError as error:
            return bool(error.code() == NOT_FOUND)
        return False

    eventually(is_gone)
    assert stubs.serving()
    assert stubs.prediction.Predict(predict_request("letters-b")).model.name == "letters-b"


def test_a_broken_model_keeps_no_other_from_being_ready(
    root: Path, new_store: NewStore, serve: Serve, refusal: Refuse
) -> None:
    publish_to(new_store("good"))
    publish_to(new_store("broken"))
    (root / "broken" / "1" / "model.npz").write_bytes(b"not an archive")
    (root / "torn").mkdir()
    (root / "torn" / "aliases.json").write_text("{")
    (root / "empty").mkdir()
    stubs = serve(model=("*",))
    eventually(stubs.serving)
    assert stubs.serving(f"{READINESS}/good")
    for name in ("broken", "torn", "empty"):
        assert not stubs.serving(f"{READINESS}/{name}")
        ready = inference_pb2.ModelReadyRequest(name=name)
        assert not stubs.inference.ModelReady(ready).ready
        refused = refusal(stubs.prediction.Predict, predict_request(name))
        assert refused.code == grpc.StatusCode.UNAVAILABLE
    assert stubs.inference.ModelReady(inference_pb2.ModelReadyRequest(name="good")).ready


def test_a_named_model_that_is_missing_keeps_the_server_not_ready(
    new_store: NewStore, serve: Serve
) -> None:
    publish_to(new_store("here"))
    stubs = serve(model=("here", "missing"))
    eventually(served_by(stubs, "here"))
    assert not stubs.serving()
    assert stubs.prediction.Predict(predict_request("here")).model.name == "here"
    publish_to(new_store("missing"))
    eventually(stubs.serving)


def test_models_and_versions_are_listed_in_pages(
    new_store: NewStore, serve: Serve, refusal: Refuse
) -> None:
    for name in ("a", "b", "c"):
        for seed in range(3):
            publish_to(new_store(name), seed=seed)
    stubs = serve(model=("*",))
    eventually(stubs.serving)
    first = stubs.models.ListModels(model_pb2.ListModelsRequest(page_size=2))
    rest = stubs.models.ListModels(
        model_pb2.ListModelsRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [m.ref.name for m in [*first.models, *rest.models]] == ["a", "b", "c"]
    assert not rest.next_page_token

    request = model_pb2.ListModelVersionsRequest(page_size=2, name="b")
    page = stubs.models.ListModelVersions(request)
    # The token alone says which model is listed; another name beside it is refused.
    more = model_pb2.ListModelVersionsRequest(page_size=2, page_token=page.next_page_token)
    last = stubs.models.ListModelVersions(more)
    refs = [version.ref for version in [*page.model_versions, *last.model_versions]]
    assert [(ref.name, ref.version) for ref in refs] == [("b", 3), ("b", 2), ("b", 1)]
    more.name = "a"
    assert refusal(stubs.models.ListModelVersions, more).fields == ["page_token"]


def test_a_swap_of_one_model_is_no_concern_of_another(new_store: NewStore, serve: Serve) -> None:
    for name in ("digits", "letters"):
        publish_to(new_store(name))
    stubs = serve(model=("*",))
    eventually(stubs.serving)
    publish_to(new_store("letters"), seed=1)
    eventually(lambda: stubs.prediction.Predict(predict_request("letters")).model.version == 2)
    assert stubs.prediction.Predict(predict_request("digits")).model.version == 1


def test_the_metrics_are_by_model(new_store: NewStore, serve: Serve) -> None:
    for name in ("digits", "letters"):
        publish_to(new_store(name))
    stubs = serve(model=("*",), metrics_listen="127.0.0.1:0")
    eventually(stubs.serving)
    for name in ("digits", "letters", "letters"):
        stubs.prediction.Predict(predict_request(name))

    def counted(name: str) -> float:
        return stubs.scrape()("mlpserve_predictions_total", model=name, version="1")

    eventually(lambda: (counted("digits"), counted("letters")) == (1, 2))
    # Gauges are read once a second.
    eventually(lambda: stubs.scrape()("mlpserve_models", state="answering") == 2)


def test_an_empty_listing_takes_no_model_away(root: Path, new_store: NewStore) -> None:
    publish_to(new_store("digits"))
    models = models_following(root, "*")
    polled(models, lambda: models.ready)
    away = root.rename(root.with_name("away"))
    root.mkdir()
    for _ in range(3):
        models.poll()
    assert models.get("digits").current is not None
    root.rmdir()
    models.poll()
    assert models.get("digits").current is not None
    away.rename(root)
    polled(models, lambda: not models.get("digits").store_state.fault)


def test_a_model_that_is_missing_in_one_listing_alone_stays(root: Path) -> None:
    for name in ("a", "b"):
        publish_to(Store(root, name))
    found = ["a", "b"]
    models = Models(
        ["*"], None, lambda name: ModelManager(Loader(Store(root, name)), "champion"), lambda: found
    )
    models.poll()
    found = ["a"]
    models.poll()
    assert set(models.managers) == {"a", "b"}
    models.poll()
    assert set(models.managers) == {"a"}


def test_unknown_names_are_not_listed_without_bound(store: Store) -> None:
    managers = [
        ModelManager(Loader(Store(store.folder.parent, f"m{number:04}")), "champion")
        for number in range(1000)
    ]
    models = models_of(*managers)
    with pytest.raises(ModelNotFound) as caught:
        models.get("x" * 10_000)
    assert len(str(caught.value)) < 300
    assert "990 more" in str(caught.value)
    with pytest.raises(InvalidInput):
        models.get(None)
    assert len(models.labelled()) == 100


def test_a_listing_of_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot list"):
        ModelListing(tmp_path / "nowhere").names()
    (tmp_path / "digits").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file").touch()
    assert ModelListing(tmp_path).names() == ["digits"]
