"""Named arrays as networks: what .safetensors and .npz files hold, without a graph.

The names tell which arrays belong together (`fc1.weight` and `fc1.bias`, `w1` and `b1`), their
order in the network is that of the names, and their shapes tell which way round the weights are.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.interchange.folding import Activation, Affine, Scale, Step, fold, normalisation
from mlpserve_model.interchange.imported import (
    ImportedNetwork,
    Metadata,
    imported_network,
    with_output,
)
from mlpserve_model.interchange.metadata import ORIENTATION, activations_of, metadata_of
from mlpserve_model.nn.types import Array
from mlpserve_model.process.tables import plain

__all__ = ["INPUTS_UNITS", "ORIENTATIONS", "network_of_arrays"]

ORIENTATIONS = INPUTS_UNITS, UNITS_INPUTS = "inputs-units", "units-inputs"
_EPSILON = 1e-5  # of batch normalisation, PyTorch's default
_ROLE = re.compile(
    r"(?P<layer>.*?)[._/]?(?P<role>weights?|kernel|coefs?|w|biases|bias|intercepts?|b|gamma|beta"
    r"|running_mean|running_var|moving_mean|moving_variance|num_batches_tracked)"
    r"(?P<number>_?\d*)(:0)?",
    re.IGNORECASE,
)
_ROLES = {
    "weight": "w", "weights": "w", "kernel": "w", "coef": "w", "coefs": "w", "w": "w", "gamma": "w",
    "bias": "b", "biases": "b", "intercept": "b", "intercepts": "b", "b": "b", "beta": "b",
    "running_mean": "mean", "moving_mean": "mean",
    "running_var": "variance", "moving_variance": "variance",
}  # fmt: skip
Group = dict[str, Array]


def network_of_arrays(
    arrays: Mapping[str, Array],
    entries: Mapping[str, str],
    activations: Sequence[str] = (),
    layers: Sequence[str] = (),
    orientation: str | None = None,
    output_activation: str | None = None,
) -> ImportedNetwork:
    """Return the network that named arrays are.

    Args:
        arrays: Weights (2 dimensions), biases and the statistics of batch normalisation, by name.
        entries: Metadata of the file; a version that was exported says everything by it.
        activations: One for each layer; needed if the file does not say.
        layers: The names of the layers in their order, if it is not that of the names.
        orientation: One of ORIENTATIONS, if the shapes leave it open.
        output_activation: What turns logits into probabilities.

    Raises:
        UnsupportedModel: The arrays are not those of a network; the message says what to do.

    """
    groups = _groups(arrays)
    order = list(layers) or sorted(groups, key=_natural)
    if set(order) != set(groups) or len(order) != len(groups):
        raise UnsupportedModel(
            f"--layers says {_listed(order)}, and the file has the layers {_listed(groups)}"
        )
    ordered = [(name, groups[name]) for name in order]
    matrices = [name for name, group in ordered if _is_matrix(group)]
    names = list(activations) or activations_of(entries)
    if len(names) != len(matrices):
        raise UnsupportedModel(
            f"{len(names) or 'no'} activations for the {len(matrices)} layers {_listed(matrices)}: "
            "give one for each with --activations, such as relu,softmax"
        )
    transposed = _is_transposed(ordered, orientation or entries.get(ORIENTATION))
    folded, found = fold(_steps(ordered, names, transposed), _inputs(ordered, transposed))
    metadata: Metadata = metadata_of(entries)
    return imported_network(folded, with_output(found, output_activation), metadata)


def _groups(arrays: Mapping[str, Array]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for name, array in arrays.items():
        found = _ROLE.fullmatch(name)
        if found and found["role"].lower() == "num_batches_tracked":
            continue
        if not array.size:
            # Of (0, 2**40) a file holds no byte, so that no bound of its size would hold.
            raise UnsupportedModel(
                f"the array {plain(name)[:100]} of shape {array.shape} has no values"
            )
        if not found or array.ndim not in (1, 2):
            raise UnsupportedModel(
                f"the array {plain(name)[:100]} of shape {array.shape} is not known: expected the "
                "weights and biases of layers, such as fc1.weight and fc1.bias, or w1 and b1"
            )
        layer = (found["layer"] + found["number"]).strip("._/") or "layer"
        group, role = groups.setdefault(layer, {}), _ROLES[found["role"].lower()]
        if role in group:
            raise UnsupportedModel(f"the layer {plain(layer)[:100]} has two arrays for one purpose")
        group[role] = array
    if not any(map(_is_matrix, groups.values())):
        raise UnsupportedModel("the file holds no weights of two dimensions")
    for name, group in groups.items():
        if not _is_matrix(group) and not {"mean", "variance"} <= set(group):
            raise UnsupportedModel(
                f"the layer {plain(name)[:100]} has {', '.join(group)}: expected weights of two "
                "dimensions, or the mean and variance of batch normalisation"
            )
    return groups


def _is_matrix(group: Group) -> bool:
    return "w" in group and group["w"].ndim == 2


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that puts layer2 before layer10."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 19 else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _is_transposed(ordered: list[tuple[str, Group]], orientation: str | None) -> bool:
    """Return whether weights are (units, inputs), as PyTorch has them, from what fits together."""
    if orientation in ORIENTATIONS:
        return orientation == UNITS_INPUTS
    fitting = [way for way in (False, True) if _fit(ordered, way)]
    if len(fitting) == 2:
        # All are square: PyTorch says weight, Keras kernel, scikit-learn coefs.
        raise UnsupportedModel(
            "the weights fit together both ways: say --orientation inputs-units (as here and in "
            "Keras) or --orientation units-inputs (as in PyTorch)"
        )
    if not fitting:
        shapes = [
            f"{plain(name)} {group['w'].shape}" for name, group in ordered if _is_matrix(group)
        ]
        raise UnsupportedModel(
            f"the weights do not fit together in this order: {', '.join(shapes)[:300]}; "
            "give the order with --layers"
        )
    return fitting[0]


def _fit(ordered: list[tuple[str, Group]], transposed: bool) -> bool:
    width = None
    for _, group in ordered:
        if not _is_matrix(group):
            if any(array.shape != (width,) for array in group.values()):
                return False
            continue
        inputs, units = group["w"].shape[:: -1 if transposed else 1]
        bias = group.get("b")
        if width not in (None, inputs) or (bias is not None and bias.shape != (units,)):
            return False
        width = units
    return True


def _inputs(ordered: list[tuple[str, Group]], transposed: bool) -> int:
    first = next(group for _, group in ordered if _is_matrix(group))
    return int(first["w"].shape[1 if transposed else 0])


def _steps(ordered: list[tuple[str, Group]], names: Sequence[str], transposed: bool) -> list[Step]:
    """Return the chain; batch normalisation comes before the activation of the layer above it."""
    steps: list[Step] = []
    waiting = ""  # the activation of the last matrix
    left = iter(names)
    for name, group in ordered:
        if _is_matrix(group):
            steps += _activation(waiting)
            w = group["w"].T if transposed else group["w"]
            b = group.get("b", np.zeros(w.shape[1], np.float32))
            if b.shape != (w.shape[1],):
                raise UnsupportedModel(
                    f"the layer {plain(name)[:100]} has {w.shape[1]} units and biases {b.shape}"
                )
            steps.append(Affine(w, b))
            waiting = next(left)
        else:
            steps.append(_normalised(name, group))
    return steps + _activation(waiting)


def _activation(name: str) -> list[Step]:
    return [Activation(name)] if name else []


def _normalised(name: str, group: Group) -> Scale:
    mean, variance = group["mean"], group["variance"]
    gamma = group.get("w", np.ones_like(mean))
    beta = group.get("b", np.zeros_like(mean))
    if len({array.shape for array in (mean, variance, gamma, beta)}) > 1:
        raise UnsupportedModel(f"the statistics of {plain(name)[:100]} differ in shape")
    return normalisation(mean, variance, _EPSILON, gamma, beta)


def _listed(names: Any) -> str:
    shown = [plain(str(name)) for name in names]
    return ", ".join(shown)[:300] or "none"
