"""The result of explaining an answer."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve_client._results import ModelRef


class ValueAttribution(NamedTuple):
    """One value of an input and what it contributed.

    Attributes:
        position: where it is in the input: `(row, column)` of an image.
        attribution: its part of the score: positive for the class, negative against it.

    """

    position: tuple[int, ...]
    attribution: float

    def __repr__(self) -> str:
        return f"ValueAttribution({self.position}, {self.attribution:.4f})"


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Explanation:
    """Why an instance got the score of a class: what each of its values contributed.

    The attributions sum to `score - baseline_score`.

    Attributes:
        label: number of the class explained.
        name: its name.
        score: the class's logit for the instance.
        baseline_score: its logit for the baseline.
        attributions: in the shape of one input, float32, read-only.
        activations: of each hidden layer, `[units]` float32, read-only, input side first; empty
            unless they were requested.
        model: the version that gave the answer.

    """

    label: int
    name: str
    score: float
    baseline_score: float
    attributions: npt.NDArray[np.float32]
    activations: tuple[npt.NDArray[np.float32], ...]
    model: ModelRef

    def top(self, k: int = 10) -> list[ValueAttribution]:
        """Return the `k` values that contributed most, for or against, the largest first."""
        flat = self.attributions.ravel()
        order = np.argsort(-np.abs(flat), kind="stable")[: max(k, 0)]
        return [
            ValueAttribution(
                tuple(int(i) for i in np.unravel_index(place, self.attributions.shape)),
                float(flat[place]),
            )
            for place in order
        ]

    # A dataclass would compare arrays with ==, which has no truth value.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Explanation):
            return NotImplemented
        return (
            (self.label, self.name, self.model) == (other.label, other.name, other.model)
            and math.isclose(self.score, other.score)
            and len(self.activations) == len(other.activations)
            and np.array_equal(self.attributions, other.attributions)
            and all(map(np.array_equal, self.activations, other.activations))
        )

    def __hash__(self) -> int:
        return hash((self.label, self.model))

    def __repr__(self) -> str:
        scores = f"score={self.score:.4f}, baseline_score={self.baseline_score:.4f}"
        shape = self.attributions.shape
        return (
            f"Explanation(label={self.label}, name={self.name!r}, {scores}, "
            f"attributions of shape {shape}, model={self.model.name!r} "
            f"version {self.model.version})"
        )
