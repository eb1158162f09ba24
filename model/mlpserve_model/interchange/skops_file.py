"""scikit-learn's MLPClassifier, alone or after scalers, from a .skops file.

Such a file is a zip of `schema.json`, a tree of what to construct, and `.npy` arrays. Nothing in it
is constructed or called here: the tree is searched for the attributes of the few classes below, and
only numbers, texts and lists are taken from it. Neither scikit-learn nor skops is needed.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlpserve_model.format import strict_json
from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.manifest import MAX_LAYERS
from mlpserve_model.format.npz_reader import NpzReader, UnreadableArrays
from mlpserve_model.interchange.files import MAX_FILE_BYTES, open_file
from mlpserve_model.interchange.folding import Activation, Affine, Scale, Step, fold
from mlpserve_model.interchange.imported import (
    SEVERAL_LABELS,
    ImportedNetwork,
    Metadata,
    imported_network,
)
from mlpserve_model.process.tables import plain

__all__ = ["import_skops"]

_SCHEMA = "schema.json"
_MAX_SCHEMA = 2**24
_MAX_STEPS = 64
_ACTIVATIONS = {"logistic": "sigmoid"}  # scikit-learn's name for it; the others are the same


def import_skops(path: Path) -> ImportedNetwork:
    """Read an MLPClassifier, or a Pipeline of scalers and one, as a network.

    Raises:
        UnsupportedModel: The file is damaged, or holds something else.

    """
    with open_file(path) as stream:
        try:
            arrays = NpzReader(stream, plain(path.name))
            tree = _Tree(arrays)
            *scalers, classifier = _estimators(tree, _schema(stream, path))
            steps = [step for scaler in scalers for step in _scaler(tree, scaler)]
            return _network(tree, steps, classifier)
        except UnreadableArrays as error:
            raise UnsupportedModel(str(error)) from error


def _schema(stream: IO[bytes], path: Path) -> Any:
    shown = plain(path.name)
    try:
        with zipfile.ZipFile(stream) as archive, archive.open(_SCHEMA) as file:
            data = file.read(_MAX_SCHEMA + 1)
    except KeyError as error:
        raise UnsupportedModel(f"{shown} is not a .skops file: it has no {_SCHEMA}") from error
    except Exception as error:  # zipfile fails at damaged files in many undocumented ways
        raise UnsupportedModel(f"{shown}: {_SCHEMA} cannot be read: {error}") from error
    if len(data) > _MAX_SCHEMA:
        raise UnsupportedModel(f"{shown}: {_SCHEMA} has more than {_MAX_SCHEMA} bytes")
    try:
        return strict_json.parse(data)
    except ValueError as error:
        raise UnsupportedModel(f"{shown}: {_SCHEMA} is not JSON: {error}") from error


@dataclass
class _Tree:
    """Takes plain values out of the schema's nodes; every method raises UnsupportedModel.

    `left` is how many bytes of arrays may still be read: nodes may name one file many times.
    """

    arrays: NpzReader
    left: int = field(default_factory=lambda: MAX_FILE_BYTES)

    def items(self, node: Any) -> list[Any]:
        """Return the nodes of a list or a tuple."""
        if _loader(node) not in ("ListNode", "TupleNode") or not isinstance(node["content"], list):
            raise _unexpected(node, "a list")
        found: list[Any] = node["content"]
        return found

    def attributes(self, node: Any) -> dict[str, Any]:
        """Return the nodes of an object's attributes, by name."""
        if _loader(node) != "ObjectNode" or _loader(node["content"]) != "DictNode":
            raise _unexpected(node, "an estimator")
        found = node["content"].get("content")
        if not isinstance(found, dict):
            raise _unexpected(node, "an estimator")
        return found

    def plain(self, node: Any) -> Any:
        """Return a text, a number, a truth value or None."""
        if _loader(node) != "JsonNode" or not isinstance(node["content"], str):
            raise _unexpected(node, "a plain value")
        try:
            return strict_json.parse(node["content"].encode(errors="replace"))
        except ValueError as error:
            raise _unexpected(node, "a plain value") from error

    def array(self, node: Any) -> Any:
        """Return an array of numbers or texts."""
        file = node.get("file") if _loader(node) == "NdArrayNode" else None
        name = file.removesuffix(".npy") if isinstance(file, str) else ""
        if name not in self.arrays.names:
            raise _unexpected(node, "an array of numbers or texts")
        array = self.arrays.array(name, self.left)
        self.left -= array.nbytes
        return array


def _loader(node: Any) -> str:
    whole = isinstance(node, dict) and isinstance(node.get("__loader__"), str)
    return str(node["__loader__"]) if whole and ("content" in node or "file" in node) else ""


def _class_of(node: Any) -> str:
    """Return the name of an estimator's class; of those outside scikit-learn with the module."""
    if not isinstance(node, dict):
        return "something else"
    module, name = str(node.get("__module__")), str(node.get("__class__"))
    return plain((name if module.startswith("sklearn.") else f"{module}.{name}")[:100])


def _unexpected(node: Any, expected: str) -> UnsupportedModel:
    return UnsupportedModel(f"the file holds {_class_of(node)} where {expected} is expected")


def _estimators(tree: _Tree, node: Any) -> list[Any]:
    """Return the steps of a pipeline, pipelines inside it included; an estimator alone is one."""
    if _class_of(node) != "Pipeline":
        return [node]
    pairs = [tree.items(pair) for pair in tree.items(tree.attributes(node).get("steps"))]
    if not 1 <= len(pairs) <= _MAX_STEPS or any(len(pair) != 2 for pair in pairs):
        raise _unexpected(node, "a pipeline of names and estimators")
    found = [step for _, inner in pairs for step in _estimators(tree, inner)]
    if len(found) > _MAX_STEPS:
        raise UnsupportedModel(f"a pipeline of {len(found)} steps, expected at most {_MAX_STEPS}")
    return found


def _numbers(tree: _Tree, attributes: dict[str, Any], name: str) -> Any:
    array = tree.array(attributes.get(name))
    if array.dtype.kind not in "fiu":
        raise UnsupportedModel(f"{name} holds {array.dtype}, expected numbers")
    return array.astype(np.float64)


def _is_set(tree: _Tree, attributes: dict[str, Any], name: str) -> bool:
    return name in attributes and bool(tree.plain(attributes[name]))


def _standard(
    tree: _Tree, attributes: dict[str, Any], mean: str, switches: tuple[str, str]
) -> Scale:
    center = _numbers(tree, attributes, mean) if _is_set(tree, attributes, switches[0]) else None
    scale = _numbers(tree, attributes, "scale_") if _is_set(tree, attributes, switches[1]) else None
    if center is None and scale is None:
        return Scale(np.ones(1), np.zeros(1))
    scale = np.ones_like(center) if scale is None else scale
    center = np.zeros_like(scale) if center is None else center
    return _checked(1 / scale, -center / scale)


def _min_max(tree: _Tree, attributes: dict[str, Any]) -> Scale:
    if _is_set(tree, attributes, "clip"):
        raise UnsupportedModel("MinMaxScaler with clip=True, which no layer can take in")
    return _checked(_numbers(tree, attributes, "scale_"), _numbers(tree, attributes, "min_"))


def _checked(factor: Any, offset: Any) -> Scale:
    if factor.ndim != 1 or factor.shape != offset.shape:
        raise UnsupportedModel(f"a scaler of shapes {factor.shape} and {offset.shape}")
    return Scale(factor, offset)


_SCALERS: dict[str, Callable[[_Tree, dict[str, Any]], Scale]] = {
    "StandardScaler": lambda t, a: _standard(t, a, "mean_", ("with_mean", "with_std")),
    "RobustScaler": lambda t, a: _standard(t, a, "center_", ("with_centering", "with_scaling")),
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": lambda t, a: _checked(
        1 / (scale := _numbers(t, a, "scale_")), np.zeros_like(scale)
    ),
}


def _scaler(tree: _Tree, node: Any) -> list[Step]:
    if _loader(node) == "JsonNode" and tree.plain(node) in ("passthrough", None):
        return []
    name = _class_of(node)
    if name not in _SCALERS:
        raise UnsupportedModel(
            f"{name} before the network: supported are {', '.join(_SCALERS)} and passthrough"
        )
    return [_SCALERS[name](tree, tree.attributes(node))]


def _network(tree: _Tree, before: list[Step], node: Any) -> ImportedNetwork:
    if _class_of(node) != "MLPClassifier":
        raise UnsupportedModel(f"{_class_of(node)} where an MLPClassifier is expected")
    attributes = tree.attributes(node)
    if "coefs_" not in attributes:
        raise UnsupportedModel("the MLPClassifier is not fitted")
    layers = _layers(tree, attributes)
    names = [str(tree.plain(attributes.get(name))) for name in ("activation", "out_activation_")]
    hidden, output = (_ACTIVATIONS.get(name, name) for name in names)
    if output == "sigmoid" and layers[-1].w.shape[1] > 1:
        raise UnsupportedModel(SEVERAL_LABELS)
    inputs = layers[0].w.shape[0]
    _check_widths(before, inputs)
    steps = list(before)
    for number, layer in enumerate(layers, 1):
        steps += [layer, Activation(hidden if number < len(layers) else output)]
    return imported_network(*fold(steps, inputs), _metadata(tree, attributes))


def _layers(tree: _Tree, attributes: dict[str, Any]) -> list[Affine]:
    items = [tree.items(attributes.get(name)) for name in ("coefs_", "intercepts_")]
    if not 1 <= len(items[0]) == len(items[1]) < MAX_LAYERS:
        raise UnsupportedModel(f"{len(items[0])} weights and {len(items[1])} biases")
    layers = [Affine(tree.array(w), tree.array(b)) for w, b in zip(*items, strict=True)]
    for number, (w, b) in enumerate(((layer.w, layer.b) for layer in layers), 1):
        if w.ndim != 2 or b.shape != w.shape[1:] or {w.dtype.kind, b.dtype.kind} != {"f"}:
            raise UnsupportedModel(f"layer {number} has weights {w.shape} and biases {b.shape}")
    return layers


def _metadata(tree: _Tree, attributes: dict[str, Any]) -> Metadata:
    version = attributes.get("_sklearn_version")
    producer = f"scikit-learn {tree.plain(version) if version else ''}".strip()
    names = tree.array(attributes.get("classes_")).ravel().tolist()
    return Metadata(
        class_names=tuple(map(str, names)), input_kind="real", origin={"producer": producer[:200]}
    )


def _check_widths(before: list[Step], inputs: int) -> None:
    for step in before:
        if isinstance(step, Scale) and len(step.factor) not in (1, inputs):
            raise UnsupportedModel(
                f"a scaler of {len(step.factor)} values before a network of {inputs}"
            )
