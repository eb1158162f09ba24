"""Chains of operations, folded into layers: each a matrix, a bias and an activation.

What scales each value alone (batch normalisation, a scaler before the network) goes into the layer
beside it. Everything is float64 until the layers are whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.nn.activations import OUTPUT
from mlpserve_model.nn.types import Array

__all__ = ["Activation", "Affine", "Scale", "Step", "fold", "normalisation"]


@dataclass(frozen=True, eq=False)
class Affine:
    """x @ w + b, with `w` (inputs, units) and `b` (units,)."""

    w: Array
    b: Array


@dataclass(frozen=True, eq=False)
class Scale:
    """x * factor + offset, each (values,), or (1,) if it is the same for all."""

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]


@dataclass(frozen=True)
class Activation:
    """A function of each value, or softmax, by its name in the manifest."""

    name: str


# Larger ones would take far more memory than the file that asks for them.
_WIDEST_UNIT_MATRIX = 1024

Step: TypeAlias = Affine | Scale | Activation


def fold(steps: Sequence[Step], inputs: int) -> tuple[list[tuple[Array, Array]], list[str]]:
    """Return the layers of a chain, `w` and `b` of each, and their activations.

    Two matrices without an activation between them stay two layers, the first with `identity`:
    their product may be far larger. An activation without a matrix before it gets the unit matrix.

    Args:
        steps: The chain, first step first.
        inputs: The number of values that it takes.

    Raises:
        UnsupportedModel: A unit matrix would be too large.

    """
    layers: list[tuple[Array, Array]] = []
    activations: list[str] = []
    pending: Affine | Scale | None = None
    width = inputs

    def close(name: str) -> None:
        nonlocal pending
        whole = pending if isinstance(pending, Affine) else _diagonal(pending, width)
        layers.append((whole.w, whole.b))
        activations.append(name)
        pending = None

    for step in steps:
        if isinstance(step, Activation):
            close(step.name)
        elif isinstance(step, Scale):
            pending = _scaled(pending, step)
        else:
            if isinstance(pending, Affine):
                close("identity")
            pending = _after_scale(pending, step)
            width = step.w.shape[1]
    if pending is not None or not activations or activations[-1] not in OUTPUT:
        close("identity")
    return layers, activations


def normalisation(mean: Array, variance: Array, epsilon: float, gamma: Array, beta: Array) -> Scale:
    """Return batch normalisation with the statistics of the training: Ioffe and Szegedy (2015)."""
    with np.errstate(all="ignore"):  # what is not finite is refused with the layer
        factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        return Scale(factor, beta - mean * factor)


def _scaled(pending: Affine | Scale | None, step: Scale) -> Affine | Scale:
    with np.errstate(all="ignore"):
        if pending is None:
            return step
        if isinstance(pending, Scale):
            return Scale(pending.factor * step.factor, pending.offset * step.factor + step.offset)
        return Affine(pending.w * step.factor, pending.b * step.factor + step.offset)


def _after_scale(pending: Affine | Scale | None, step: Affine) -> Affine:
    if not isinstance(pending, Scale):
        return step
    with np.errstate(all="ignore"):
        offset = np.broadcast_to(pending.offset, step.w.shape[:1])
        return Affine(pending.factor[:, None] * step.w, offset @ step.w + step.b)


def _diagonal(scale: Scale | None, width: int) -> Affine:
    if width > _WIDEST_UNIT_MATRIX:
        raise UnsupportedModel(
            f"an operation on each of {width:,} values that no layer can take in: "
            "expected it beside a matrix"
        )
    if scale is None:
        return Affine(np.eye(width), np.zeros(width))
    factor, offset = (np.broadcast_to(part, (width,)) for part in (scale.factor, scale.offset))
    return Affine(np.diag(factor), offset)
