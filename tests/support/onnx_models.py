"""ONNX models made node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["model", "node", "save"]


def node(operator: str, inputs: str, output: str, domain: str = "", **attributes: Any) -> Any:
    """Return a node; `inputs` and `output` are names with spaces between them."""
    return helper.make_node(
        operator,
        inputs.split(),
        output.split(),
        name=f"the_{output.split()[0]}",
        domain=domain,
        **attributes,
    )


def model(
    nodes: Sequence[Any],
    constants: Mapping[str, NDArray[Any]],
    shape: Sequence[int | str | None] = ("rows", 4),
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> Any:
    """Return a model of one input x and some outputs."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def save(made: Any, path: Path) -> Path:
    """Write a model as it is, without the checks of onnx.save."""
    path.write_bytes(made.SerializeToString())
    return path
