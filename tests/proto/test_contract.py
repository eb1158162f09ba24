"""The contract does not move: names, numbers and types that other programs were built with."""

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.rpc import error_details_pb2
from google.rpc import status_pb2 as google_status_pb2

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2, prediction_pb2, status_pb2

MESSAGES: dict[Any, str] = {
    prediction_pb2.Tensor: "dtype=1 enum DataType, shape=2 repeated int64, data=3 bytes",
    prediction_pb2.PredictRequest: (
        "instance=1 Tensor, model=2 ModelSelector, receipt=3 bool, known_class_names=4 fixed64"
    ),
    prediction_pb2.PredictResponse: (
        "label=1 int32, probabilities=2 repeated float, model=3 ModelRef, receipt=4 bytes, "
        "class_names=5 repeated string, output_kind=6 enum OutputKind"
    ),
    prediction_pb2.BatchPredictRequest: (
        "instances=1 Tensor, model=2 ModelSelector, receipts=3 bool, known_class_names=4 fixed64"
    ),
    prediction_pb2.BatchPredictResponse: (
        "labels=1 repeated int32, probabilities=2 Tensor, model=3 ModelRef, "
        "receipts=4 repeated bytes, class_names=5 repeated string, output_kind=6 enum OutputKind"
    ),
    model_pb2.ModelSelector: "version=1 int64, alias=2 string, name=3 string",
    model_pb2.ModelRef: "name=1 string, version=2 int64, digest=3 string",
    model_pb2.ModelVersion: (
        "ref=1 ModelRef, state=2 enum State, state_reason=3 string, aliases=4 repeated string, "
        "input_shape=5 repeated int64, class_names=6 repeated string, create_time=7 Timestamp, "
        "metrics=8 repeated MetricsEntry, input_maximum=9 double, "
        "input_values=10 InputValues, input_kind=11 enum InputKind, "
        "output_kind=12 enum OutputKind"
    ),
    model_pb2.InputValues: "kind=1 enum Kind, low=2 double, high=3 double",
    model_pb2.ModelVersion.MetricsEntry: "key=1 string, value=2 double",
    model_pb2.GetModelVersionRequest: "model=1 ModelSelector",
    model_pb2.GetModelVersionResponse: "model_version=1 ModelVersion",
    model_pb2.ListModelVersionsRequest: "page_size=1 int32, page_token=2 string, name=3 string",
    model_pb2.ListModelVersionsResponse: (
        "model_versions=1 repeated ModelVersion, next_page_token=2 string"
    ),
    model_pb2.ListModelsRequest: "page_size=1 int32, page_token=2 string",
    model_pb2.ListModelsResponse: "models=1 repeated ModelVersion, next_page_token=2 string",
    explanation_pb2.ExplainRequest: (
        "instances=1 Tensor, model=2 ModelSelector, label=3 int32, baseline=4 Tensor, "
        "activations=5 bool"
    ),
    explanation_pb2.ExplainResponse: (
        "attributions=1 Tensor, labels=2 repeated int32, scores=3 repeated float, "
        "baseline_scores=4 repeated float, activations=5 repeated Tensor, model=6 ModelRef"
    ),
    feedback_pb2.Report: (
        "receipt=1 bytes, class_name=2 string, right=3 bool, instance=4 Tensor, note=5 string"
    ),
    feedback_pb2.ReportRequest: "reports=1 repeated Report",
    feedback_pb2.ReportResponse: "recorded=1 int32, known=2 int32",
}
MODULES = (prediction_pb2, model_pb2, explanation_pb2, feedback_pb2)
# Each method takes NAMERequest and answers with NAMEResponse.
SERVICES = {
    "PredictionService": {"Predict", "BatchPredict"},
    "ModelService": {"GetModelVersion", "ListModelVersions", "ListModels"},
    "ExplanationService": {"Explain"},
    "FeedbackService": {"Report"},
}
MIRRORS: dict[Any, Any] = {
    status_pb2.ErrorStatus: google_status_pb2.Status,
    status_pb2.ErrorInfo: error_details_pb2.ErrorInfo,
    status_pb2.ErrorInfo.MetadataEntry: error_details_pb2.ErrorInfo.MetadataEntry,
    status_pb2.BadRequest: error_details_pb2.BadRequest,
    status_pb2.BadRequest.FieldViolation: error_details_pb2.BadRequest.FieldViolation,
    status_pb2.RetryInfo: error_details_pb2.RetryInfo,
}
# Fields that Google added to an original and that we do not send.
NOT_MIRRORED = {"reason", "localized_message"}


KINDS = {number: name for name, number in vars(FieldDescriptor).items() if name[:5] == "TYPE_"}


def _kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.name
    if field.enum_type is not None:
        return f"enum {field.enum_type.name}"
    return KINDS[field.type].removeprefix("TYPE_").lower()


def _fields(descriptor: Descriptor) -> list[str]:
    repeated = {True: "repeated ", False: ""}
    return [f"{f.name}={f.number} {repeated[f.is_repeated]}{_kind(f)}" for f in descriptor.fields]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.DESCRIPTOR.name)
def test_a_message_has_its_fields_with_their_numbers_and_types(message: Any) -> None:
    assert ", ".join(_fields(message.DESCRIPTOR)) == MESSAGES[message]


def test_there_are_no_other_messages() -> None:
    ours = {m.DESCRIPTOR.full_name for m in MESSAGES}
    for module in MODULES:
        assert {m.full_name for m in module.DESCRIPTOR.message_types_by_name.values()} <= ours


def test_the_enumerations_have_their_numbers() -> None:
    assert dict(prediction_pb2.DataType.items()) == {
        "DATA_TYPE_UNSPECIFIED": 0, "DATA_TYPE_UINT8": 1, "DATA_TYPE_FLOAT32": 2,
    }  # fmt: skip
    assert dict(model_pb2.ModelVersion.State.items()) == {
        "STATE_UNSPECIFIED": 0, "STATE_LOADING": 1, "STATE_ACTIVE": 2, "STATE_STANDBY": 3,
        "STATE_REJECTED": 4, "STATE_FAILED": 5,
    }  # fmt: skip
    assert dict(model_pb2.InputKind.items()) == {
        "INPUT_KIND_UNSPECIFIED": 0, "INPUT_KIND_PIXELS": 1, "INPUT_KIND_REAL": 2,
    }  # fmt: skip
    assert dict(model_pb2.OutputKind.items()) == {
        "OUTPUT_KIND_UNSPECIFIED": 0, "OUTPUT_KIND_DISTRIBUTION": 1,
        "OUTPUT_KIND_INDEPENDENT": 2, "OUTPUT_KIND_VALUES": 3,
    }  # fmt: skip


def test_a_selector_holds_a_version_or_an_alias() -> None:
    selector = model_pb2.ModelSelector(version=3)
    assert selector.WhichOneof("selector") == "version"
    selector.alias = "champion"
    assert selector.WhichOneof("selector") == "alias"
    assert not selector.HasField("version")
    selector.name = "letters"  # which model is chosen apart from which version
    assert selector.WhichOneof("selector") == "alias"


def test_a_report_names_the_class_or_says_whether_the_answer_was_right() -> None:
    report = feedback_pb2.Report(class_name="7")
    assert report.WhichOneof("truth") == "class_name"
    report.right = False
    assert report.WhichOneof("truth") == "right"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (prediction_pb2.PredictRequest, "known_class_names"),
        (prediction_pb2.BatchPredictRequest, "known_class_names"),
        (explanation_pb2.ExplainRequest, "label"),
    ],
)
def test_a_zero_that_was_set_differs_from_an_unset_field(message: Any, field: str) -> None:
    assert not message().HasField(field)
    assert message.FromString(message(**{field: 0}).SerializeToString()).HasField(field)


def test_the_services_have_their_methods_and_none_streams() -> None:
    services = [s for module in MODULES for s in module.DESCRIPTOR.services_by_name.values()]
    assert {s.name: {m.name for m in s.methods} for s in services} == SERVICES
    for method in (m for service in services for m in service.methods):
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"
        assert not method.client_streaming
        assert not method.server_streaming


@pytest.mark.parametrize("mirror", MIRRORS, ids=lambda m: m.DESCRIPTOR.name)
def test_a_mirror_has_its_originals_names_numbers_and_types(mirror: Any) -> None:
    ours, originals = _fields(mirror.DESCRIPTOR), _fields(MIRRORS[mirror].DESCRIPTOR)
    assert set(ours) <= set(originals)
    left_out = {line.split("=")[0] for line in set(originals) - set(ours)}
    assert left_out <= NOT_MIRRORED


def test_an_error_has_the_same_bytes_in_mirror_and_original() -> None:
    def error(info: Any, bad: Any, retry: Any, status: Any) -> bytes:
        details = [
            info(reason="OUT_OF_RANGE", domain="mlpserve", metadata={"expected": "0 to 1"}),
            bad(field_violations=[bad.FieldViolation(field="instance", description="is 3")]),
            retry(),
        ]
        details[2].retry_delay.FromMilliseconds(50)
        message = status(code=3, message="no")
        for detail in details:
            any_detail = message.details.add()
            any_detail.type_url = f"type.googleapis.com/google.rpc.{detail.DESCRIPTOR.name}"
            any_detail.value = detail.SerializeToString(deterministic=True)
        return bytes(message.SerializeToString(deterministic=True))

    ours, theirs = status_pb2, error_details_pb2
    assert error(ours.ErrorInfo, ours.BadRequest, ours.RetryInfo, ours.ErrorStatus) == error(
        theirs.ErrorInfo, theirs.BadRequest, theirs.RetryInfo, google_status_pb2.Status
    )


# As the specification of the Open Inference Protocol has them.
INFER = inference_pb2.ModelInferRequest
INFERRED = inference_pb2.ModelInferResponse
OPEN_MESSAGES: dict[Any, str] = {
    inference_pb2.ServerLiveRequest: "",
    inference_pb2.ServerLiveResponse: "live=1 bool",
    inference_pb2.ServerReadyRequest: "",
    inference_pb2.ServerReadyResponse: "ready=1 bool",
    inference_pb2.ModelReadyRequest: "name=1 string, version=2 string",
    inference_pb2.ModelReadyResponse: "ready=1 bool",
    inference_pb2.ServerMetadataRequest: "",
    inference_pb2.ServerMetadataResponse: (
        "name=1 string, version=2 string, extensions=3 repeated string"
    ),
    inference_pb2.ModelMetadataRequest: "name=1 string, version=2 string",
    inference_pb2.ModelMetadataResponse: (
        "name=1 string, versions=2 repeated string, platform=3 string, "
        "inputs=4 repeated TensorMetadata, outputs=5 repeated TensorMetadata, "
        "properties=6 repeated PropertiesEntry"
    ),
    inference_pb2.ModelMetadataResponse.TensorMetadata: (
        "name=1 string, datatype=2 string, shape=3 repeated int64"
    ),
    INFER: (
        "model_name=1 string, model_version=2 string, id=3 string, "
        "parameters=4 repeated ParametersEntry, inputs=5 repeated InferInputTensor, "
        "outputs=6 repeated InferRequestedOutputTensor, raw_input_contents=7 repeated bytes"
    ),
    INFER.InferInputTensor: (
        "name=1 string, datatype=2 string, shape=3 repeated int64, "
        "parameters=4 repeated ParametersEntry, contents=5 InferTensorContents"
    ),
    INFER.InferRequestedOutputTensor: "name=1 string, parameters=2 repeated ParametersEntry",
    INFERRED: (
        "model_name=1 string, model_version=2 string, id=3 string, "
        "parameters=4 repeated ParametersEntry, outputs=5 repeated InferOutputTensor, "
        "raw_output_contents=6 repeated bytes"
    ),
    INFERRED.InferOutputTensor: (
        "name=1 string, datatype=2 string, shape=3 repeated int64, "
        "parameters=4 repeated ParametersEntry, contents=5 InferTensorContents"
    ),
    inference_pb2.InferParameter: (
        "bool_param=1 bool, int64_param=2 int64, string_param=3 string, double_param=4 double, "
        "uint64_param=5 uint64"
    ),
    inference_pb2.InferTensorContents: (
        "bool_contents=1 repeated bool, int_contents=2 repeated int32, "
        "int64_contents=3 repeated int64, uint_contents=4 repeated uint32, "
        "uint64_contents=5 repeated uint64, fp32_contents=6 repeated float, "
        "fp64_contents=7 repeated double, bytes_contents=8 repeated bytes"
    ),
}


@pytest.mark.parametrize("message", OPEN_MESSAGES, ids=lambda m: m.DESCRIPTOR.full_name)
def test_a_message_of_the_open_inference_protocol_is_as_specified(message: Any) -> None:
    assert message.DESCRIPTOR.full_name.startswith("inference.")
    assert ", ".join(_fields(message.DESCRIPTOR)) == OPEN_MESSAGES[message]


def test_the_open_inference_protocol_has_its_methods_and_none_streams() -> None:
    service = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == "inference.GRPCInferenceService"
    calls = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
    tritons = ("ModelConfig", "RepositoryIndex")
    assert {m.name: (m.input_type.name, m.output_type.name) for m in service.methods} == {
        name: (f"{name}Request", f"{name}Response") for name in (*calls, "ModelInfer", *tritons)
    }
    assert not any(m.client_streaming or m.server_streaming for m in service.methods)
