"""Operators that leave the values as they are, and only give them another shape or type."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.interchange.onnx_values import BATCH, Labels, Node, Rows, Value

__all__ = ["LAYOUT_OPERATORS"]

# onnx.TensorProto's numbers of FLOAT, FLOAT16, DOUBLE and BFLOAT16.
_FLOATS = (1, 10, 11, 16)


def axes_of(node: Node, values: Sequence[Value | None]) -> list[int] | None:
    """Return the axes of Squeeze or Unsqueeze: an input since opset 13, an attribute before."""
    if len(values) > 1 and isinstance(values[1], np.ndarray):
        return [int(axis) for axis in values[1].ravel()]
    axes = node.attributes.get("axes")
    return None if axes is None else list(axes)


def _same(node: Node, values: Sequence[Value | None]) -> Value:
    training = values[2] if len(values) > 2 else None
    if node.operator == "Dropout" and isinstance(training, np.ndarray) and training.any():
        raise UnsupportedModel("it is exported in training mode: export the model for inference")
    assert values[0] is not None  # the graph has checked that there is something computed
    return values[0]


def _cast(node: Node, values: Sequence[Value | None]) -> Value:
    value = values[0]
    if isinstance(value, Rows) and node.attributes.get("to") not in _FLOATS:
        raise UnsupportedModel("it rounds what the network computes")
    return _same(node, values)


def _shaped(value: Value | None, shape: Callable[[Rows], tuple[int, ...]]) -> Value:
    if isinstance(value, Labels):
        return value  # one for each row, whatever the shape
    if not isinstance(value, Rows):
        raise UnsupportedModel("its first input is not what the network computes")
    new = shape(value)
    if np.prod(new, dtype=np.int64) != value.size:
        raise UnsupportedModel(f"it changes rows of shape {value.shape} into {new}")
    return replace(value, shape=new)


def _flatten(node: Node, values: Sequence[Value | None]) -> Value:
    def shape(rows: Rows) -> tuple[int, ...]:
        axis = node.attributes.get("axis", 1) % (len(rows.shape) + 1)
        if axis == 0 or np.prod(rows.shape[: axis - 1], dtype=np.int64) != 1:
            raise UnsupportedModel(f"axis {axis} mixes rows of shape {rows.shape}")
        return (rows.size,)

    return _shaped(values[0], shape)


def _reshape(node: Node, values: Sequence[Value | None]) -> Value:
    target = values[1] if len(values) > 1 else None
    if not isinstance(target, np.ndarray):
        raise UnsupportedModel("the shape it makes is not constant")

    def shape(rows: Rows) -> tuple[int, ...]:
        return _reshaped(rows, [int(size) for size in target.ravel()], node)

    return _shaped(values[0], shape)


def _reshaped(rows: Rows, target: list[int], node: Node) -> tuple[int, ...]:
    if target == [-1] and rows.size == 1:
        return ()
    first, *rest = target or [1]
    if not node.attributes.get("allowzero", 0):
        copied = zip(rest, (*rows.shape, *[0] * len(rest)), strict=False)
        rest = [old if size == 0 else size for size, old in copied]
    if first not in (-1, 0, BATCH, node.batch or BATCH) or rest.count(-1) > 1:
        raise UnsupportedModel(f"it makes {target} of rows of shape {rows.shape}")
    known = int(np.prod([size for size in rest if size != -1], dtype=np.int64))
    # With -1 for the rows too, as x.view(x.size(0), -1) may become, the rest is what remains.
    return tuple(rows.size // max(known, 1) if size == -1 else size for size in rest)


def _squeeze(node: Node, values: Sequence[Value | None]) -> Value:
    def shape(rows: Rows) -> tuple[int, ...]:
        axes = axes_of(node, values)
        dimensions = len(rows.shape) + 1
        gone = [axis % dimensions for axis in axes or ()]
        if not gone or 0 in gone:
            raise UnsupportedModel("it may remove the axis of the rows")
        return tuple(size for i, size in enumerate(rows.shape, 1) if i not in gone)

    return _shaped(values[0], shape)


def _unsqueeze(node: Node, values: Sequence[Value | None]) -> Value:
    def shape(rows: Rows) -> tuple[int, ...]:
        axes = axes_of(node, values) or []
        dimensions = len(rows.shape) + 1 + len(axes)
        new = {axis % dimensions for axis in axes}
        if 0 in new or dimensions > 16:
            raise UnsupportedModel("it moves the axis of the rows")
        old = iter(rows.shape)
        return tuple(1 if i in new else next(old, 0) for i in range(1, dimensions))

    return _shaped(values[0], shape)


def _transpose(node: Node, values: Sequence[Value | None]) -> Value:
    def shape(rows: Rows) -> tuple[int, ...]:
        dimensions = len(rows.shape) + 1
        order = node.attributes.get("perm") or list(range(dimensions))[::-1]
        if sorted(order) != list(range(dimensions)) or order[0] != 0:
            raise UnsupportedModel("it moves the axis of the rows")
        moved = [axis for axis in order[1:] if rows.shape[axis - 1] != 1]
        if moved != sorted(moved):
            raise UnsupportedModel(
                "it changes the order of the values: export the model for channels that come first"
            )
        return tuple(rows.shape[axis - 1] for axis in order[1:])

    return _shaped(values[0], shape)


def _shape(node: Node, values: Sequence[Value | None]) -> Value:
    if not isinstance(values[0], Rows):
        raise UnsupportedModel("of what is not a row")
    whole = (BATCH, *values[0].shape)
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(whole[start:end], np.int64)


LAYOUT_OPERATORS: dict[str, Any] = {
    "Cast": _cast,
    "CastLike": _same,
    "Dropout": _same,
    "Flatten": _flatten,
    "Identity": _same,
    "Reshape": _reshape,
    "Shape": _shape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
