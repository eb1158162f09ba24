"""Foreign REST clients, unmodified: `rest_user.py URL triton|kserve`; prints JSON.

Run by test_rest_clients.py in an environment that has nothing of ours.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np

DATATYPES = {"float32": "FP32", "uint8": "UINT8"}
OUTPUTS = ("labels", "probabilities")
X = np.random.default_rng(4).random((5, 3, 4), np.float32)
PIXELS = np.random.default_rng(5).integers(0, 256, (5, 3, 4), np.uint8)


def by_triton(url: str) -> dict[str, Any]:
    """What Triton's client is answered, for JSON and for binary data, in and out."""
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    answers: dict[str, Any] = {}
    with InferenceServerClient(url.removeprefix("http://")) as client:
        answers["health"] = [
            client.is_server_live(),
            client.is_server_ready(),
            client.is_model_ready("mnist"),
            client.is_model_ready("mnist", "1"),
            client.is_model_ready("letters"),
        ]
        answers["server"] = client.get_server_metadata()["name"]
        answers["model"] = client.get_model_metadata("mnist")["inputs"]
        for binary in (True, False):
            for rows in (X, PIXELS):
                tensor = InferInput(
                    "instances", rows.shape, {"float32": "FP32", "uint8": "UINT8"}[rows.dtype.name]
                )
                tensor.set_data_from_numpy(rows, binary_data=binary)
                wanted = [
                    InferRequestedOutput(name, binary_data=binary)
                    for name in ("labels", "probabilities")
                ]
                result = client.infer("mnist", [tensor], outputs=wanted, request_id="mine")
                assert result.get_response()["id"] == "mine"
                answers[f"{rows.dtype.name}, binary {binary}"] = arrays(result)
        tensor = InferInput("instances", X.shape, "FP32")
        tensor.set_data_from_numpy(X)
        answers["float32, no outputs named"] = arrays(client.infer("mnist", [tensor]))
    return answers


def arrays(result: Any) -> dict[str, Any]:
    return {name: result.as_numpy(name).tolist() for name in OUTPUTS}


async def by_kserve(url: str) -> dict[str, Any]:
    """What KServe's client is answered, with the defaults of its methods."""
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    answers: dict[str, Any] = {
        "health": [
            await client.is_server_live(url),
            await client.is_server_ready(url),
            await client.is_model_ready(url, "mnist"),
        ]
    }
    for binary in (True, False):
        tensor = InferInput("instances", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X, binary_data=binary)
        response = await client.infer(url, InferRequest("mnist", [tensor]), model_name="mnist")
        answers[f"float32, binary {binary}"] = {
            o.name: o.as_numpy().tolist() for o in response.outputs
        }
    await client.close()
    return answers


url, library = sys.argv[1:]
print(json.dumps(by_triton(url) if library == "triton" else asyncio.run(by_kserve(url))))
