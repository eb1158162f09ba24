"""The Open Inference Protocol: right answers, by its rules, from the same model as Predict's."""

import json
import signal
from concurrent import futures
from importlib import metadata
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2
from numpy.typing import NDArray

from mlpserve.open_inference import inference_pb2 as pb
from mlpserve.open_inference import inference_pb2_grpc
from mlpserve.open_inference.model_config_pb2 import DataType
from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Store, Verdict
from tests.support.publishing import Publish
from tests.support.server import Refuse, Run, Serve, Stubs
from tests.support.waiting import eventually

DATATYPES = {"float32": "FP32", "uint8": "UINT8"}


def infer(
    x: NDArray[Any], shape: Any = None, raw: bool = True, **fields: Any
) -> pb.ModelInferRequest:
    """A request for these instances, raw or typed."""
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="instances", datatype=DATATYPES[x.dtype.name], shape=shape or x.shape
    )
    if raw:
        fields["raw_input_contents"] = [x.tobytes()]
    elif x.dtype == np.uint8:
        tensor.contents.uint_contents.extend(x.ravel().tolist())
    else:
        tensor.contents.fp32_contents.extend(x.ravel().tolist())
    return pb.ModelInferRequest(**{"model_name": "mnist", "inputs": [tensor], **fields})


def wanted(*names: str) -> list[pb.ModelInferRequest.InferRequestedOutputTensor]:
    return [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]


def arrays(response: pb.ModelInferResponse) -> dict[str, Any]:
    """The outputs by name, wherever the values are."""
    found = {}
    for place, output in enumerate(response.outputs):
        dtype, typed = {
            "INT64": ("<i8", output.contents.int64_contents),
            "FP32": ("<f4", output.contents.fp32_contents),
        }[output.datatype]
        if response.raw_output_contents:
            assert not output.HasField("contents")
            values = np.frombuffer(response.raw_output_contents[place], dtype)
        else:
            values = np.array(typed, dtype)
        found[output.name] = values.reshape(output.shape)
    return found


@pytest.fixture
def x() -> NDArray[np.float32]:
    return np.random.default_rng(1).random((5, 3, 4), dtype=np.float32)


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    return stubs


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("dtype", DATATYPES)
@pytest.mark.parametrize("rows", [1, 5])
def test_the_answer_is_that_of_batch_predict_in_the_form_of_the_request(
    stubs: Stubs, rows: int, dtype: str, raw: bool
) -> None:
    random = np.random.default_rng(2)
    x = random.random((rows, 3, 4), np.float32)
    if dtype == "uint8":
        x = random.integers(0, 17, (rows, 3, 4), np.uint8)

    response = stubs.inference.ModelInfer(infer(x, raw=raw))

    kind = prediction_pb2.DATA_TYPE_UINT8 if dtype == "uint8" else prediction_pb2.DATA_TYPE_FLOAT32
    tensor = prediction_pb2.Tensor(dtype=kind, shape=x.shape, data=x.tobytes())
    expected = stubs.prediction.BatchPredict(prediction_pb2.BatchPredictRequest(instances=tensor))
    probabilities = np.frombuffer(expected.probabilities.data, "<f4").reshape(rows, 3)
    assert bool(response.raw_output_contents) == raw
    found = arrays(response)
    assert list(found) == ["labels", "probabilities"]
    np.testing.assert_array_equal(found["labels"], expected.labels)
    np.testing.assert_array_equal(found["probabilities"], probabilities)
    assert (response.model_name, response.model_version) == ("mnist", "1")


@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 12), (1, 3, 4), (1, 3, 4, 1)])
def test_one_instance_may_come_with_and_without_the_dimension_of_the_batch(
    stubs: Stubs, x: NDArray[np.float32], shape: tuple[int, ...]
) -> None:
    found = arrays(stubs.inference.ModelInfer(infer(x[0], shape)))
    expected = arrays(stubs.inference.ModelInfer(infer(x[:1])))
    assert found["labels"].shape == (1,)
    assert found["probabilities"].shape == (1, 3)
    np.testing.assert_array_equal(found["probabilities"], expected["probabilities"])


def test_a_batch_larger_than_a_chunk_gives_each_row_its_answer(store: Store, stubs: Stubs) -> None:
    many = np.random.default_rng(2).random((1500, 12), dtype=np.float32)
    found = arrays(stubs.inference.ModelInfer(infer(many)))
    expected = store.load(1).predict(many)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
    np.testing.assert_array_equal(found["labels"], found["probabilities"].argmax(axis=1))


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize(
    "names", [["labels"], ["probabilities"], ["probabilities", "labels"]], ids="-".join
)
def test_only_the_outputs_asked_for_come_in_that_order(
    stubs: Stubs, x: NDArray[np.float32], names: list[str], raw: bool
) -> None:
    response = stubs.inference.ModelInfer(infer(x, raw=raw, outputs=wanted(*names)))
    assert [output.name for output in response.outputs] == names
    assert len(response.raw_output_contents) == (len(names) if raw else 0)
    everything = arrays(stubs.inference.ModelInfer(infer(x)))
    for name, array in arrays(response).items():
        np.testing.assert_array_equal(array, everything[name])


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_each_of_many_calls_at_once_gets_its_own_id_and_answer(
    store: Store, stubs: Stubs, raw: bool
) -> None:
    random = np.random.default_rng(3)
    rows = [random.random((1 + number % 3, 12), np.float32) for number in range(60)]

    calls = [
        stubs.inference.ModelInfer.future(infer(row, raw=raw, id=f"call {number}"))
        for number, row in enumerate(rows)
    ]

    model = store.load(1)
    for number, (row, call) in enumerate(zip(rows, calls, strict=True)):
        response = call.result(timeout=10)
        assert response.id == f"call {number}"
        found = arrays(response)["probabilities"]
        np.testing.assert_allclose(found, model.predict(row), atol=1e-6)


def test_a_wrong_call_among_others_is_refused_alone(stubs: Stubs, x: NDArray[np.float32]) -> None:
    wrong = x.copy()
    wrong[0, 0, 0] = 7
    calls = [
        stubs.inference.ModelInfer.future(infer(wrong if number % 3 else x)) for number in range(30)
    ]
    codes = [call.code() for call in calls]
    assert codes == [
        grpc.StatusCode.INVALID_ARGUMENT if number % 3 else grpc.StatusCode.OK
        for number in range(30)
    ]


def test_the_version_selects_by_number_and_by_alias(
    store: Store, publish: Publish, serve: Serve, x: NDArray[np.float32]
) -> None:
    first, second = publish(seed=0), publish(seed=1, promote=False)
    stubs = serve()
    eventually(stubs.serving)
    for version, number in [("", first), ("1", first), ("2", second), ("champion", first)]:
        response = stubs.inference.ModelInfer(infer(x, model_version=version))
        assert response.model_version == str(number)
        expected = store.load(number).predict(x.reshape(5, 12))
        np.testing.assert_array_equal(arrays(response)["probabilities"], expected)


def test_a_large_batch_for_a_version_that_is_not_in_memory_is_answered(
    store: Store, publish: Publish, serve: Serve
) -> None:
    publish(seed=0)
    publish(seed=1, promote=False)
    stubs = serve()
    eventually(stubs.serving)
    many = np.random.default_rng(2).random((1500, 12), dtype=np.float32)
    found = arrays(stubs.inference.ModelInfer(infer(many, model_version="2")))
    np.testing.assert_allclose(found["probabilities"], store.load(2).predict(many), atol=1e-6)


def test_a_large_batch_and_single_calls_are_answered_side_by_side(
    store: Store, stubs: Stubs, x: NDArray[np.float32]
) -> None:
    many = np.random.default_rng(2).random((8000, 12), dtype=np.float32)
    batches = [stubs.inference.ModelInfer.future(infer(many)) for _ in range(8)]
    singles = [stubs.inference.ModelInfer.future(infer(x[:1])) for _ in range(50)]
    expected = store.load(1).predict(many)
    for call in singles:
        assert call.result(timeout=20).model_version == "1"
    for call in batches:
        found = arrays(call.result(timeout=20))["probabilities"]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_calls_beyond_the_bound_are_refused_and_the_others_answered(
    publish: Publish, serve: Serve, refusal: Refuse, x: NDArray[np.float32]
) -> None:
    publish()
    stubs = serve(max_waiting=2)
    eventually(stubs.serving)
    many = np.random.default_rng(2).random((8000, 12), dtype=np.float32)
    calls = [stubs.inference.ModelInfer.future(infer(many)) for _ in range(40)]
    codes = {call.code() for call in calls}
    assert codes == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert stubs.inference.ModelInfer(infer(x)).model_version == "1"


def test_the_server_is_live_at_once_and_ready_when_a_model_is(
    publish: Publish, serve: Serve
) -> None:
    stubs = serve()
    model = pb.ModelReadyRequest(name="mnist")
    assert stubs.inference.ServerLive(pb.ServerLiveRequest()).live
    assert not stubs.inference.ServerReady(pb.ServerReadyRequest()).ready
    assert not stubs.inference.ModelReady(model).ready
    publish()
    eventually(lambda: stubs.inference.ServerReady(pb.ServerReadyRequest()).ready)
    assert stubs.inference.ModelReady(model).ready


def test_a_draining_server_is_live_and_not_ready_and_still_answers(
    publish: Publish, run: Run, x: NDArray[np.float32]
) -> None:
    publish()
    process = run("--drain-seconds", "2")
    address = process.event("listening")["address"]
    process.event("serving")
    with grpc.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        eventually(lambda: stub.ServerReady(pb.ServerReadyRequest()).ready)
        process.process.send_signal(signal.SIGTERM)
        eventually(lambda: not stub.ServerReady(pb.ServerReadyRequest()).ready)
        assert stub.ServerLive(pb.ServerLiveRequest()).live
        assert not stub.ModelReady(pb.ModelReadyRequest(name="mnist")).ready
        assert stub.ModelInfer(infer(x)).model_version == "1"
    process.process.communicate(timeout=20)
    assert process.process.returncode == 0


def test_a_model_is_ready_in_the_versions_that_can_answer(publish: Publish, serve: Serve) -> None:
    publish()
    publish(seed=1, promote=False)
    publish(seed=2, promote=False, verdict=Verdict("REJECTED", ("worse",)))
    stubs = serve()
    eventually(stubs.serving)

    def ready(name: str, version: str) -> bool:
        request = pb.ModelReadyRequest(name=name, version=version)
        return bool(stubs.inference.ModelReady(request).ready)

    assert [ready("mnist", version) for version in ("", "1", "2", "champion")] == [True] * 4
    assert [ready("mnist", version) for version in ("3", "99", "nobody")] == [False] * 3
    assert not ready("cifar", "")


def test_the_server_says_what_it_is(serve: Serve) -> None:
    said = serve().inference.ServerMetadata(pb.ServerMetadataRequest())
    assert (said.name, said.version) == ("mlpserve", metadata.version("mlpserve"))
    assert list(said.extensions) == []


def test_the_metadata_describe_what_infer_takes_and_gives(
    publish: Publish, serve: Serve, x: NDArray[np.float32]
) -> None:
    publish()
    publish(seed=1, promote=False)
    stubs = serve()
    eventually(stubs.serving)

    said = stubs.inference.ModelMetadata(pb.ModelMetadataRequest(name="mnist"))

    assert (said.name, list(said.versions), said.platform) == ("mnist", ["1"], "mlpserve_npz")
    assert json.loads(said.properties["class_names"]) == ["circle", "square", "star"]
    assert (
        said.properties["digest"]
        == stubs.models.GetModelVersion(model_pb2.GetModelVersionRequest()).model_version.ref.digest
    )
    (tensor,) = said.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("instances", "FP32", [-1, 3, 4])
    response = stubs.inference.ModelInfer(infer(x))
    for described, given in zip(said.outputs, response.outputs, strict=True):
        assert (described.name, described.datatype) == (given.name, given.datatype)
        assert list(described.shape) == [-1, *given.shape[1:]]
    stubs.inference.ModelInfer(infer(x, model_version="2"))
    said = stubs.inference.ModelMetadata(pb.ModelMetadataRequest(name="mnist"))
    assert list(said.versions) == ["1", "2"]
    said = stubs.inference.ModelMetadata(pb.ModelMetadataRequest(name="mnist", version="2"))
    assert list(said.versions) == ["2"]


def test_the_configuration_of_triton_says_the_same_as_the_metadata(
    publish: Publish, serve: Serve
) -> None:
    publish()
    stubs = serve(max_batch=77)
    eventually(stubs.serving)

    config = stubs.inference.ModelConfig(pb.ModelConfigRequest(name="mnist")).config

    said = stubs.inference.ModelMetadata(pb.ModelMetadataRequest(name="mnist"))
    assert (config.name, config.platform, config.max_batch_size) == ("mnist", said.platform, 77)
    described = [(t.name, f"TYPE_{t.datatype}", t.shape[1:] or [1]) for t in said.outputs]
    assert [(t.name, DataType.Name(t.data_type), list(t.dims)) for t in config.output] == described
    (tensor,), (metadata_of_it,) = config.input, said.inputs
    assert (tensor.name, list(tensor.dims)) == (metadata_of_it.name, metadata_of_it.shape[1:])
    assert DataType.Name(tensor.data_type) == f"TYPE_{metadata_of_it.datatype}"


def test_the_index_has_every_version_in_memory(
    publish: Publish, serve: Serve, x: NDArray[np.float32]
) -> None:
    stubs = serve()
    (missing,) = stubs.inference.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert (missing.name, missing.version, missing.state) == ("mnist", "", "UNAVAILABLE")
    assert "no model" in missing.reason
    assert not stubs.inference.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
    publish()
    publish(seed=1, promote=False)
    eventually(stubs.serving)
    stubs.inference.ModelInfer(infer(x, model_version="2"))

    models = stubs.inference.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models

    assert [(m.name, m.version, m.state) for m in models] == [
        ("mnist", "1", "READY"), ("mnist", "2", "READY"),
    ]  # fmt: skip


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_protocol_under_both_of_its_names(stubs: Stubs, version: str) -> None:
    method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    ask = stubs.channel.stream_stream(
        method,
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = {service.name for service in answer.list_services_response.service}
    assert "inference.GRPCInferenceService" in names


def test_abandoned_calls_cost_nobody_an_answer(stubs: Stubs, x: NDArray[np.float32]) -> None:
    with futures.ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            pool.submit(lambda: stubs.inference.ModelInfer.future(infer(x)).cancel())
    assert stubs.inference.ModelInfer(infer(x)).model_version == "1"


HINTS = {
    "binary_data_size": pb.InferParameter(int64_param=48),  # KServe's client
    "content_type": pb.InferParameter(string_param="np"),  # MLServer's codecs
}


def test_parameters_that_the_server_does_not_know_are_ignored(
    stubs: Stubs, x: NDArray[np.float32]
) -> None:
    plain = infer(x, outputs=wanted("labels"))
    hinted = infer(x, outputs=wanted("labels"))
    for part in (hinted, hinted.inputs[0], hinted.outputs[0]):
        for name, value in HINTS.items():
            part.parameters[name].CopyFrom(value)

    assert stubs.inference.ModelInfer(hinted) == stubs.inference.ModelInfer(plain)


def test_empty_contents_beside_raw_values_are_no_second_copy_of_them(
    stubs: Stubs, x: NDArray[np.float32]
) -> None:
    request = infer(x)
    request.inputs[0].contents.SetInParent()  # as MLServer's converter leaves it

    assert stubs.inference.ModelInfer(request) == stubs.inference.ModelInfer(infer(x))
