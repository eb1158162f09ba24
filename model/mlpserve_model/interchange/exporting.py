"""Writes a version as a file of another format."""

from collections.abc import Callable
from pathlib import Path

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.version_files import StoredModel
from mlpserve_model.interchange import npz_file, safetensors_file
from mlpserve_model.interchange.c_header import export_c
from mlpserve_model.interchange.files import without_onnx
from mlpserve_model.interchange.metadata import ORIENTATION, describe
from mlpserve_model.interchange.named_arrays import INPUTS_UNITS
from mlpserve_model.nn.types import Array
from mlpserve_model.process.tables import plain
from mlpserve_model.store.atomic_files import write_atomic

__all__ = ["FORMATS", "export_network", "write_export"]

FORMATS = {"onnx": ".onnx", "safetensors": ".safetensors", "npz": ".npz", "c": ".h"}


def export_network(model: StoredModel, kind: str) -> bytes:
    """Return a version in one of FORMATS; equal versions give equal bytes.

    Raises:
        UnsupportedModel: A package is missing, or the version is too large for the format.

    """
    return _WRITERS[kind](model)


def write_export(path: Path, data: bytes, replace: bool) -> None:
    """Write a file that is whole when it gets its name; raises UnsupportedModel."""
    is_link = path.is_symlink()
    if not replace and (path.exists() or is_link):
        raise UnsupportedModel(f"{plain(str(path))} exists: --force replaces it")
    if is_link or (path.exists() and not path.is_file()):
        # Replaced all the same by the rename: /dev/null, if root exports to it.
        raise UnsupportedModel(
            f"{plain(str(path))} is not a regular file: expected one, or a name that is not taken"
        )
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UnsupportedModel(
            f"{plain(str(path))} cannot be written: {error.strerror or error}"
        ) from error


def _onnx(model: StoredModel) -> bytes:
    # Imported here: no other format needs these packages.
    try:
        from mlpserve_model.interchange.onnx_export import export_onnx
    except ModuleNotFoundError as error:
        raise without_onnx(error) from error
    return export_onnx(model)


def _arrays(model: StoredModel) -> dict[str, Array]:
    """Return w1, b1, w2, b2, ...; weights are (inputs, units)."""
    return {
        f"{part}{i}": array
        for i, layer in enumerate(model.weights, 1)
        for part, array in (("w", layer.w), ("b", layer.b))
    }


def _entries(model: StoredModel) -> dict[str, str]:
    return describe(model.manifest) | {ORIENTATION: INPUTS_UNITS}


_WRITERS: dict[str, Callable[[StoredModel], bytes]] = {
    "onnx": _onnx,
    "safetensors": lambda m: safetensors_file.encode(_arrays(m), _entries(m)),
    "npz": lambda m: npz_file.encode(_arrays(m), _entries(m)),
    "c": export_c,
}
