"""What each operator makes of the values it takes.

An operator that is not here, or takes what it cannot, raises UnsupportedModel; the graph turns that
into an unknown tensor.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.interchange.folding import Activation, Affine, Scale, normalisation
from mlpserve_model.interchange.imported import SEVERAL_LABELS
from mlpserve_model.interchange.onnx_constants import constant
from mlpserve_model.interchange.onnx_curves import ELEMENTWISE, SETTLING, compute, is_pair
from mlpserve_model.interchange.onnx_layout import LAYOUT_OPERATORS
from mlpserve_model.interchange.onnx_values import (
    Constant,
    Labels,
    Node,
    Rows,
    SeveralLabels,
    Value,
)

__all__ = ["SUPPORTED", "evaluate"]

Operator: TypeAlias = Callable[[Node, Sequence[Value | None]], Value]


def evaluate(node: Node, values: Sequence[Value | None]) -> Value:
    """Return the first output of an operator; None stands for an input that is left out.

    Raises:
        UnsupportedModel: It is not understood.

    """
    if all(value is None or isinstance(value, np.ndarray) for value in values):
        return constant(node, values)
    if node.operator in ELEMENTWISE:
        return _elementwise(node, values)
    if node.operator not in _OPERATORS:
        raise UnsupportedModel(f"is not supported; these are: {', '.join(SUPPORTED)}")
    return _OPERATORS[node.operator](node, values)


def _elementwise(node: Node, values: Sequence[Value | None]) -> Value:
    given = [value for value in values if value is not None]
    rows = [value for value in given if isinstance(value, Rows)]
    if len(rows) + sum(isinstance(value, np.ndarray) for value in given) < len(given):
        raise UnsupportedModel("it computes with labels")
    if len(rows) == 1 and len(given) == 2 and node.operator in _LINEAR:
        constants = [value for value in given if isinstance(value, np.ndarray)]
        if _scalar(constants[0]) is None:
            vector = _vector(node, rows[0], constants[0])
            return _scaled(rows[0], node, vector, isinstance(given[0], Rows))
    if node.operator in SETTLING:
        rows = [_settled_if_known(row) for row in rows]
    if len(rows) == 2:
        rows = list(_with_common_steps(*rows))
    first = rows[0]
    if len(rows) > 2 or any(r.steps is not first.steps or r.shape != first.shape for r in rows):
        raise UnsupportedModel("it joins two branches of the graph: supported is a chain of layers")
    curves = iter(rows)
    arrays = [next(curves).curve if isinstance(v, Rows) else _required_scalar(v) for v in given]
    return replace(first, samples=compute(node.operator, node.attributes, *arrays))


# With a vector of constants: x * factor + offset.
_LINEAR: dict[str, Callable[[Any, bool], tuple[Any, Any]]] = {
    "Add": lambda c, _: (np.ones_like(c), c),
    "Sub": lambda c, rows_first: (np.ones_like(c), -c) if rows_first else (-np.ones_like(c), c),
    "Mul": lambda c, _: (c, np.zeros_like(c)),
    "Div": lambda c, _: (1 / c, np.zeros_like(c)),
}


def _scaled(rows: Rows, node: Node, vector: Any, rows_first: bool) -> Rows:
    if node.operator == "Div" and not rows_first:
        raise UnsupportedModel("it divides by what the network computes")
    factor, offset = _LINEAR[node.operator](vector, rows_first)
    return _with_steps(rows, Scale(factor, offset))


def _with_steps(rows: Rows, *steps: Any) -> Rows:
    settled = rows.settled
    return replace(settled, steps=(*settled.steps, *steps))


def _vector(node: Node, rows: Rows, array: Constant) -> Any:
    """Return one float64 for each value of a row."""
    if array.dtype.kind not in "fiub":
        raise UnsupportedModel(f"a constant holds {array.dtype}, expected numbers")
    try:
        whole = np.broadcast_to(array, (1, *rows.shape))
    except ValueError:
        raise UnsupportedModel(
            f"a constant of shape {array.shape} does not fit rows of shape {rows.shape}"
        ) from None
    node.budget.spend(whole.size)
    return whole.astype(np.float64).ravel()


def _scalar(array: Constant) -> Any:
    """Return the number that all values of a constant are; None if they differ."""
    if array.dtype.kind not in "fiub" or not array.size:
        return None
    first = array.ravel()[0]
    return np.float64(first) if (array == first).all() else None


def _required_scalar(array: Any) -> Any:
    value = _scalar(array)
    if value is None:
        raise UnsupportedModel("it takes different constants for different values")
    return value


def _settled_if_known(rows: Rows) -> Rows:
    try:
        return rows.settled
    except UnsupportedModel:
        return rows


def _with_common_steps(first: Rows, second: Rows) -> tuple[Rows, Rows]:
    """Return both as functions of the same steps, where one is the other's last step."""
    if first.steps is second.steps:
        return first, second
    if _settled_if_known(first).steps is second.steps:
        return first.settled, second
    if _settled_if_known(second).steps is first.steps:
        return first, second.settled
    return first, second


def _rows(value: Value | None) -> Rows:
    if not isinstance(value, Rows):
        raise UnsupportedModel("its first input is not what the network computes")
    return value


def _matrix(rows: Rows, weights: Value | None, bias: Any = None) -> Rows:
    if not isinstance(weights, np.ndarray):
        raise UnsupportedModel(
            "it multiplies two tensors that the network computes: supported is a constant matrix"
        )
    if weights.ndim != 2 or weights.dtype.kind not in "fiu":
        raise UnsupportedModel(f"weights of shape {weights.shape}, expected (inputs, units)")
    if not rows.shape or rows.size != rows.shape[-1]:
        raise UnsupportedModel(f"it takes rows of shape {rows.shape}: expected a Flatten before it")
    inputs, units = weights.shape
    if inputs != rows.size:
        raise UnsupportedModel(f"weights of shape {weights.shape} for rows of {rows.size} values")
    step = Affine(weights, np.zeros(units, weights.dtype) if bias is None else bias)
    return replace(_with_steps(rows, step), shape=(*rows.shape[:-1], units))


def _matmul(node: Node, values: Sequence[Value | None]) -> Rows:
    return _matrix(_rows(values[0]), values[1])


def _gemm(node: Node, values: Sequence[Value | None]) -> Rows:
    rows, weights, bias = _rows(values[0]), values[1], values[2] if len(values) > 2 else None
    if node.attributes.get("transA", 0):
        raise UnsupportedModel("transA would mix the rows")
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if isinstance(weights, np.ndarray) and weights.ndim == 2:
        weights = weights.T if node.attributes.get("transB", 0) else weights
        weights = weights if alpha == 1 else alpha * weights.astype(np.float64)
    found = _matrix(rows, weights)
    if bias is None:
        return found
    if not isinstance(bias, np.ndarray):
        raise UnsupportedModel("its bias is not a constant")
    offset = beta * _vector(node, found, bias)
    return _with_steps(found, Scale(np.ones_like(offset), offset))


def _batch_normalisation(node: Node, values: Sequence[Value | None]) -> Rows:
    rows = _rows(values[0])
    if node.attributes.get("training_mode", 0):
        raise UnsupportedModel("it is exported in training mode: export the model for inference")
    statistics = [value for value in values[1:5] if isinstance(value, np.ndarray)]
    channels = rows.shape[0] if rows.shape else 0
    if len(statistics) < 4 or any(array.shape != (channels,) for array in statistics):
        raise UnsupportedModel(f"expected 4 constants of {channels} values")
    node.budget.spend(4 * rows.size)
    repeated = [np.repeat(array, rows.size // channels) for array in statistics]
    gamma, beta, mean, variance = repeated
    epsilon = node.attributes.get("epsilon", 1e-5)
    return _with_steps(rows, normalisation(mean, variance, epsilon, gamma, beta))


def _scaler(node: Node, values: Sequence[Value | None]) -> Rows:
    rows = _rows(values[0])
    offset, scale = (
        _vector(node, rows, np.asarray(node.attributes.get(name, default), np.float64))
        for name, default in (("offset", 0.0), ("scale", 1.0))
    )
    return _with_steps(rows, Scale(scale, -offset * scale))


def _softmax(node: Node, values: Sequence[Value | None]) -> Rows:
    rows = _rows(values[0])
    dimensions = len(rows.shape) + 1
    axis = node.attributes.get("axis", -1 if node.version >= 13 else 1) % dimensions
    whole = rows.shape[axis - 1 :] if node.version < 13 else rows.shape[axis - 1 : axis]
    if axis == 0 or np.prod(whole, dtype=np.int64) != rows.size:
        raise UnsupportedModel(f"axis {axis} of rows of shape {rows.shape}: expected the classes")
    return _with_steps(rows, Activation(_SOFTMAX[node.operator]))


_SOFTMAX = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}


def _normalizer(node: Node, values: Sequence[Value | None]) -> Rows:
    rows = _rows(values[0])
    norm = node.attributes.get("norm", b"MAX")
    if norm == b"L1" and rows.steps[-1:] == (Activation("softmax"),):
        return rows  # probabilities sum to 1 already
    raise UnsupportedModel(f"it divides by the {norm.decode(errors='replace')} norm of each row")


def _argmax(node: Node, values: Sequence[Value | None]) -> Labels:
    rows = _rows(values[0])
    if node.attributes.get("axis", 0) % (len(rows.shape) + 1) != 1 or len(rows.shape) != 1:
        raise UnsupportedModel(f"of rows of shape {rows.shape}, expected the largest class")
    return Labels(rows)


def _binarizer(node: Node, values: Sequence[Value | None]) -> SeveralLabels:
    if _rows(values[0]).size > 1:
        return SeveralLabels(SEVERAL_LABELS)
    raise UnsupportedModel("it compares with a threshold")


def _named_labels(node: Node, values: Sequence[Value | None]) -> Labels:
    """Return labels by the names in a constant: ArrayFeatureExtractor, and Gather."""
    names, labels = values[0], values[1]
    if not isinstance(labels, Labels) or not isinstance(names, np.ndarray):
        raise UnsupportedModel("it picks values by what the network computes")
    return replace(labels, names=_texts(names.ravel().tolist()))


def _label_encoder(node: Node, values: Sequence[Value | None]) -> Labels:
    labels, attributes = values[0], node.attributes
    keys = attributes.get("keys_int64s", ())
    names = attributes.get("values_strings", attributes.get("values_int64s", ()))
    if not isinstance(labels, Labels) or list(keys) != list(range(len(names))):
        raise UnsupportedModel("expected a name for each class")
    return replace(labels, names=_texts(names))


def _zipmap(node: Node, values: Sequence[Value | None]) -> Rows:
    rows, attributes = _rows(values[0]).settled, node.attributes
    names = attributes.get("classlabels_strings") or attributes.get("classlabels_int64s") or ()
    return replace(rows, class_names=_texts(names))


def _texts(names: Sequence[Any]) -> tuple[str, ...]:
    return tuple(n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names)


def _concat(node: Node, values: Sequence[Value | None]) -> Rows:
    """Return the two columns 1 - p and p as what they are: a sigmoid of two classes."""
    if len(values) == 2 and node.attributes.get("axis", 1) in (1, -1):
        first, second = values
        if isinstance(first, Rows) and isinstance(second, Rows):
            same = first.steps is second.steps and first.shape == second.shape == (1,)
            if same and is_pair(first.curve, second.curve):
                return replace(second.settled, shape=(2,))
    raise UnsupportedModel("it joins tensors: supported is a chain of layers")


_OPERATORS: dict[str, Operator] = {
    "ArgMax": _argmax,
    "ArrayFeatureExtractor": _named_labels,
    "BatchNormalization": _batch_normalisation,
    "Binarizer": _binarizer,
    "Concat": _concat,
    "Gather": _named_labels,
    "Gemm": _gemm,
    "LabelEncoder": _label_encoder,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
    "Softmax": _softmax,
    "ZipMap": _zipmap,
    **LAYOUT_OPERATORS,
}
_PARTS = (
    "Add", "Sub", "Mul", "Div", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Gelu", "Swish",
)  # fmt: skip
SUPPORTED = tuple(sorted({*_OPERATORS, *_PARTS, "Constant"} - {"Binarizer"}))
