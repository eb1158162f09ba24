"""What ModelInfer refuses: the code of the protocol, the field, expected and actual."""

from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlpserve.open_inference import inference_pb2 as pb
from mlpserve_model import Store, Verdict
from mlpserve_server.dataplane.oip_catalog import UNSUPPORTED
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.server import Refusal, Refuse, Serve, Stubs
from tests.support.waiting import eventually

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
GOOD = np.full(12, 0.5, np.float32).tobytes()
Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor


def tensor(**changed: Any) -> Any:
    return Input(**{"name": "instances", "datatype": "FP32", "shape": [1, 12], **changed})


def request(**changed: Any) -> pb.ModelInferRequest:
    fields = {"model_name": "mnist", "inputs": [tensor()], "raw_input_contents": [GOOD], **changed}
    return pb.ModelInferRequest(**fields)


def typed(datatype: str = "FP32", **contents: Any) -> pb.ModelInferRequest:
    filled = tensor(datatype=datatype, contents=pb.InferTensorContents(**contents))
    return request(inputs=[filled], raw_input_contents=[])


def changed(position: int, value: float) -> bytes:
    values = np.frombuffer(GOOD, np.float32).copy()
    values[position] = value
    return values.tobytes()


SHARED = {"shared_memory_region": pb.InferParameter(string_param="region")}
CLASSIFICATION = {"classification": pb.InferParameter(int64_param=3)}
# request -> code, field, parts of the message
WRONG: dict[str, tuple[pb.ModelInferRequest, Any, list[str], list[str]]] = {
    "no input": (request(inputs=[]), INVALID, ["inputs"], ["0 inputs", "instances"]),
    "two inputs": (request(inputs=[tensor()] * 2), INVALID, ["inputs"], ["2 inputs"]),
    "another input": (
        request(inputs=[tensor(name="images")]),
        INVALID,
        ["inputs[0].name"],
        ["'images'", "instances"],
    ),
    "another datatype": (
        request(inputs=[tensor(datatype="FP64")]),
        INVALID,
        ["inputs[0].datatype"],
        ["'FP64'", "FP32 or UINT8"],
    ),
    "no datatype": (
        request(inputs=[tensor(datatype="")]),
        INVALID,
        ["inputs[0].datatype"],
        ["FP32 or UINT8"],
    ),
    "no shape": (request(inputs=[tensor(shape=[])]), INVALID, ["inputs[0].shape"], ["[]"]),
    "a wrong shape": (
        request(inputs=[tensor(shape=[1, 13])]),
        INVALID,
        ["inputs[0].shape"],
        ["[1, 13]", "[n, 3, 4]"],
    ),
    "a negative shape": (
        request(inputs=[tensor(shape=[-1, 12])]),
        INVALID,
        ["inputs[0].shape"],
        [],
    ),
    "too many dimensions": (
        request(inputs=[tensor(shape=[1] * 9)]),
        INVALID,
        ["inputs[0].shape"],
        ["not a shape"],
    ),
    "an empty batch": (
        request(inputs=[tensor(shape=[0, 12])], raw_input_contents=[b""]),
        INVALID,
        ["inputs[0].shape"],
        ["empty batch"],
    ),
    "too large a batch": (
        request(inputs=[tensor(shape=[11, 12])], raw_input_contents=[GOOD * 11]),
        INVALID,
        ["inputs[0].shape"],
        ["11 instances", "at most 10"],
    ),
    "too few bytes": (
        request(raw_input_contents=[b"123"]),
        INVALID,
        ["inputs[0].data"],
        ["3 bytes", "expected 48"],
    ),
    "no contents": (
        request(raw_input_contents=[]),
        INVALID,
        ["inputs[0].data"],
        ["0 bytes", "expected 48"],
    ),
    "two raw contents": (
        request(raw_input_contents=[GOOD, GOOD]),
        INVALID,
        ["raw_input_contents"],
        ["2 raw contents", "expected 1"],
    ),
    "raw and typed contents": (
        request(inputs=[tensor(contents=pb.InferTensorContents(fp32_contents=[0.5] * 12))]),
        INVALID,
        ["inputs[0].contents"],
        ["expected one of them"],
    ),
    "contents of another type": (
        typed(fp64_contents=[0.5] * 12),
        INVALID,
        ["inputs[0].data"],
        ["0 bytes", "expected 48"],
    ),
    "a pixel that is no byte": (
        typed("UINT8", uint_contents=[300] * 12),
        INVALID,
        ["inputs[0].contents.uint_contents"],
        ["300", "0 to 255"],
    ),
    "a pixel above the maximum": (
        typed("UINT8", uint_contents=[17] * 12),
        INVALID,
        ["inputs[0].data"],
        ["17", "0 to 16"],
    ),
    "NaN": (
        request(raw_input_contents=[changed(3, np.nan)]),
        INVALID,
        ["inputs[0].data"],
        ["nan", "at 3"],
    ),
    "a value above 1": (
        typed(fp32_contents=[0.5] * 11 + [2.0]),
        INVALID,
        ["inputs[0].data"],
        ["2.0", "at 11", "from 0 to 1"],
    ),
    "values in shared memory": (
        request(inputs=[tensor(parameters=SHARED)], raw_input_contents=[]),
        INVALID,
        ["inputs[0].parameters"],
        ["shared_memory_region"],
    ),
    "an output in shared memory": (
        request(outputs=[Output(name="labels", parameters=SHARED)]),
        INVALID,
        ["outputs[0].parameters"],
        ["shared_memory_region"],
    ),
    "an output as classification": (
        request(outputs=[Output(name="labels", parameters=CLASSIFICATION)]),
        INVALID,
        ["outputs[0].parameters"],
        ["'classification'"],
    ),
    "another output": (
        request(outputs=[Output(name="labels"), Output(name="logits")]),
        INVALID,
        ["outputs[1].name"],
        ["'logits'", "labels, probabilities"],
    ),
    "an output twice": (
        request(outputs=[Output(name="labels"), Output(name="labels")]),
        INVALID,
        ["outputs[1].name"],
        ["twice"],
    ),
    "another model": (request(model_name="cifar"), NOT_FOUND, [], ["'cifar'", "mnist"]),
    "no model": (request(model_name=""), NOT_FOUND, [], ["''", "mnist"]),
    "an unknown version": (request(model_version="99"), NOT_FOUND, [], ["99"]),
    "a huge version": (request(model_version="9" * 5000), NOT_FOUND, [], ["999"]),
    "an unknown alias": (request(model_version="nobody"), NOT_FOUND, [], ["nobody", "champion"]),
    "a path": (request(model_version="../../etc"), NOT_FOUND, [], ["../../etc"]),
    "version 0": (request(model_version="0"), INVALID, ["model_version"], ["0", "1 or more"]),
    "a rejected version": (
        request(model_version="2"),
        grpc.StatusCode.FAILED_PRECONDITION,
        [],
        ["worse"],
    ),
}


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    publish()
    publish(seed=2, promote=False, verdict=Verdict("REJECTED", ("worse",)))
    stubs = serve(max_batch=10)
    eventually(stubs.serving)
    return stubs


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_refused_by_field(case: str, stubs: Stubs, refusal: Refuse) -> None:
    sent, code, fields, parts = WRONG[case]
    refused = refusal(stubs.inference.ModelInfer, sent)
    assert (refused.code, refused.fields) == (code, fields)
    assert all(part in refused.message for part in parts), refused.message


def test_without_a_model_nothing_is_ready(serve: Serve, refusal: Refuse) -> None:
    stubs = serve()
    assert refusal(stubs.inference.ModelInfer, request()).code == grpc.StatusCode.UNAVAILABLE
    metadata = pb.ModelMetadataRequest(name="mnist")
    assert refusal(stubs.inference.ModelMetadata, metadata).code == grpc.StatusCode.UNAVAILABLE


def test_metadata_of_what_is_not_there_are_not_found(stubs: Stubs, refusal: Refuse) -> None:
    for name, version in [("cifar", ""), ("mnist", "99"), ("mnist", "nobody")]:
        wanted = pb.ModelMetadataRequest(name=name, version=version)
        assert refusal(stubs.inference.ModelMetadata, wanted).code == NOT_FOUND


def test_metadata_of_a_damaged_version_say_why(store: Store, stubs: Stubs, refusal: Refuse) -> None:
    (store.folder / "2" / "manifest.json").write_text("{}")
    wanted = pb.ModelMetadataRequest(name="mnist", version="2")
    refused = refusal(stubs.inference.ModelMetadata, wanted)
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    assert not stubs.inference.ModelReady(pb.ModelReadyRequest(name="mnist", version="2")).ready


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
def test_bytes_that_are_no_message_are_refused(method: str, stubs: Stubs, refusal: Refuse) -> None:
    call: Any = stubs.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    refused = refusal(call, b"\xff\xff\xff")
    assert refused.code == INVALID
    assert f"inference.{method}Request" in refused.message


@pytest.mark.parametrize("method", UNSUPPORTED)
def test_a_method_of_triton_that_is_not_here_says_what_is(method: str, stubs: Stubs) -> None:
    call: Any = stubs.channel.stream_stream(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        next(call(iter([b""]), timeout=10))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f"{method}: {UNSUPPORTED[method]}"


def test_the_repository_has_no_name(stubs: Stubs, refusal: Refuse) -> None:
    wanted = pb.RepositoryIndexRequest(repository_name="models")
    assert refusal(stubs.inference.RepositoryIndex, wanted).fields == ["repository_name"]


def test_a_fault_of_ours_tells_an_id_and_nothing_else(
    stubs: Stubs, refusal: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the secret is in /etc/secret.py")

    patch_method(monkeypatch, stubs.served, "predict", broken)
    refused = refusal(stubs.inference.ModelInfer, request())
    assert refused.code == grpc.StatusCode.INTERNAL
    assert "secret" not in refused.message
    assert refused.info.metadata["request_id"] in refused.message


numbers = st.integers(-(2**63), 2**63 - 1)
contents = st.builds(
    pb.InferTensorContents,
    fp32_contents=st.lists(st.floats(width=32), max_size=13) | st.just([0.5] * 12),
    uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=13) | st.just([3] * 12),
)
inputs = st.builds(
    Input,
    name=st.sampled_from(["instances", ""]),
    datatype=st.sampled_from(["FP32", "UINT8", "FP32", "INT64", ""]),
    shape=st.sampled_from([[1, 12], [12], [3, 4]]) | st.lists(numbers, max_size=10),
    contents=st.none() | contents,
)
nearly_right = st.builds(
    request,
    model_version=st.sampled_from(["", "1", "7"]),
    inputs=st.sampled_from([[tensor()], [tensor(shape=[3, 4])], [tensor(shape=[2, 6])]]),
    raw_input_contents=st.sampled_from([[GOOD], [changed(0, 2.0)]]),
)
anything = st.builds(
    pb.ModelInferRequest,
    model_name=st.just("mnist"),
    model_version=st.sampled_from(["", "1", "7"]) | st.text(max_size=30),
    inputs=st.lists(inputs, max_size=2) | st.builds(lambda one: [one], inputs),
    outputs=st.lists(st.builds(Output, name=st.sampled_from(["labels", "logits"])), max_size=2),
    raw_input_contents=st.just([]) | st.sampled_from([[GOOD], [bytes(12)], [b""], [GOOD, GOOD]]),
)


def in_range(sent: pb.ModelInferRequest) -> bool:
    """Whether a model of twelve pixels up to 16 can take these values."""
    (given,) = sent.inputs
    is_float = given.datatype == "FP32"
    if sent.raw_input_contents:
        values = np.frombuffer(sent.raw_input_contents[0], "<f4" if is_float else np.uint8)
    else:
        contents = given.contents
        values = np.array(contents.fp32_contents if is_float else contents.uint_contents)
    maximum = 1 if is_float else 16
    return len(values) % 12 == 0 and bool(((values >= 0) & (values <= maximum)).all())


@pytest.mark.parametrize("examples", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_request_whatever_is_answered_with_a_fault(examples: int, stubs: Stubs) -> None:
    seen = set()

    @settings(
        max_examples=examples,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    # What tests/faults/test_twins.py breaks is noticed whatever else is drawn.
    @example(sent=request(raw_input_contents=[changed(0, 2.0)]))
    @example(sent=request(raw_input_contents=[GOOD[1:]]))
    @given(sent=nearly_right | anything)
    def attack(sent: pb.ModelInferRequest) -> None:
        answer: Any = stubs.inference.ModelInfer.future(sent, timeout=10)
        seen.add(answer.code())
        # Version 2 of the fixture is one that the gate rejected, which has a code of its own.
        rejected = {grpc.StatusCode.FAILED_PRECONDITION} if sent.model_version == "2" else set()
        assert answer.code() in {grpc.StatusCode.OK, INVALID, NOT_FOUND} | rejected, (
            answer.code(),
            answer.details(),
        )
        if answer.code() == INVALID:
            assert Refusal(answer).fields != [], answer.details()
        assert answer.code() != grpc.StatusCode.OK or in_range(sent), "answered out of range"

    attack()
    assert seen >= {grpc.StatusCode.OK, INVALID, NOT_FOUND}
