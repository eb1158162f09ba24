"""What the tensors of a graph are: constants, the rows of the network, or labels."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.interchange.folding import Activation, Scale, Step
from mlpserve_model.interchange.onnx_curves import GRID, Samples, affine_of, name_of
from mlpserve_model.nn.activations import HIDDEN

__all__ = ["BATCH", "Budget", "Labels", "Node", "Rows", "SeveralLabels", "Unknown", "Value"]

# Stands for the number of rows in shapes that a graph computes.
BATCH = int(np.iinfo(np.int64).min)

Constant: TypeAlias = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """A tensor (rows, *shape) that the network computes.

    Attributes:
        steps: How it is computed from the inputs.
        shape: The shape of one row.
        samples: A function of each value that comes after the steps, on the grid.
        maker: The node that made it, for messages.
        tensor: The name of a tensor with these values, for the comparison with onnxruntime.
        class_names: What its values are the probabilities of, if the graph says so.

    """

    steps: tuple[Step, ...]
    shape: tuple[int, ...]
    samples: Samples | None = None
    maker: str = ""
    tensor: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The number of values of one row."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def curve(self) -> Samples:
        """The samples, those of x itself without any."""
        return GRID if self.samples is None else self.samples

    @cached_property
    def settled(self) -> "Rows":
        """The same rows with the function as a step; raises UnsupportedModel if it is unknown."""
        if self.samples is None:
            return self
        if affine := affine_of(self.samples):
            factor, offset = (np.array([value]) for value in affine)
            step: Step = Scale(factor, offset)
        elif name := name_of(self.samples):
            step = Activation(name)
        else:
            raise UnsupportedModel(
                f"{self.maker} computes a function of each value that is none of "
                f"{', '.join(HIDDEN)} (leaky_relu of slope 0.01, elu of alpha 1, the exact gelu)"
            )
        return replace(self, steps=(*self.steps, step), samples=None)


@dataclass(frozen=True)
class Labels:
    """A tensor of the predicted classes: of these rows, by their numbers or their names."""

    rows: Rows
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unknown:
    """A tensor that was not understood, and why; it matters only if the output needs it."""

    reason: str


@dataclass(frozen=True)
class SeveralLabels(Unknown):
    """A tensor of several labels for each row, by a threshold of each class."""


Value: TypeAlias = Constant | Rows | Labels | Unknown


@dataclass
class Budget:
    """How many numbers a graph may still compute of its constants, all together."""

    left: int

    def spend(self, values: int) -> None:
        """Take so many; raises UnsupportedModel when none are left."""
        self.left -= values
        if self.left < 0:
            raise UnsupportedModel("the graph computes far more constant numbers than it holds")


@dataclass(frozen=True)
class Node:
    """An operator of a graph as it is used in one place.

    Attributes:
        operator: Its type.
        attributes: By their names.
        version: Of the operator set.
        batch: The number of rows that the graph is made for; 0 for any.
        budget: Of the graph.

    """

    operator: str
    attributes: dict[str, Any]
    version: int
    batch: int
    budget: Budget
