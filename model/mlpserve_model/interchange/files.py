"""Files that people want to import: opened with care, and told apart by what they hold."""

import io
import zipfile
from pathlib import Path

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.manifest import MAX_PARAMETERS
from mlpserve_model.format.npz_reader import check_directory
from mlpserve_model.process.tables import plain
from mlpserve_model.store.atomic_files import UnusableFile, open_regular

__all__ = ["MAX_FILE_BYTES", "check_kind", "open_file", "read_file", "without_onnx"]

# All parameters as float64, and what describes them.
MAX_FILE_BYTES = 8 * MAX_PARAMETERS + 2**24
_PICKLE = "is a pickle, which runs code when it is read: it is never opened; "
_ADVICE = {
    "torch": "export the model with torch.onnx.export(model, example, 'model.onnx'), or save its "
    "state_dict with safetensors.torch.save_file",
    "scikit-learn": "where it was made, write it with skops.io.dump(model, 'model.skops')",
    "keras": "convert it with tf2onnx, or save the arrays with numpy.savez",
}


def without_onnx(error: ModuleNotFoundError) -> UnsupportedModel:
    """Return the error that says which extra to install."""
    return UnsupportedModel(
        f"ONNX files need the package {error.name}: install the extra onnx, "
        "in a checkout: pip install '.[onnx]'"
    )


def open_file(path: Path) -> io.BufferedReader:
    """Open a file that the user named; raises UnsupportedModel if it is none."""
    try:
        return open_regular(path)
    except UnusableFile as error:
        raise UnsupportedModel(plain(f"{path.parent / str(error)}")) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UnsupportedModel(f"{plain(str(path))} cannot be read: {reason}") from error


def read_file(path: Path) -> bytes:
    """Return a whole file of at most MAX_FILE_BYTES; raises UnsupportedModel."""
    with open_file(path) as file:
        size = file.seek(0, io.SEEK_END)
        if size > MAX_FILE_BYTES:
            raise UnsupportedModel(
                f"{plain(str(path))} has {size} bytes, expected at most {MAX_FILE_BYTES}"
            )
        file.seek(0)
        return file.read(size)


def check_kind(path: Path) -> None:
    """Raise UnsupportedModel for pickles and other files that are never read, with the way out.

    What a file holds decides, not its name: a pickle may be called model.onnx.
    """
    with open_file(path) as file:
        begin = file.read(16)
        advice = _advice(file, begin, path.suffix.lower())
    if advice:
        raise UnsupportedModel(f"{plain(path.name)} {advice}")


def _advice(file: io.BufferedReader, begin: bytes, suffix: str) -> str:
    """Return what is wrong with a kind of file and what to do; empty for the others."""
    if _is_pickle(begin):
        which = "torch" if suffix in (".pt", ".pth") else "scikit-learn"
        return _PICKLE + _ADVICE[which]
    if begin[:4] == b"PK\3\4" and _holds_torch(file):
        return f"is a file of torch.save: it {_PICKLE}{_ADVICE['torch']}"
    if suffix in (".pkl", ".pickle", ".joblib"):
        return _PICKLE + _ADVICE["scikit-learn"]
    if suffix in (".pt", ".pth"):
        return f"is a file of torch, which may be a pickle and is never opened; {_ADVICE['torch']}"
    if begin[:8] == b"\x89HDF\r\n\x1a\n" or suffix in (".h5", ".keras", ".tflite", ".pb"):
        return f"is a file of Keras or TensorFlow, which is not read; {_ADVICE['keras']}"
    return ""


def _is_pickle(begin: bytes) -> bool:
    # The length of a safetensors header may begin alike; its JSON follows after 8 bytes.
    protocols = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
    return begin.startswith(protocols) and begin[8:9] != b"{"


def _holds_torch(file: io.BufferedReader) -> bool:
    try:
        check_directory(file)
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except Exception:  # whatever else is wrong with it, its reader says
        return False
