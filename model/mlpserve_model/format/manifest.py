"""The manifest: what a version is, as data. docs/model-format.md is the norm.

Everything a reader needs stands here, so that weights are never guessed at. A manifest is
checked whole when it is read; fields that this version does not know are kept.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlpserve_model.errors import ModelRejected
from mlpserve_model.format import strict_json
from mlpserve_model.nn.network import Network

__all__ = [
    "FORMAT",
    "GOLDEN_FILE",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "VERDICTS",
    "Dataset",
    "FileInfo",
    "Gate",
    "Manifest",
]

FORMAT = 1
MODEL_FILE = "model.npz"
GOLDEN_FILE = "golden.npz"
MANIFEST_FILE = "manifest.json"
VERDICTS = ("PROMOTED", "REJECTED", "FORCED")

# Bounds on what a reader is ready to allocate; far above what this system is made for.
MAX_BYTES = 2**20
MAX_PARAMETERS = 2**26
MAX_LAYERS = 64
MAX_GOLDEN_ROWS = 1024

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\.[a-z0-9]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


_NOT_YET = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """The digest (hex) and the size in bytes of one file."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a version was trained on: a name, "sha256:<hex>" of the data, how it was split."""

    name: str
    digest: str
    split: str


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate's verdict, one of VERDICTS, and its reasons."""

    verdict: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A version's description.

    `input_shape` is the shape of one instance and `input_maximum` the raw uint8 value that
    stands for 1.0. `version`, `files`, `golden_rows` and `created` are set by Store.publish.
    `extra` holds fields unknown to this release, as they were read, and `document` the bytes.
    """

    model: str
    network: Network
    input_shape: tuple[int, ...]
    input_maximum: float
    class_names: tuple[str, ...]
    dataset: Dataset
    recipe: Mapping[str, Any]
    seed: int
    libraries: Mapping[str, str]
    metrics: Mapping[str, float]
    gate: Gate
    version: int = 0
    files: Mapping[str, FileInfo] = field(default_factory=dict)
    golden_rows: int = 0
    created: datetime = _NOT_YET
    extra: Mapping[str, Any] = field(default_factory=dict)
    document: bytes = field(default=b"", repr=False)

    @property
    def own_digest(self) -> str:
        """The version's identity, with its number: "sha256:<hex>" of manifest.json."""
        return f"sha256:{hashlib.sha256(self.document).hexdigest()}"

    @property
    def digest(self) -> str:
        """The weights' identity: "sha256:<hex>" of model.npz."""
        return f"sha256:{self.files[MODEL_FILE].sha256}"

    def to_json(self) -> bytes:
        """The manifest as it stands in manifest.json.

        Raises ModelRejected for what JSON cannot hold, such as a metric that is NaN.
        """
        document = {
            "format": FORMAT,
            "model": self.model,
            "version": self.version,
            "created": self.created.isoformat(),
            "layer_sizes": self.network.layer_sizes,
            "hidden_activation": self.network.hidden_activation,
            "output_activation": self.network.output_activation,
            "input": {"shape": self.input_shape, "maximum": self.input_maximum},
            "class_names": self.class_names,
            "files": {name: asdict(info) for name, info in self.files.items()},
            "golden_rows": self.golden_rows,
            "dataset": asdict(self.dataset),
            "recipe": dict(self.recipe),
            "seed": self.seed,
            "libraries": dict(self.libraries),
            "metrics": dict(self.metrics),
            "gate": asdict(self.gate),
            **self.extra,
        }
        try:
            text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
            return text.encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelRejected(f"{MANIFEST_FILE} cannot be written: {error}") from error

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read and check a manifest; raises ModelRejected saying what is wrong with it."""
        if len(data) > MAX_BYTES:
            raise _wrong("its size", len(data), f"at most {MAX_BYTES}")
        try:
            document = strict_json.parse(data)
        except ValueError as error:
            raise ModelRejected(f"{MANIFEST_FILE} is not JSON: {error}") from error
        number = _integer(document, "format", 1)
        if number != FORMAT:
            raise ModelRejected(f"format {number} is unknown: this release reads format {FORMAT}")
        manifest = cls(
            model=_text(document, "model", NAME),
            version=_integer(document, "version", 1),
            created=_time(document, "created"),
            network=_network(document),
            input_shape=_integers(document, "input.shape"),
            input_maximum=_number(_take(document, "input.maximum"), "input.maximum"),
            class_names=_texts(document, "class_names"),
            files=_files(document),
            golden_rows=_integer(document, "golden_rows", 1, MAX_GOLDEN_ROWS),
            dataset=Dataset(*(_text(document, f"dataset.{key}") for key in _DATASET_KEYS)),
            recipe=_take(document, "recipe", dict),
            seed=_integer(document, "seed", 0),
            libraries={k: str(v) for k, v in _take(document, "libraries", dict).items()},
            metrics={
                name: _number(value, f"metrics[{name[:100]!r}]")
                for name, value in _take(document, "metrics", dict).items()
            },
            gate=Gate(_text(document, "gate.verdict"), _texts(document, "gate.reasons")),
            extra={k: v for k, v in document.items() if k not in _KNOWN},
            document=data,
        )
        _check_consistency(manifest)
        return manifest


_DATASET_KEYS = ("name", "digest", "split")
_KNOWN = frozenset({"format", "model", "version", "created", "layer_sizes", "hidden_activation",
    "output_activation", "input", "class_names", "files", "golden_rows", "dataset", "recipe",
    "seed", "libraries", "metrics", "gate"})  # fmt: skip


def _wrong(path: str, value: object, expected: str) -> ModelRejected:
    shown = repr(value)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
    return ModelRejected(f"{MANIFEST_FILE}: {path} is {shown}, expected {expected}")


def _take(document: object, path: str, kind: type = object) -> Any:
    """The value at a dotted path, when it is there and of this kind."""
    value = document
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ModelRejected(f"{MANIFEST_FILE} has no {path}")
        value = value[key]
    if not isinstance(value, kind):
        raise _wrong(path, value, f"a {kind.__name__}")
    return value


def _integer(document: object, path: str, low: int, high: int = 2**63 - 1) -> int:
    value = _take(document, path)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(path, value, f"an integer from {low} to {high}")
    return value


def _integers(document: object, path: str) -> tuple[int, ...]:
    value = _take(document, path, list)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in value)
    if not whole or not 1 <= len(value) <= MAX_LAYERS:
        raise _wrong(path, value, f"1 to {MAX_LAYERS} integers >= 1")
    return tuple(value)


def _number(value: object, path: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer beyond the largest float
            if math.isfinite(value):
                return float(value)
    raise _wrong(path, value, "a finite number")


def _text(document: object, path: str, pattern: re.Pattern[str] | None = None) -> str:
    value: str = _take(document, path, str)
    if pattern and not pattern.fullmatch(value):
        raise _wrong(path, value, f"text that matches {pattern.pattern}")
    return value


def _texts(document: object, path: str) -> tuple[str, ...]:
    value = _take(document, path, list)
    if not all(isinstance(text, str) for text in value):
        raise _wrong(path, value, "a list of strings")
    return tuple(value)


def _time(document: object, path: str) -> datetime:
    value = _text(document, path)
    try:
        time = datetime.fromisoformat(value)
        time.astimezone(UTC)  # the offset may lead out of the calendar
    except (ValueError, OverflowError) as error:
        raise _wrong(path, value, "an ISO 8601 time") from error
    if time.tzinfo is None:
        raise _wrong(path, value, "a time with its offset from UTC")
    return time


def _network(document: object) -> Network:
    sizes = _integers(document, "layer_sizes")
    activations = (_text(document, "hidden_activation"), _text(document, "output_activation"))
    try:
        network = Network(sizes, *activations)
    except ValueError as error:
        raise ModelRejected(f"{MANIFEST_FILE}: {error}") from error
    if network.parameters > MAX_PARAMETERS:
        raise _wrong("layer_sizes", sizes, f"at most {MAX_PARAMETERS} parameters")
    return network


def _files(document: object) -> dict[str, FileInfo]:
    names = _take(document, "files", dict)
    for name in names:
        # The name becomes a path: nothing that could leave the version's folder.
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
            raise _wrong("files", name, f"names that match {_FILE_NAME.pattern}")
    for required in (MODEL_FILE, GOLDEN_FILE):
        if required not in names:
            raise ModelRejected(f"{MANIFEST_FILE} lists no {required}")
    return {name: _file_info(info, f"files: {name}") for name, info in names.items()}


def _file_info(info: object, path: str) -> FileInfo:
    if not isinstance(info, dict):
        raise _wrong(path, info, "an object with sha256 and size")
    return FileInfo(_text(info, "sha256", _SHA256), _integer(info, "size", 0))


def _check_consistency(manifest: Manifest) -> None:
    network = manifest.network
    if math.prod(manifest.input_shape) != network.inputs:
        raise _wrong("input.shape", manifest.input_shape, f"a product of {network.inputs}")
    # The self-test computes every layer for all golden rows at once.
    if manifest.golden_rows * max(network.layer_sizes) > MAX_PARAMETERS:
        most = MAX_PARAMETERS // max(network.layer_sizes)
        raise _wrong("golden_rows", manifest.golden_rows, f"at most {most} for these layers")
    if not 0 < manifest.input_maximum <= 255:
        raise _wrong("input.maximum", manifest.input_maximum, "above 0 and at most 255")
    names = manifest.class_names
    if len(names) != network.classes or len(set(names)) != len(names) or "" in names:
        raise _wrong("class_names", names, f"{network.classes} different names")
    if manifest.gate.verdict not in VERDICTS:
        raise _wrong("gate.verdict", manifest.gate.verdict, f"one of {', '.join(VERDICTS)}")
