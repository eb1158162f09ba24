"""Triton's own client, unmodified, against a server: `triton_user.py ADDRESS PART`, JSON out.

Run by test_tritonclient.py in an environment that has nothing of ours.
"""

import asyncio
import json
import queue
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

SHAPE = (3, 4)
X = np.random.default_rng(4).random((5, *SHAPE), np.float32)
PIXELS = np.random.default_rng(5).integers(0, 17, (5, *SHAPE), np.uint8)
MANY = np.random.default_rng(6).random((1500, *SHAPE), np.float32)


def given(x: NDArray[np.float32], name: str = "instances", datatype: str = "") -> InferInput:
    datatype = datatype or {"float32": "FP32", "uint8": "UINT8", "float64": "FP64"}[x.dtype.name]
    tensor = InferInput(name, x.shape, datatype)
    tensor.set_data_from_numpy(x)
    return tensor


def told(result: Any) -> dict[str, Any]:
    """What a result holds, as its user sees it."""
    response = result.get_response()
    arrays = {output.name: result.as_numpy(output.name) for output in response.outputs}
    return {
        "model": response.model_name,
        "version": response.model_version,
        "id": response.id,
        "dtypes": {name: array.dtype.name for name, array in arrays.items()},
        "arrays": {name: array.tolist() for name, array in arrays.items()},
    }


def refused(call: Callable[[], Any]) -> list[str]:
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["nothing", ""]


CALLS: dict[str, dict[str, Any]] = {
    "floats": {"inputs": [given(X)]},
    "pixels": {"inputs": [given(PIXELS)]},
    "one": {"inputs": [given(X[:1])], "request_id": "7"},
    "many": {"inputs": [given(MANY)]},
    "labels": {"inputs": [given(X)], "outputs": [InferRequestedOutput("labels")]},
    "version": {"inputs": [given(X)], "model_version": "2"},
    "alias": {"inputs": [given(X)], "model_version": "champion"},
}
WRONG: dict[str, dict[str, Any]] = {
    "version": {"inputs": [given(X)], "model_version": "99"},
    "shape": {"inputs": [given(X[:, :2])]},
    "range": {"inputs": [given(X + 3)]},
    "datatype": {"inputs": [given(X.astype(np.float64))]},
    "input": {"inputs": [given(X, "images")]},
    "output": {"inputs": [given(X)], "outputs": [InferRequestedOutput("logits")]},
    "classification": {
        "inputs": [given(X)],
        "outputs": [InferRequestedOutput("probabilities", class_count=2)],
    },
}


def facts(address: str) -> list[dict[str, Any]]:
    """What the server says of itself, to the blocking client and to the other."""
    with tritonclient.grpc.InferenceServerClient(address) as client:
        blocking = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": client.is_model_ready("mnist"),
            "other ready": client.is_model_ready("cifar"),
            "server": client.get_server_metadata(as_json=True),
            "model": client.get_model_metadata("mnist", as_json=True),
            "config": client.get_model_config("mnist", as_json=True),
            "index": client.get_model_repository_index(as_json=True),
        }

    async def facts() -> dict[str, Any]:
        async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
            return {
                "live": await client.is_server_live(),
                "ready": await client.is_server_ready(),
                "model ready": await client.is_model_ready("mnist"),
                "other ready": await client.is_model_ready("cifar"),
                "server": await client.get_server_metadata(as_json=True),
                "model": await client.get_model_metadata("mnist", as_json=True),
                "config": await client.get_model_config("mnist", as_json=True),
                "index": await client.get_model_repository_index(as_json=True),
            }

    return [blocking, asyncio.run(facts())]


def blocking(address: str) -> dict[str, Any]:
    with tritonclient.grpc.InferenceServerClient(address) as client:
        return {name: told(client.infer("mnist", **call)) for name, call in CALLS.items()}


def callbacks(address: str) -> dict[str, Any]:
    with tritonclient.grpc.InferenceServerClient(address) as client:
        answers = {}
        for name, call in CALLS.items():
            answers[name] = queue.SimpleQueue[Any]()
            client.async_infer("mnist", callback=heard_by(answers[name]), **call)
        return {name: told(answer.get(timeout=20)) for name, answer in answers.items()}


def heard_by(answers: "queue.SimpleQueue[Any]") -> Callable[[Any, Any], None]:
    return lambda result, error: answers.put(error or result)


def asynchronous(address: str) -> dict[str, Any]:
    async def ask() -> list[Any]:
        async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
            return await asyncio.gather(*(client.infer("mnist", **call) for call in CALLS.values()))

    return dict(zip(CALLS, map(told, asyncio.run(ask())), strict=True))


def refusals(address: str) -> dict[str, list[str]]:
    with tritonclient.grpc.InferenceServerClient(address) as client:
        codes = {"model": refused(lambda: client.infer("cifar", [given(X)]))}
        for name, call in WRONG.items():
            codes[name] = refused(partial(client.infer, "mnist", **call))
        return codes


def extensions(address: str) -> dict[str, list[str]]:
    """What its other methods, which are Triton's alone, get."""
    with tritonclient.grpc.InferenceServerClient(address) as client:
        calls: dict[str, Callable[[], Any]] = {
            "ModelStatistics": lambda: client.get_inference_statistics("mnist"),
            "RepositoryModelLoad": lambda: client.load_model("mnist"),
            "RepositoryModelUnload": lambda: client.unload_model("mnist"),
            "SystemSharedMemoryStatus": client.get_system_shared_memory_status,
            "SystemSharedMemoryRegister": lambda: client.register_system_shared_memory("a", "b", 1),
            "SystemSharedMemoryUnregister": client.unregister_system_shared_memory,
            "CudaSharedMemoryStatus": client.get_cuda_shared_memory_status,
            "CudaSharedMemoryRegister": lambda: client.register_cuda_shared_memory("a", b"", 0, 1),
            "CudaSharedMemoryUnregister": client.unregister_cuda_shared_memory,
            "TraceSetting": client.get_trace_settings,
            "LogSettings": client.get_log_settings,
        }
        return {name: refused(call) for name, call in calls.items()}


def fields(descriptor: Any) -> Iterator[tuple[str, str]]:
    """Every field of the protocol as Triton has it, nested messages too."""
    for field in descriptor.fields:
        kind = field.message_type.full_name if field.message_type else ""
        repeated = field.label == field.LABEL_REPEATED
        yield field.full_name, f"{field.number} {field.type} {repeated} {kind}"
    for nested in descriptor.nested_types:
        yield from fields(nested)


def contract(_: str) -> dict[str, str]:
    files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    messages = [message for file in files for message in file.message_types_by_name.values()]
    return dict(pair for message in messages for pair in fields(message))


def methods(_: str) -> list[str]:
    """Every method of the service as Triton has it."""
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    return [method.name for method in service.methods]


PARTS = (facts, blocking, callbacks, asynchronous, refusals, extensions, contract, methods)

if __name__ == "__main__":
    _, address, wanted = sys.argv
    print(json.dumps(next(part for part in PARTS if part.__name__ == wanted)(address)))
