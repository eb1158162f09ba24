"""What the codecs share."""

from typing import Any

import pytest

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.dataplane.codec import BatchCodec, SingleCodec
from mlpserve_server.dataplane.explanations import ExplainCodec
from mlpserve_server.dataplane.oip_codec import InferCodec

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
