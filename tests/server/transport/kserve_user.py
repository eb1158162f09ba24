"""KServe's SDK and MLServer's codecs, unmodified, with their defaults: kserve_user.py ADDRESS NAME.

Run by test_kserve.py in an environment that has nothing of ours; prints JSON. One library a run:
each registers the messages of the protocol under the same names.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import numpy as np

X = np.random.default_rng(4).random((5, 3, 4), np.float32)


async def by_kserve(address: str) -> dict[str, Any]:
    """What KServe's client is answered, for raw and for typed values."""
    from kserve import InferInput, InferRequest, InferResponse
    from kserve.inference_client import InferenceGRPCClient

    client = InferenceGRPCClient(address)
    answers: dict[str, Any] = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model ready": await client.is_model_ready("mnist"),
    }
    for binary in (True, False):
        tensor = InferInput("instances", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X, binary_data=binary)
        response = await client.infer(InferRequest("mnist", [tensor]))
        assert isinstance(response, InferResponse)
        answers[f"binary {binary}"] = {o.name: o.as_numpy().tolist() for o in response.outputs}
    await client.close()
    return answers


def by_mlserver(address: str) -> dict[str, Any]:
    """What a request made by MLServer's codecs is answered, as raw and as typed values."""
    from mlserver.codecs import NumpyCodec, NumpyRequestCodec
    from mlserver.grpc import dataplane_pb2_grpc
    from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
    from mlserver.types import InferenceRequest

    answers: dict[str, Any] = {}
    for raw in (True, False):
        encoded = InferenceRequest(inputs=[NumpyCodec.encode_input("instances", X)])
        request = ModelInferRequestConverter.from_types(encoded, "mnist", use_raw=raw)
        with grpc.insecure_channel(address) as channel:
            stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
            response = ModelInferResponseConverter.to_types(stub.ModelInfer(request, timeout=10))
        answers[f"raw {raw}"] = {
            output.name: NumpyCodec.decode_output(output).tolist() for output in response.outputs
        }
    whole = NumpyRequestCodec.encode_request(X)
    whole.inputs[0].name = "instances"
    request = ModelInferRequestConverter.from_types(whole, "mnist")
    with grpc.insecure_channel(address) as channel:
        stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers["request codec"] = len(stub.ModelInfer(request, timeout=10).outputs)
    return answers


address, library = sys.argv[1:]
print(json.dumps(asyncio.run(by_kserve(address)) if library == "kserve" else by_mlserver(address)))
