"""Reads a file of any supported format as a network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.interchange import npz_file, safetensors_file
from mlpserve_model.interchange.files import check_kind, read_file, without_onnx
from mlpserve_model.interchange.imported import ImportedNetwork
from mlpserve_model.interchange.named_arrays import network_of_arrays
from mlpserve_model.interchange.skops_file import import_skops
from mlpserve_model.nn.types import Array
from mlpserve_model.process.tables import plain

__all__ = ["ImportOptions", "import_network"]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a file may leave open.

    Attributes:
        activations: One for each layer, for files of arrays.
        layers: The layers of a file of arrays in their order, if it is not that of the names.
        orientation: Whether weights are "inputs-units" or "units-inputs", if both fit.
        output_activation: What turns logits into probabilities.
        output_name: The output of an ONNX model, if several differ.
        input_shape: The shape of one instance.
        class_names: One name for each class.
        input_kind: "pixels" or "real".
        input_maximum: The raw uint8 value that stands for 1.0, of pixels.

    """

    activations: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    orientation: str | None = None
    output_activation: str | None = None
    output_name: str | None = None
    input_shape: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    input_kind: str = ""
    input_maximum: float = 0.0


def import_network(path: Path, options: ImportOptions) -> ImportedNetwork:
    """Read a file as a network; what the options say takes the place of what the file says.

    Raises:
        UnsupportedModel: It cannot be a version; the message says why and what to do.

    """
    check_kind(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise UnsupportedModel(
            f"{plain(path.name)} has the ending {plain(suffix) or 'of no format'}: "
            f"expected one of {', '.join(_READERS)}"
        )
    try:
        # Where numbers are not finite, the layer that they end in is refused.
        with np.errstate(all="ignore"):
            found = _READERS[suffix](path, options)
    except UnsupportedModel as error:
        text, shown = str(error), plain(path.name)
        raise UnsupportedModel(text if shown in text else f"{shown}: {text}") from error
    said = {
        name: getattr(options, name)
        for name in ("input_shape", "class_names", "input_kind", "input_maximum")
        if getattr(options, name)
    }
    return replace(found, metadata=replace(found.metadata, **said))


def _onnx(path: Path, options: ImportOptions) -> ImportedNetwork:
    # Imported here: no other format needs these packages.
    try:
        from mlpserve_model.interchange.onnx_import import import_onnx
    except ModuleNotFoundError as error:
        raise without_onnx(error) from error
    return import_onnx(path, options.input_shape, options.output_name, options.output_activation)


def _safetensors(path: Path, options: ImportOptions) -> ImportedNetwork:
    return _arrays(*safetensors_file.decode(read_file(path)), options)


def _npz(path: Path, options: ImportOptions) -> ImportedNetwork:
    return _arrays(*npz_file.decode(path), options)


def _arrays(
    arrays: dict[str, Array], entries: dict[str, str], options: ImportOptions
) -> ImportedNetwork:
    return network_of_arrays(
        arrays,
        entries,
        options.activations,
        options.layers,
        options.orientation,
        options.output_activation,
    )


def _skops(path: Path, options: ImportOptions) -> ImportedNetwork:
    return import_skops(path)


_READERS: dict[str, Callable[[Path, ImportOptions], ImportedNetwork]] = {
    ".onnx": _onnx,
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".skops": _skops,
}
