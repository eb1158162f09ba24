"""From an ONNX graph to a chain of layers.

The graph is walked once, in its order, and each tensor becomes a constant, rows that the network
computes, labels, or unknown with the reason. What is unknown matters only if the output needs it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.manifest import MAX_PARAMETERS
from mlpserve_model.interchange.folding import Scale
from mlpserve_model.interchange.onnx_file import array_of
from mlpserve_model.interchange.onnx_operators import evaluate
from mlpserve_model.interchange.onnx_values import (
    Budget,
    Labels,
    Node,
    Rows,
    SeveralLabels,
    Unknown,
    Value,
)
from mlpserve_model.process.tables import plain

__all__ = ["GraphInput", "Reading", "read_graph"]

_DOMAINS = {"": "", "ai.onnx": "", "ai.onnx.ml": "ai.onnx.ml"}  # the first two are one
# The types of inputs, as onnxruntime takes them.
_INPUT_TYPES: dict[int, Any] = {
    TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.UINT8: np.uint8,
    TensorProto.FLOAT16: np.float16, TensorProto.INT64: np.int64, TensorProto.INT32: np.int32,
    TensorProto.INT16: np.int16, TensorProto.INT8: np.int8, TensorProto.UINT64: np.uint64,
    TensorProto.UINT32: np.uint32, TensorProto.UINT16: np.uint16, TensorProto.BOOL: np.bool_,
}  # fmt: skip
_PIXELS = 255.0
# Weights are cast, transposed and reshaped on their way; a small graph may compute small shapes.
_COPIES, _FREE = 8, 2**16


@dataclass(frozen=True)
class GraphInput:
    """The graph's input: name, type, the shape of one row, and the number of rows, 0 for any."""

    name: str
    dtype: Any
    shape: tuple[int, ...]
    batch: int

    @property
    def is_bytes(self) -> bool:
        """Return True if the graph takes raw pixels."""
        return bool(self.dtype is np.uint8)


@dataclass(frozen=True)
class Reading:
    """What a graph computes: the rows of its output, from its input, and how precisely."""

    input: GraphInput
    rows: Rows
    is_half: bool


def read_graph(model: Any, input_shape: Sequence[int] = (), output: str | None = None) -> Reading:
    """Read a ModelProto as a chain of layers.

    Args:
        model: The model.
        input_shape: The shape of one row, where the model leaves it open.
        output: The name of the output to import, if several could be meant.

    Raises:
        UnsupportedModel: It is not a chain of supported layers; the message names the node.

    """
    graph = model.graph
    given = _input(graph, tuple(input_shape))
    steps = (Scale(np.full(1, _PIXELS), np.zeros(1)),)
    start = Rows(steps if given.is_bytes else (), given.shape)
    values: dict[str, Value] = {tensor.name: array_of(tensor) for tensor in graph.initializer}
    for name in (tensor.values.name for tensor in graph.sparse_initializer):
        values[name] = Unknown(f"tensor {plain(name)[:100]} is sparse, expected dense")
    values[given.name] = start
    versions = {_DOMAINS.get(opset.domain): opset.version for opset in model.opset_import}
    held = sum(value.size for value in values.values() if isinstance(value, np.ndarray))
    budget = Budget(_COPIES * held + _FREE)
    walk = _Walk(values, versions, given.batch, budget)
    for proto in graph.node:
        walk.visit(proto)
    names = [value.name for value in graph.output]
    return Reading(given, _output(names, values, output), _is_half(given, graph))


def _is_half(given: GraphInput, graph: Any) -> bool:
    """Return True if the graph computes in float16, all of it or a part."""
    casts = (node.attribute for node in graph.node if node.op_type == "Cast")
    return given.dtype is np.float16 or any(
        attribute.name == "to" and attribute.i == TensorProto.FLOAT16
        for attributes in casts
        for attribute in attributes
    )


def _input(graph: Any, wanted: tuple[int, ...]) -> GraphInput:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        found = ", ".join(plain(value.name)[:50] for value in inputs[:10]) or "none"
        raise UnsupportedModel(f"expected one input, found {len(inputs)}: {found}")
    kind = inputs[0].type.tensor_type
    dtype = _INPUT_TYPES.get(kind.elem_type)
    if dtype is None:
        raise UnsupportedModel(
            f"the input is {_type_name(inputs[0].type)}, expected a tensor of integers, bool, "
            "float16, float32 or float64"
        )
    dimensions = kind.shape.dim
    batch, *sizes = [dimension.dim_value for dimension in dimensions] or [0]
    if wanted:
        if sizes and (len(sizes) != len(wanted) or _differ(sizes, wanted)):
            # The same values in another shape: 784 for (1, 28, 28).
            if 0 in sizes or np.prod(sizes) != np.prod(wanted):
                raise UnsupportedModel(
                    f"the input has the shape {tuple(sizes)}, and --input-shape says {wanted}"
                )
        else:
            sizes = list(wanted)
    if not sizes or min(sizes) < 1:
        raise UnsupportedModel(
            "the shape of one input is not in the file: say it with --input-shape, such as 1,28,28"
        )
    if math.prod(sizes) > MAX_PARAMETERS:
        raise UnsupportedModel(f"the input has the shape {tuple(sizes)}, which no version takes")
    return GraphInput(inputs[0].name, dtype, tuple(sizes), max(batch, 0))


def _type_name(kind: Any) -> str:
    """Return how ONNX calls the type of an input."""
    if not kind.HasField("tensor_type"):
        return (kind.WhichOneof("value") or "of no type").removesuffix("_type")
    number = kind.tensor_type.elem_type
    known = number in TensorProto.DataType.values()
    return f"a tensor of {TensorProto.DataType.Name(number).lower() if known else number}"


def _differ(sizes: list[int], wanted: tuple[int, ...]) -> bool:
    return any(size not in (0, other) for size, other in zip(sizes, wanted, strict=True))


@dataclass(frozen=True)
class _Walk:
    """Takes the nodes of a graph in their order.

    Attributes:
        values: What each tensor is, by its name.
        versions: Of the operator sets, by their domains.
        batch: The number of rows that the graph is made for; 0 for any.
        budget: Of its constants.

    """

    values: dict[str, Value]
    versions: dict[str | None, int]
    batch: int
    budget: Budget

    def visit(self, proto: Any) -> None:
        """Add what a node makes to the values."""
        name = plain(proto.name or next(filter(None, proto.output), ""))
        shown = f"node {name[:100]} ({plain(proto.op_type)[:50]})"
        others = Unknown(f"{shown}: only its first output is supported")
        self.values.update({output: others for output in proto.output[1:] if output})
        if not proto.output or not proto.output[0]:
            return
        try:
            found = self._made(proto, shown)
        except UnsupportedModel as error:
            text = str(error)
            found = Unknown(text if text.startswith("node ") else f"{shown}: {text}")
        # What inputs that do not fit an operator raise, in NumPy and here.
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            found = Unknown(f"{shown}: its inputs or attributes do not fit ({error})")
        self.values[proto.output[0]] = found

    def _made(self, proto: Any, shown: str) -> Value:
        inputs: list[Value | None] = []
        for name in proto.input:
            if name and name not in self.values:
                raise UnsupportedModel(
                    f"{shown} takes {plain(name)[:100]}, which no node before it makes: "
                    "the graph has a cycle, or is not in order"
                )
            value = self.values.get(name)
            if isinstance(value, Unknown):
                return value
            inputs.append(value)
        if proto.domain not in _DOMAINS:
            raise UnsupportedModel(f"it is of the domain {plain(proto.domain)[:50]}, not of ONNX")
        attributes = {attribute.name: _attribute(attribute) for attribute in proto.attribute}
        version = self.versions.get(_DOMAINS[proto.domain], 1)
        node = Node(proto.op_type, attributes, version, self.batch, self.budget)
        found = evaluate(node, inputs)
        if isinstance(found, Rows):
            tensor = found.tensor if proto.op_type == "ZipMap" else proto.output[0]
            return replace(found, maker=shown, tensor=tensor)
        return found


def _attribute(attribute: Any) -> Any:
    if attribute.type == attribute.TENSOR:
        return array_of(attribute.t)
    return helper.get_attribute_value(attribute)


def _output(names: list[str], values: dict[str, Value], wanted: str | None) -> Rows:
    """Return the rows of the output that is meant, with the class names that any output tells."""
    if wanted is not None and wanted not in values:
        raise UnsupportedModel(f"there is no output {wanted}: the outputs are {', '.join(names)}")
    found = [values.get(name, Unknown(f"nothing makes the output {plain(name)}"))
             for name in ([wanted] if wanted is not None else names)]  # fmt: skip
    labels = [value for value in found if isinstance(value, Labels)]
    rows = [value.settled for value in found if isinstance(value, Rows)]
    if several := next((value for value in found if isinstance(value, SeveralLabels)), None):
        raise UnsupportedModel(several.reason)
    candidates = {row.steps: row for row in rows or [label.rows.settled for label in labels]}
    if not candidates:
        reasons = [value.reason for value in found if isinstance(value, Unknown)]
        raise UnsupportedModel(reasons[0] if reasons else "the output does not depend on the input")
    if len(candidates) > 1:
        raise UnsupportedModel(
            f"the outputs {', '.join(map(plain, names))} differ: say which with --output-name"
        )
    row = next(iter(candidates.values()))
    class_names = next((label.names for label in labels if label.names), ())
    return replace(row, class_names=row.class_names or class_names)
