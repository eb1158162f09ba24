"""A version as an ONNX model of standard operators, which old runtimes know too."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mlpserve_model.format.version_files import StoredModel
from mlpserve_model.interchange.metadata import describe

__all__ = ["export_onnx"]

_OPSET, _IR_VERSION = 13, 7  # of 2020; nothing here needs a newer one
_INPUT, _PROBABILITIES, _VALUES = "input", "probabilities", "values"
_SCALARS = {"half": 0.5, "one": 1.0, "inverse_root_2": 1 / math.sqrt(2)}

Nodes = list[Any]


def export_onnx(model: StoredModel) -> bytes:
    """Return an ONNX model that takes float32 `input` and gives `probabilities`.

    The input is (rows, *shape) in the scale of the network: pixels from 0 to 1. With `identity` as
    output activation, the output is called `values`. Class names and provenance are its metadata.
    """
    manifest = model.manifest
    network, signature = manifest.network, manifest.signature
    name = _VALUES if network.output_activation == "identity" else _PROBABILITIES
    constants = {
        f"{part}{i}": array.astype(np.float32)
        for i, layer in enumerate(model.weights, 1)
        for part, array in (("w", layer.w), ("b", layer.b))
    }
    if "gelu" in network.activations:
        constants |= {key: np.array(value, np.float32) for key, value in _SCALARS.items()}
    shape = ["rows", *signature.input_shape]
    graph = helper.make_graph(
        _nodes(network.activations, name),
        manifest.model,
        [helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", network.classes])],
        [numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="mlpserve",
        producer_version=manifest.libraries.get("mlpserve", ""),
        model_version=manifest.version,
    )
    helper.set_model_props(made, describe(manifest))
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def _nodes(activations: tuple[str, ...], output: str) -> Nodes:
    nodes = [helper.make_node("Flatten", [_INPUT], ["a0"], name="flatten", axis=1)]
    for i, activation in enumerate(activations, 1):
        z, a = f"z{i}", output if i == len(activations) else f"a{i}"
        inputs = [f"a{i - 1}", f"w{i}", f"b{i}"]
        nodes.append(helper.make_node("Gemm", inputs, [z], name=f"layer{i}"))
        nodes += _ACTIVATIONS[activation](z, a)
    return nodes


def _operator(name: str, **attributes: Any) -> Callable[[str, str], Nodes]:
    return lambda z, a: [helper.make_node(name, [z], [a], name=f"{name}_{z}", **attributes)]


def _silu(z: str, a: str) -> Nodes:
    s = f"sigmoid_{z}"
    return [helper.make_node("Sigmoid", [z], [s], name=s), _two("Mul", z, s, a)]


def _gelu(z: str, a: str) -> Nodes:
    """Return z (1 + erf(z / √2)) / 2; the operator Gelu is of 2023."""
    x, e, f, g = (f"{part}_{z}" for part in ("scaled", "erf", "twice_cdf", "twice"))
    return [
        _two("Mul", z, "inverse_root_2", x),
        helper.make_node("Erf", [x], [e], name=e),
        _two("Add", e, "one", f),
        _two("Mul", z, f, g),
        _two("Mul", g, "half", a),
    ]


def _two(operator: str, left: str, right: str, output: str) -> Any:
    return helper.make_node(operator, [left, right], [output], name=f"{operator}_{output}")


_ACTIVATIONS: dict[str, Callable[[str, str], Nodes]] = {
    "relu": _operator("Relu"),
    "sigmoid": _operator("Sigmoid"),
    "tanh": _operator("Tanh"),
    "identity": _operator("Identity"),
    "leaky_relu": _operator("LeakyRelu", alpha=0.01),
    "elu": _operator("Elu", alpha=1.0),
    "gelu": _gelu,
    "silu": _silu,
    "softmax": _operator("Softmax", axis=1),
}
