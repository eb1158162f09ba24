"""ONNX models as networks: read, folded into layers, and compared with onnxruntime."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.interchange.folding import Activation, fold
from mlpserve_model.interchange.imported import (
    ImportedNetwork,
    Metadata,
    imported_network,
    with_output,
)
from mlpserve_model.interchange.metadata import metadata_of
from mlpserve_model.interchange.onnx_check import run
from mlpserve_model.interchange.onnx_file import load_model
from mlpserve_model.interchange.onnx_graph import Reading, read_graph
from mlpserve_model.interchange.random_inputs import MAX_VALUES, random_inputs, rows_for
from mlpserve_model.nn.network import forward

__all__ = ["import_onnx"]

# Of the largest value that a row has, for outputs beyond 1: float32 sums differ between libraries.
TOLERANCE = 1e-4
# float16 has three digits: of 149 random networks in it, the worst differed by 0.005.
HALF_TOLERANCE = 1e-2
_ROWS = 64


@dataclass(frozen=True)
class _Chain:
    """A graph's layers, and whether its outputs are logarithms of probabilities."""

    layers: list[tuple[Any, Any]]
    activations: list[str]
    is_logarithm: bool


def import_onnx(
    path: Path,
    input_shape: tuple[int, ...] = (),
    output_name: str | None = None,
    output_activation: str | None = None,
) -> ImportedNetwork:
    """Read an ONNX model as a network.

    Its numbers are compared with those of onnxruntime on random inputs.

    Args:
        path: The file; external data is read from its folder alone.
        input_shape: The shape of one instance, where the file leaves it open.
        output_name: The output to import, where several differ.
        output_activation: What turns logits into probabilities, where the model ends in logits.

    Raises:
        UnsupportedModel: It is not a chain of layers that a version can have, or onnxruntime
            computes something else.

    """
    model = load_model(path)
    reading = read_graph(model, input_shape, output_name)
    chain = _chain(reading)
    metadata = _metadata(model, reading)
    as_it_is = imported_network(chain.layers, chain.activations, metadata)
    difference = _difference(model, reading, as_it_is, chain.is_logarithm)
    precision = ", which computes in float16" if reading.is_half else ""
    note = f"onnxruntime{precision}: largest difference {difference:.1e} on {_ROWS} random inputs"
    activations = with_output(chain.activations, output_activation)
    return imported_network(chain.layers, activations, metadata, (note,))


def _chain(reading: Reading) -> _Chain:
    steps = reading.rows.steps
    is_logarithm = steps[-1:] == (Activation("log_softmax"),)
    if is_logarithm:
        steps = (*steps[:-1], Activation("softmax"))
    layers, activations = fold(steps, int(np.prod(reading.input.shape)))
    return _Chain(layers, activations, is_logarithm)


def _metadata(model: Any, reading: Reading) -> Metadata:
    said = metadata_of({entry.key: entry.value for entry in model.metadata_props})
    producer = f"{model.producer_name} {model.producer_version}".strip()
    origin = {"producer": producer[:200]} if producer else {}
    said = replace(said, origin={**origin, **said.origin})
    if reading.rows.class_names and not said.class_names:
        said = replace(said, class_names=reading.rows.class_names)
    if reading.input.is_bytes:
        said = replace(said, input_kind="pixels", input_maximum=255.0)
    if not said.input_shape:
        said = replace(said, input_shape=reading.input.shape)
    return said


def _difference(model: Any, reading: Reading, found: ImportedNetwork, is_logarithm: bool) -> float:
    """Return the largest difference from onnxruntime; raises UnsupportedModel if it is large."""
    given, network = reading.input, found.network
    rng = np.random.default_rng(0)
    batch = max(given.batch, 1)
    rows = batch * -(-rows_for(found, _ROWS) // batch)
    if given.batch > 1 and rows * max(network.layer_sizes) > MAX_VALUES:
        raise UnsupportedModel(f"the model takes {given.batch} rows at once: export it for 1")
    raw, x = random_inputs(rng, rows, found, given.dtype)
    answers = run(model, given, reading.rows.tensor, raw)
    expected = np.exp(answers) if is_logarithm else answers
    if expected.shape not in ((rows, network.classes), (rows, 1)):
        raise UnsupportedModel(
            f"the model gives {expected.shape[-1]} values for a row, and {network.classes} were "
            "read: it does something that is not supported"
        )
    exact = forward(network, found.weights, x.astype(np.float64))
    single = forward(network, found.weights, x)
    # Where float32 itself is that far from float64, onnxruntime may be as far.
    tolerance = HALF_TOLERANCE if reading.is_half else TOLERANCE
    allowed = tolerance * np.maximum(1, np.abs(exact)) + 10 * np.abs(exact - single)
    # One sigmoid output has become the second of two classes.
    compared = slice(-expected.shape[1], None)
    off = np.abs(expected - exact[:, compared])
    if not (off <= allowed[:, compared]).all():  # also when it is NaN
        raise UnsupportedModel(
            f"what was read differs from what onnxruntime computes, by {np.max(off):.3g}: "
            "the model does something that is not supported"
        )
    return float(off.max())
