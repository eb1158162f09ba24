"""Every wrong request gets the designed code, and a message with expected and actual."""

from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Network, Signature
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.server import Refusal, Refuse, Serve
from tests.support.waiting import eventually

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UINT8, FLOAT32 = prediction_pb2.DATA_TYPE_UINT8, prediction_pb2.DATA_TYPE_FLOAT32
GOOD = np.full(12, 0.5, np.float32)


def floats(*changed: tuple[int, float]) -> bytes:
    values = GOOD.copy()
    for position, value in changed:
        values[position] = value
    return values.tobytes()


# dtype, shape, data -> field, parts of the message
WRONG_INSTANCES = {
    "too few bytes": (FLOAT32, [12], b"123", "data", ["3 bytes", "expected 48"]),
    "too many bytes": (UINT8, [12], bytes(13), "data", ["13 bytes", "expected 12"]),
    "no tensor": (0, [], b"", "shape", ["[]", "expected [3, 4]"]),
    "a wrong shape": (FLOAT32, [13], bytes(52), "shape", ["[13]", "expected [3, 4]"]),
    "a negative dimension": (FLOAT32, [-3, -4], floats(), "shape", ["[-3, -4]"]),
    "a huge dimension": (FLOAT32, [2**62, 2**62], b"", "shape", ["expected [3, 4]"]),
    "too many dimensions": (FLOAT32, [1] * 9, b"", "shape", ["not a shape"]),
    "no dtype": (0, [12], floats(), "dtype", ["dtype 0", "DATA_TYPE_UINT8"]),
    "an unknown dtype": (7, [12], floats(), "dtype", ["dtype 7", "DATA_TYPE_FLOAT32"]),
    "NaN": (FLOAT32, [12], floats((3, np.nan)), "data", ["nan", "at 3", "finite"]),
    "infinity": (FLOAT32, [12], floats((0, np.inf)), "data", ["inf", "at 0"]),
    "a negative value": (FLOAT32, [12], floats((11, -0.1)), "data", ["-0.1", "from 0 to 1"]),
    "a value above 1": (FLOAT32, [12], floats((5, 255)), "data", ["255", "uint8"]),
    "a pixel above the maximum": (UINT8, [12], bytes([17] * 12), "data", ["17", "0 to 16"]),
}


@pytest.mark.parametrize("case", WRONG_INSTANCES)
def test_a_wrong_instance_is_refused_by_field(
    case: str, publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    dtype, shape, data, field, parts = WRONG_INSTANCES[case]
    publish()
    stubs = serve()
    eventually(stubs.serving)
    tensor = prediction_pb2.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]
    request = prediction_pb2.PredictRequest(instance=tensor)
    refused = refusal(stubs.prediction.Predict, request)
    assert (refused.code, refused.fields) == (INVALID, [f"instance.{field}"])
    assert (refused.info.reason, refused.info.domain) == ("INVALID_INPUT", "mlpserve")
    assert all(part in refused.message for part in parts), refused.message


@pytest.mark.parametrize(
    ("shape", "rows", "parts"),
    [
        ([0, 12], 0, ["empty batch", "at least 1"]),
        ([12], 1, ["[12]", "[n, 3, 4]"]),
        ([2, 13], 2, ["[2, 13]", "[n, 3, 4]"]),
        ([11, 3, 4], 11, ["11 instances", "at most 10"]),
    ],
)
def test_a_wrong_batch_is_refused(
    shape: list[int],
    rows: int,
    parts: list[str],
    publish: Publish,
    serve: Serve,
    refusal: Refuse,
) -> None:
    publish()
    stubs = serve(max_batch=10)
    eventually(stubs.serving)
    tensor = prediction_pb2.Tensor(dtype=UINT8, shape=shape, data=bytes(rows * 12))
    request = prediction_pb2.BatchPredictRequest(instances=tensor)
    refused = refusal(stubs.prediction.BatchPredict, request)
    assert (refused.code, refused.fields) == (INVALID, ["instances.shape"])
    assert all(part in refused.message for part in parts), refused.message


def test_a_batch_too_large_says_what_fits(publish: Publish, serve: Serve, refusal: Refuse) -> None:
    publish()
    stubs = serve(max_batch=10)
    eventually(stubs.serving)
    tensor = prediction_pb2.Tensor(dtype=UINT8, shape=[11, 12], data=bytes(132))
    request = prediction_pb2.BatchPredictRequest(instances=tensor)
    info = refusal(stubs.prediction.BatchPredict, request).info
    assert (info.reason, info.metadata["max_batch"]) == ("BATCH_TOO_LARGE", "10")


def test_a_wrong_value_in_a_batch_is_named_by_row_and_position(
    publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    data = floats() + floats((4, 2.0))
    tensor = prediction_pb2.Tensor(dtype=FLOAT32, shape=[2, 12], data=data)
    request = prediction_pb2.BatchPredictRequest(instances=tensor)
    assert "2.0 in row 1 at 4" in refusal(stubs.prediction.BatchPredict, request).message


@pytest.mark.parametrize(
    ("selector", "code", "reason"),
    [
        ({"version": 99}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ({"alias": "nobody"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ({"alias": "../../etc"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ({"version": 0}, INVALID, "INVALID_INPUT"),
        ({"version": -1}, INVALID, "INVALID_INPUT"),
    ],
)
def test_an_unknown_model_is_refused(
    selector: dict[str, Any],
    code: grpc.StatusCode,
    reason: str,
    publish: Publish,
    serve: Serve,
    refusal: Refuse,
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    request = prediction_pb2.PredictRequest(model=model_pb2.ModelSelector(**selector))
    refused = refusal(stubs.prediction.Predict, request)
    assert (refused.code, refused.info.reason) == (code, reason)


def test_bytes_that_are_no_message_are_refused(
    publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    call: Any = stubs.channel.unary_unary("/mlpserve.v1.PredictionService/Predict")
    refused = refusal(call, b"\xff\xff\xff")
    assert refused.code == INVALID
    assert "mlpserve.v1.PredictRequest" in refused.message


def test_a_request_above_the_message_limit_is_refused_by_grpc(
    publish: Publish, serve: Serve
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    call: Any = stubs.channel.unary_unary("/mlpserve.v1.PredictionService/Predict")
    with pytest.raises(grpc.RpcError) as caught:
        call(bytes((64 << 20) + 1))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_unknown_method_is_unimplemented(serve: Serve) -> None:
    call: Any = serve().channel.unary_unary("/mlpserve.v1.PredictionService/Train")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_fault_of_ours_tells_an_id_and_nothing_else(
    publish: Publish,
    serve: Serve,
    refusal: Refuse,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the secret is in /etc/secret.py")

    publish()
    stubs = serve()
    eventually(stubs.serving)
    patch_method(monkeypatch, stubs.served, "predict", broken)
    tensor = prediction_pb2.Tensor(dtype=FLOAT32, shape=[12], data=floats())
    request = prediction_pb2.PredictRequest(instance=tensor)
    refused = refusal(stubs.prediction.Predict, request)
    assert refused.code == grpc.StatusCode.INTERNAL
    assert "secret" not in refused.message
    request_id = refused.info.metadata["request_id"]
    assert request_id in refused.message
    assert any(getattr(r, "request_id", None) == request_id for r in caplog.records)


TOO_BRIGHT = prediction_pb2.Tensor(dtype=FLOAT32, shape=[12], data=floats((1, 2.0)))
TOO_SHORT = prediction_pb2.Tensor(dtype=FLOAT32, shape=[12], data=floats()[1:])
nearly_right = st.builds(
    prediction_pb2.Tensor,
    dtype=st.just(FLOAT32),
    shape=st.sampled_from([[12], [3, 4], [1, 12]]),
    data=st.sampled_from([floats(), TOO_BRIGHT.data, TOO_SHORT.data]),
)
anything = st.builds(
    prediction_pb2.Tensor,
    dtype=st.integers(0, 3),
    shape=st.lists(
        st.one_of(st.sampled_from([0, 1, 3, 4, 12, -1]), st.integers(-(2**63), 2**63 - 1)),
        max_size=10,
    ),
    data=st.one_of(
        st.binary(max_size=64),
        st.sampled_from([floats(), bytes(12), bytes(48), b"\xff" * 48, b"\x10" * 12]),
    ),
)
selectors = st.one_of(
    st.none(),
    st.builds(model_pb2.ModelSelector, version=st.integers(-(2**63), 2**63 - 1)),
    st.builds(model_pb2.ModelSelector, alias=st.text(max_size=100)),
)
ALLOWED = {grpc.StatusCode.OK, INVALID, grpc.StatusCode.NOT_FOUND}


def in_range(tensor: Any) -> bool:
    """Whether a model of twelve pixels up to 16 can take these values."""
    if tensor.dtype == UINT8:
        values, maximum = np.frombuffer(tensor.data, np.uint8), 16
    else:
        values, maximum = np.frombuffer(tensor.data, "<f4"), 1
    return len(values) % 12 == 0 and bool(((values >= 0) & (values <= maximum)).all())


@pytest.mark.parametrize("examples", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_request_whatever_is_answered_with_a_fault(
    examples: int, publish: Publish, serve: Serve
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    seen = set()

    @settings(
        max_examples=examples,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    # What tests/faults/test_twins.py breaks is noticed whatever else is drawn.
    @example(tensor=TOO_BRIGHT, selector=None, single=True)
    @example(tensor=TOO_SHORT, selector=None, single=True)
    @given(tensor=nearly_right | anything, selector=selectors, single=st.booleans())
    def attack(tensor: Any, selector: Any, single: bool) -> None:
        if single:
            call: Any = stubs.prediction.Predict
            request: Any = prediction_pb2.PredictRequest(instance=tensor, model=selector)
        else:
            call = stubs.prediction.BatchPredict
            request = prediction_pb2.BatchPredictRequest(instances=tensor, model=selector)
        answer = call.future(request, timeout=10)
        seen.add(answer.code())
        assert answer.code() in ALLOWED, (answer.code(), answer.details())
        if answer.code() == INVALID:
            assert Refusal(answer).fields != [], answer.details()
        assert answer.code() != grpc.StatusCode.OK or in_range(tensor), "answered out of range"

    attack()
    assert seen == ALLOWED  # the attack reached good answers and both kinds of refusal


def test_a_single_request_larger_than_any_model_takes_is_not_looked_into(
    publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    tensor = prediction_pb2.Tensor(dtype=UINT8, shape=[12], data=bytes(2 << 20))
    request = prediction_pb2.PredictRequest(instance=tensor)
    refused = refusal(stubs.prediction.Predict, request)
    assert (refused.code, refused.fields) == (INVALID, ["instance"])
    assert f"{request.ByteSize()} bytes, expected at most {1 << 20}" in refused.message


def test_the_largest_single_request_follows_the_model(publish: Publish, serve: Serve) -> None:
    inputs = 1 << 19  # two MiB of float32
    names = ("no", "yes")
    publish(network=Network((inputs, 1, 2)), signature=Signature((inputs,), 1, names))
    stubs = serve()
    eventually(stubs.serving)
    tensor = prediction_pb2.Tensor(dtype=FLOAT32, shape=[inputs], data=bytes(4 * inputs))
    request = prediction_pb2.PredictRequest(instance=tensor)
    assert stubs.prediction.Predict(request, timeout=20).model.version == 1
