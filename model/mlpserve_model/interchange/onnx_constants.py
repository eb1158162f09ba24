"""Operators on constants: exporters compute transposed weights and shapes in the graph."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.interchange.onnx_curves import ELEMENTWISE, compute
from mlpserve_model.interchange.onnx_layout import axes_of
from mlpserve_model.interchange.onnx_values import Constant, Node, Value

__all__ = ["CONSTANT_OPERATORS", "constant"]

_MAX_DIMENSIONS = 16
# onnx.TensorProto's numbers of the types that weights and shapes have.
_TYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64,
}  # fmt: skip


def constant(node: Node, values: Sequence[Value | None]) -> Constant:
    """Return what an operator makes of constants alone; raises UnsupportedModel."""
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    run: Callable[..., Any]
    if node.operator in ELEMENTWISE:
        size = np.prod(np.broadcast_shapes(*(a.shape for a in arrays)), dtype=np.int64)
        node.budget.spend(int(size))
        return compute(node.operator, node.attributes, *arrays)
    if node.operator not in CONSTANT_OPERATORS:
        raise UnsupportedModel(
            f"of constants: supported are {', '.join(sorted(CONSTANT_OPERATORS))}"
        )
    run = CONSTANT_OPERATORS[node.operator]
    found: Constant = np.asarray(run(node, values, *arrays))
    node.budget.spend(found.size)
    return found


def _literal(node: Node, values: Sequence[Value | None]) -> Any:
    for name, kind in (
        ("value", None), ("value_float", np.float32), ("value_floats", np.float32),
        ("value_int", np.int64), ("value_ints", np.int64),
    ):  # fmt: skip
        if name in node.attributes:
            return np.asarray(node.attributes[name], kind)
    raise UnsupportedModel("expected numbers")


def _cast(node: Node, values: Sequence[Value | None], x: Constant) -> Any:
    kind = _TYPES.get(node.attributes.get("to", 0))
    if kind is None or x.dtype.kind not in "fiub":
        raise UnsupportedModel("expected numbers")
    return x.astype(kind)


def _reshape(node: Node, values: Sequence[Value | None], x: Constant, shape: Constant) -> Any:
    sizes = [int(size) for size in shape.ravel()]
    if not node.attributes.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 and i < x.ndim else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _concat(node: Node, values: Sequence[Value | None], *arrays: Constant) -> Any:
    node.budget.spend(sum(a.size for a in arrays))  # before they are copied
    return np.concatenate(arrays, axis=node.attributes.get("axis", 0))


def _gather(node: Node, values: Sequence[Value | None], x: Constant, index: Constant) -> Any:
    axis = node.attributes.get("axis", 0)
    node.budget.spend(index.size * x.size // max(x.shape[axis], 1))
    return np.take(x, index.astype(np.int64), axis=axis)


def _slice(node: Node, values: Sequence[Value | None], x: Constant, *bounds: Constant) -> Any:
    given = [a.ravel().tolist() for a in bounds]
    starts, ends = (given[0], given[1]) if len(given) > 1 else (
        node.attributes["starts"], node.attributes["ends"]
    )  # fmt: skip
    axes = given[2] if len(given) > 2 else node.attributes.get("axes", range(len(starts)))
    steps = given[3] if len(given) > 3 else [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[axis] = slice(start, end, step)
    return x[tuple(cut)]


def _squeeze(node: Node, values: Sequence[Value | None], x: Constant, *_: Constant) -> Any:
    axes = axes_of(node, values)
    return np.squeeze(x, None if axes is None else tuple(axes))


def _unsqueeze(node: Node, values: Sequence[Value | None], x: Constant, *_: Constant) -> Any:
    axes = axes_of(node, values) or []
    if x.ndim + len(axes) > _MAX_DIMENSIONS:
        raise UnsupportedModel(f"more than {_MAX_DIMENSIONS} dimensions")
    return np.expand_dims(x, tuple(axes))


CONSTANT_OPERATORS: dict[str, Any] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _literal,
    "Gather": _gather,
    "Identity": lambda node, values, x: x,
    "Reshape": _reshape,
    "Shape": lambda node, values, x: np.array(x.shape, np.int64),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": lambda node, values, x: np.transpose(x, node.attributes.get("perm")),
    "Unsqueeze": _unsqueeze,
}
