"""A network that another program made: its layers, and what its file says of it."""

from dataclasses import dataclass, field

import numpy as np

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.manifest import MAX_LAYERS, MAX_PARAMETERS, InputValues
from mlpserve_model.nn.activations import HIDDEN, OUTPUT
from mlpserve_model.nn.network import Layer, Network, Weights
from mlpserve_model.nn.types import Array

__all__ = [
    "SEVERAL_LABELS",
    "ImportedNetwork",
    "Metadata",
    "imported_network",
    "output_of_logits",
    "with_output",
]

SEVERAL_LABELS = (
    "a network that gives a row several labels cannot become a version: an answer is one class"
)


@dataclass(frozen=True)
class Metadata:
    """What a file says of its network; empty or 0 where it says nothing.

    Attributes:
        class_names: One name for each class.
        input_shape: The shape of one instance.
        input_kind: "pixels" or "real".
        input_maximum: The raw uint8 value that stands for 1.0.
        input_values: The values of the training data.
        origin: More facts, for the manifest's recipe: who made it, and from what.

    """

    class_names: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()
    input_kind: str = ""
    input_maximum: float = 0.0
    input_values: InputValues | None = None
    origin: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """A network of float32 layers, ready to be published.

    Attributes:
        network: The shape.
        weights: Its weights.
        metadata: What the file says of it.
        notes: Sentences for the person who imports it.

    """

    network: Network
    weights: Weights
    metadata: Metadata
    notes: tuple[str, ...] = ()


def imported_network(
    layers: list[tuple[Array, Array]],
    activations: list[str],
    metadata: Metadata,
    notes: tuple[str, ...] = (),
) -> ImportedNetwork:
    """Return a network of these layers, checked.

    A single sigmoid output, the probability of the second of two classes, becomes a softmax over
    two: softmax(0, z) = (1 - sigmoid(z), sigmoid(z)).

    Args:
        layers: `w` (inputs, units) and `b` (units,) of each, first layer first.
        activations: One for each layer.
        metadata: What the file says.
        notes: What the reader found noteworthy.

    Raises:
        UnsupportedModel: The layers do not fit together, or are beyond what a version may have.

    """
    sizes = _sizes(layers)
    if activations[-1] == "sigmoid" and sizes[-1] == 1:
        layers = [*layers[:-1], _as_pair(*layers[-1])]
        activations = [*activations[:-1], "softmax"]
        sizes = (*sizes[:-1], 2)
    if activations[-1] == "softmax" and sizes[-1] == 1:
        raise UnsupportedModel(
            "softmax of one output is always 1: expected one output for each class, or one sigmoid "
            "(--output-activation sigmoid, if it is a logit), the probability of the second of two"
        )
    _check_activations(activations)
    network = Network(sizes, tuple(activations))
    if network.parameters > MAX_PARAMETERS:
        raise UnsupportedModel(
            f"{network.parameters:,} weights and biases, expected at most {MAX_PARAMETERS:,}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        weights = tuple(Layer(w.astype(np.float32), b.astype(np.float32)) for w, b in layers)
    for number, layer in enumerate(weights, 1):
        if not (np.isfinite(layer.w).all() and np.isfinite(layer.b).all()):
            raise UnsupportedModel(f"layer {number} has weights that are not finite in float32")
    return ImportedNetwork(network, weights, metadata, notes)


def output_of_logits(network: Network) -> str:
    """Return the output activation that makes probabilities of a network's logits."""
    return "softmax" if network.classes > 1 else "sigmoid"


def with_output(activations: list[str], wanted: str | None) -> list[str]:
    """Return the activations with another one at the output, which must have been logits.

    Raises UnsupportedModel for a network that has an activation there already.
    """
    if wanted is None or activations[-1] == wanted:
        return activations
    if activations[-1] != "identity":
        raise UnsupportedModel(
            f"the network ends in {activations[-1]} already: leave out --output-activation"
        )
    return [*activations[:-1], wanted]


def _sizes(layers: list[tuple[Array, Array]]) -> tuple[int, ...]:
    if not 1 <= len(layers) < MAX_LAYERS:
        raise UnsupportedModel(f"{len(layers)} layers, expected 1 to {MAX_LAYERS - 1}")
    for number, (w, b) in enumerate(layers, 1):
        if w.ndim != 2 or 0 in w.shape or b.shape != w.shape[1:]:
            raise UnsupportedModel(
                f"layer {number} has weights {w.shape} and biases {b.shape}, "
                "expected (inputs, units) and (units,)"
            )
        if number > 1 and w.shape[0] != (above := layers[number - 2][0].shape[1]):
            raise UnsupportedModel(
                f"layer {number} takes {w.shape[0]} values, and the layer before it gives {above}"
            )
    return (layers[0][0].shape[0], *(w.shape[1] for w, _ in layers))


def _as_pair(w: Array, b: Array) -> tuple[Array, Array]:
    return np.hstack([np.zeros_like(w), w]), np.concatenate([np.zeros_like(b), b])


def _check_activations(activations: list[str]) -> None:
    for name in activations[:-1]:
        if name not in HIDDEN:
            raise UnsupportedModel(
                f"{name} before the last layer, expected one of {', '.join(HIDDEN)}"
            )
    if activations[-1] not in OUTPUT:
        raise UnsupportedModel(
            f"{activations[-1]} at the output, expected one of {', '.join(OUTPUT)}"
        )
