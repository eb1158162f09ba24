"""What the codecs share."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.dataplane.codec import BatchCodec, SingleCodec
from mlpserve_server.dataplane.explanations import ExplainCodec
from mlpserve_server.dataplane.oip_codec import InferCodec
from mlpserve_server.errors import InvalidInput
from tests.support.encoding import field

ARRAY = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[1, 3], data=bytes(3))
INPUT = inference_pb2.ModelInferRequest.InferInputTensor(
    name="instances", datatype="UINT8", shape=[1, 3]
)


@pytest.mark.parametrize(
    ("codec", "request_"),
    [
        (SingleCodec(), pb.PredictRequest(instance=ARRAY)),
        (BatchCodec(), pb.BatchPredictRequest(instances=ARRAY)),
        (ExplainCodec(), explanation_pb2.ExplainRequest(instances=ARRAY)),
        (
            InferCodec(),
            inference_pb2.ModelInferRequest(inputs=[INPUT], raw_input_contents=[bytes(3)]),
        ),
    ],
)
def test_a_query_does_not_keep_the_message_with_a_second_copy_of_the_values(
    codec: Any, request_: Any
) -> None:
    query = codec.decode(request_.SerializeToString())
    assert type(query.data) is bytes
    # A field of a message keeps all of the message in memory.
    assert type(query.shape) is tuple
    assert query.shape == (1, 3)


@given(st.lists(st.integers(0, 255), max_size=40), st.booleans())
def test_pixels_written_as_integers_are_read_as_they_are(values: list[int], others: bool) -> None:
    contents = inference_pb2.InferTensorContents(
        uint_contents=values, fp32_contents=[0.5] if others else [], int_contents=[7] * others
    )
    unknown = field(99, b"\1\2\3") if others else b""
    assert InferCodec().decode(
        typed("UINT8", contents.SerializeToString() + unknown)
    ).data == bytes(values)


@given(st.lists(st.integers(0, 255), max_size=9), st.integers(256, 2**32 - 1))
def test_an_integer_that_is_no_pixel_is_refused_by_its_value(before: list[int], wrong: int) -> None:
    contents = inference_pb2.InferTensorContents(uint_contents=[*before, wrong, 3])
    with pytest.raises(InvalidInput, match=f"a value of {wrong}, expected UINT8"):
        InferCodec().decode(typed("UINT8", contents.SerializeToString()))


@given(st.lists(st.floats(width=32), max_size=40))
def test_floats_written_one_by_one_are_read_as_they_are(values: list[float]) -> None:
    contents = inference_pb2.InferTensorContents(fp32_contents=values, uint_contents=[300])
    query = InferCodec().decode(typed("FP32", contents.SerializeToString()))
    assert query.data == np.array(values, "<f4").tobytes()


def typed(datatype: str, contents: bytes) -> bytes:
    """A ModelInferRequest with these contents, encoded."""
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(
        name="instances", datatype=datatype, shape=[1, 3]
    )
    request = inference_pb2.ModelInferRequest(model_name="a").SerializeToString()
    return request + field(5, tensor.SerializeToString() + field(5, contents))
