"""Explain answers with the attributions of the stored weights, whatever is asked for."""

from typing import Any

import grpc
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2 as pb
from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Network, Store, StoredModel
from mlpserve_model.nn.attributions import Attributions, attributions
from mlpserve_server.dataplane import explanations
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UINT8, FLOAT32 = prediction_pb2.DATA_TYPE_UINT8, prediction_pb2.DATA_TYPE_FLOAT32
ROWS = 300  # more than one chunk
X = np.random.default_rng(1).random((ROWS, 3, 4), np.float32)


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    publish(network=Network((12, 8, 5, 3)))
    stubs = serve(metrics_listen="127.0.0.1:0")
    eventually(stubs.serving)
    return stubs


@pytest.fixture
def model(stubs: Stubs, store: Store) -> StoredModel:
    return store.load(1)


def tensor(x: NDArray[Any]) -> prediction_pb2.Tensor:
    dtype = UINT8 if x.dtype == np.uint8 else FLOAT32
    return prediction_pb2.Tensor(dtype=dtype, shape=x.shape, data=x.tobytes())


def array(message: prediction_pb2.Tensor) -> NDArray[np.float32]:
    assert message.dtype == FLOAT32
    return np.frombuffer(message.data, "<f4").reshape(message.shape)


def expected(
    model: StoredModel, x: NDArray[Any], baseline: float = 0, label: int | None = None
) -> Attributions:
    rows, start = x.reshape(-1, 12), np.full(12, baseline, np.float32)
    return attributions(model.manifest.network, model.weights, rows, start, label)


def assert_explains(answer: pb.ExplainResponse, found: Attributions) -> None:
    assert list(answer.attributions.shape) == [len(found.values), 3, 4]
    assert_allclose(array(answer.attributions).reshape(-1, 12), found.values, atol=1e-6)
    assert list(answer.labels) == found.labels.tolist()
    assert_allclose(answer.scores, found.scores, atol=1e-5)
    assert_allclose(answer.baseline_scores, found.baseline_scores, atol=1e-5)


def test_the_predicted_class_of_every_row_is_explained(stubs: Stubs, model: StoredModel) -> None:
    answer = stubs.explanation.Explain(pb.ExplainRequest(instances=tensor(X)))

    assert_explains(answer, expected(model, X))
    assert list(answer.labels) == model.predict(X.reshape(-1, 12)).argmax(axis=1).tolist()
    assert len(set(answer.labels)) > 1
    assert not answer.activations
    assert (answer.model.name, answer.model.version) == ("mnist", 1)


def test_the_label_and_the_baseline_are_those_asked_for(stubs: Stubs, model: StoredModel) -> None:
    request = pb.ExplainRequest(
        instances=tensor(X), label=0, baseline=tensor(np.full((2, 6), 0.5, np.float32))
    )

    answer = stubs.explanation.Explain(request)

    assert_explains(answer, expected(model, X, 0.5, label=0))
    assert set(answer.labels) == {0}


def test_raw_pixels_are_scaled_in_instances_and_baseline(stubs: Stubs, model: StoredModel) -> None:
    pixels = np.random.default_rng(2).integers(0, 17, (5, 12), np.uint8)
    request = pb.ExplainRequest(instances=tensor(pixels), baseline=tensor(np.full(12, 4, np.uint8)))

    answer = stubs.explanation.Explain(request)

    assert_explains(answer, expected(model, pixels.astype(np.float32) / 16, 0.25))


def test_the_activations_of_every_hidden_layer_come_when_asked_for(
    stubs: Stubs, model: StoredModel
) -> None:
    answer = stubs.explanation.Explain(pb.ExplainRequest(instances=tensor(X), activations=True))

    wanted = expected(model, X).activations
    assert [list(layer.shape) for layer in answer.activations] == [[ROWS, 8], [ROWS, 5]]
    for layer, found in zip(answer.activations, wanted, strict=True):
        assert_allclose(array(layer), found, atol=1e-6)


def test_a_version_is_selected_as_for_predict(stubs: Stubs, publish: Publish, store: Store) -> None:
    publish(seed=5, promote=False)
    chosen = model_pb2.ModelSelector(version=2)

    answer = stubs.explanation.Explain(pb.ExplainRequest(instances=tensor(X), model=chosen))

    assert answer.model.version == 2
    assert_explains(answer, expected(store.load(2), X))


# changes to a good request -> field, parts of the message
WRONG: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "one instance without the first dimension": (
        {"instances": tensor(X[0].reshape(12))}, "instances.shape", ["[12]", "[n, 3, 4]"],
    ),
    "NaN": ({"instances": tensor(X[:2] * np.float32("nan"))}, "instances.data", ["nan", "row 0"]),
    "a label that is none": ({"label": 3}, "label", ["label 3", "0 to 2"]),
    "a negative label": ({"label": -1}, "label", ["label -1", "0 to 2"]),
    "a baseline of another size": (
        {"baseline": tensor(np.zeros(13, np.float32))}, "baseline.shape", ["[13]", "[3, 4]"],
    ),
    "two baselines": ({"baseline": tensor(X[:2])}, "baseline.shape", ["[2, 3, 4]"]),
    "a baseline out of range": (
        {"baseline": tensor(np.full(12, 2, np.float32))}, "baseline.data", ["2.0", "0 to 1"],
    ),
    "no model": (
        {"model": model_pb2.ModelSelector(version=-1)}, "model.version", ["-1", "1 or more"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_by_field(case: str, stubs: Stubs, refusal: Refuse) -> None:
    changes, field, parts = WRONG[case]
    request = pb.ExplainRequest(**{"instances": tensor(X)} | changes)

    refused = refusal(stubs.explanation.Explain, request)

    assert (refused.code, refused.fields) == (INVALID, [field])
    assert all(part in refused.message for part in parts), refused.message


def test_more_rows_than_an_answer_holds_are_refused_with_the_limit(
    stubs: Stubs, refusal: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MAX_ANSWER_BYTES", 4 * 12 * 100)
    request = pb.ExplainRequest(instances=tensor(X))

    refused = refusal(stubs.explanation.Explain, request)

    assert (refused.code, refused.info.reason) == (INVALID, "BATCH_TOO_LARGE")
    assert refused.info.metadata["max_batch"] == "100"
    # Hidden activations count too: 25 values a row instead of 12.
    request = pb.ExplainRequest(instances=tensor(X[:49]), activations=True)
    assert "at most 48" in refusal(stubs.explanation.Explain, request).message


def test_explained_rows_are_admitted_like_those_of_batches(
    publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    publish()
    stubs = serve(max_rows=100)

    eventually(stubs.serving)
    refused = refusal(stubs.explanation.Explain, pb.ExplainRequest(instances=tensor(X)))

    assert (refused.code, refused.info.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
    )


def test_a_call_is_counted_by_method_and_its_rows_are_no_predictions(stubs: Stubs) -> None:
    stubs.explanation.Explain(pb.ExplainRequest(instances=tensor(X)))

    eventually(lambda: stubs.scrape()("mlpserve_calls_total", method="Explain", code="OK") == 1)
    assert stubs.scrape()("mlpserve_rows_total") == 0


def infer(x: NDArray[Any], raw: bool, *outputs: str) -> inference_pb2.ModelInferRequest:
    request = inference_pb2.ModelInferRequest(model_name="mnist")
    given = request.inputs.add(name="instances", datatype="FP32", shape=x.shape)
    if raw:
        request.raw_input_contents.append(x.tobytes())
    else:
        given.contents.fp32_contents.extend(x.ravel().tolist())
    for name in outputs:
        request.outputs.add(name=name)
    return request


@pytest.mark.parametrize("rows", [1, ROWS])  # in one product with others, and in steps
@pytest.mark.parametrize("raw", [True, False])
def test_model_infer_has_an_output_of_attributions_when_asked_for(
    stubs: Stubs, model: StoredModel, rows: int, raw: bool
) -> None:
    request = infer(X[:rows], raw, "attributions", "labels")

    answer = stubs.inference.ModelInfer(request)

    found = expected(model, X[:rows])
    why, labels = answer.outputs
    assert (why.name, why.datatype, list(why.shape)) == ("attributions", "FP32", [rows, 3, 4])
    assert (labels.name, list(labels.shape)) == ("labels", [rows])
    if raw:
        values = np.frombuffer(answer.raw_output_contents[0], "<f4")
        numbers = np.frombuffer(answer.raw_output_contents[1], "<i8")
    else:
        values = np.array(why.contents.fp32_contents, np.float32)
        numbers = np.array(labels.contents.int64_contents)
    assert_allclose(values.reshape(rows, 12), found.values, atol=1e-6)
    assert_array_equal(numbers, found.labels)


def test_explained_and_plain_calls_that_come_together_get_their_own_outputs(
    stubs: Stubs, model: StoredModel
) -> None:
    futures = [
        stubs.inference.ModelInfer.future(infer(X[:1], True, *names))
        for names in [("attributions",), (), ("attributions",), ()] * 10
    ]

    names = [[output.name for output in call.result(timeout=10).outputs] for call in futures]

    assert names == [["attributions"], ["labels", "probabilities"]] * 20


def test_model_infer_takes_no_more_rows_than_explain(
    stubs: Stubs, refusal: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MAX_ANSWER_BYTES", 4 * 12 * 100)

    refused = refusal(stubs.inference.ModelInfer, infer(X, True, "attributions"))
    stubs.inference.ModelInfer(infer(X, True, "labels"))

    assert refused.info.metadata["max_batch"] == "100"


def test_one_row_is_explained_however_large_it_is(
    stubs: Stubs, refusal: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MAX_ANSWER_BYTES", 4)

    assert stubs.explanation.Explain(pb.ExplainRequest(instances=tensor(X[:1]))).labels
    refused = refusal(stubs.explanation.Explain, pb.ExplainRequest(instances=tensor(X[:2])))
    assert refused.info.metadata["max_batch"] == "1"
