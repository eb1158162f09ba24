"""Reads a manifest and checks every field of it."""

import math
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from mlpserve_model.format import strict_json
from mlpserve_model.format.errors import CorruptVersion
from mlpserve_model.format.manifest import (
    FORMAT_1_HIDDEN,
    FORMAT_1_OUTPUT,
    FORMATS,
    GOLDEN_FILE,
    INPUT_KINDS,
    MANIFEST_FILE,
    MAX_BYTES,
    MAX_GOLDEN_ROWS,
    MAX_LAYERS,
    MAX_PARAMETERS,
    MODEL_FILE,
    NAME,
    VERDICTS,
    DatasetInfo,
    FileInfo,
    InputValues,
    Manifest,
    Signature,
    Verdict,
)
from mlpserve_model.nn.network import Network

__all__ = ["read_manifest"]

_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\.[a-z0-9]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATASET_KEYS = ("name", "digest", "split")
_KNOWN = frozenset({"format", "model", "version", "created", "layer_sizes", "input", "class_names",
    "files", "golden_rows", "dataset", "recipe", "seed", "libraries", "metrics",
    "gate"})  # fmt: skip
# The fields in which each format has the activations.
_ACTIVATIONS = {1: ("hidden_activation", "output_activation"), 2: ("activations",)}


def read_manifest(data: bytes) -> Manifest:
    """Parse these bytes as a manifest.

    Raises:
        CorruptVersion: It is wrong; the message says what.

    """
    if len(data) > MAX_BYTES:
        raise _wrong("its size", len(data), f"at most {MAX_BYTES}")
    try:
        document = strict_json.parse(data)
    except ValueError as error:
        raise CorruptVersion(f"{MANIFEST_FILE} is not JSON: {error}") from error
    number = _integer(document, "format", 1)
    if number not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise CorruptVersion(f"format {number} is unknown: this release reads {known}")
    _check_activation_fields(document, number)
    manifest = Manifest(
        model=_text(document, "model", NAME),
        version=_integer(document, "version", 1),
        created=_time(document, "created"),
        network=_network(document, number),
        signature=Signature(
            input_shape=_integers(document, "input.shape"),
            input_maximum=_number(_take(document, "input.maximum"), "input.maximum"),
            class_names=_texts(document, "class_names"),
            input_kind=_input_kind(document, number),
        ),
        files=_files(document),
        golden_rows=_integer(document, "golden_rows", 1, MAX_GOLDEN_ROWS),
        dataset=DatasetInfo(*(_text(document, f"dataset.{key}") for key in _DATASET_KEYS)),
        recipe=_take(document, "recipe", dict),
        seed=_integer(document, "seed", 0),
        libraries={k: str(v) for k, v in _take(document, "libraries", dict).items()},
        metrics={
            name: _number(value, f"metrics[{name[:100]!r}]")
            for name, value in _take(document, "metrics", dict).items()
        },
        gate=Verdict(_text(document, "gate.verdict"), _texts(document, "gate.reasons")),
        input_values=_input_values(document),
        extra={k: v for k, v in document.items() if k not in _KNOWN | set(_ACTIVATIONS[number])},
        document=data,
    )
    _check_consistency(manifest)
    return manifest


def _wrong(path: str, value: object, expected: str) -> CorruptVersion:
    shown = repr(value)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
    return CorruptVersion(f"{MANIFEST_FILE}: {path} is {shown}, expected {expected}")


def _take(document: object, path: str, kind: type = object) -> Any:
    """Return the value at a dotted path; raises CorruptVersion unless it is of this kind."""
    value = document
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise CorruptVersion(f"{MANIFEST_FILE} has no {path}")
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
        time.astimezone(UTC)  # with its offset the time may be outside the calendar
    except (ValueError, OverflowError) as error:
        raise _wrong(path, value, "an ISO 8601 time") from error
    if time.tzinfo is None:
        raise _wrong(path, value, "a time with its offset from UTC")
    return time


def _check_activation_fields(document: Any, number: int) -> None:
    """Raise CorruptVersion if a format-2 manifest has the fields of format 1 too.

    Two readers might otherwise compute two different networks from it.
    """
    if number > 1 and (found := [name for name in _ACTIVATIONS[1] if name in document]):
        raise CorruptVersion(f"{MANIFEST_FILE} has activations and {found[0]}, expected one")


def _network(document: object, number: int) -> Network:
    sizes = _integers(document, "layer_sizes")
    try:
        if number == 1:
            hidden, output = _format_1_activations(document)
            network = Network.uniform(sizes, hidden, output)
        elif activations := _texts(document, "activations"):
            network = Network(sizes, activations)
        else:
            raise _wrong("activations", activations, "one for each layer")
    except ValueError as error:
        raise CorruptVersion(f"{MANIFEST_FILE}: {error}") from error
    if network.parameters > MAX_PARAMETERS:
        raise _wrong("layer_sizes", sizes, f"at most {MAX_PARAMETERS} parameters")
    return network


def _format_1_activations(document: object) -> tuple[str, str]:
    hidden = _text(document, "hidden_activation")
    output = _text(document, "output_activation")
    if hidden not in FORMAT_1_HIDDEN:
        raise _wrong("hidden_activation", hidden, f"one of {', '.join(FORMAT_1_HIDDEN)}")
    if output not in FORMAT_1_OUTPUT:
        raise _wrong("output_activation", output, f"one of {', '.join(FORMAT_1_OUTPUT)}")
    return hidden, output


def _input_kind(document: object, number: int) -> str:
    if number == 1:
        return INPUT_KINDS[0]
    kind = _text(document, "input.kind")
    if kind not in INPUT_KINDS:
        raise _wrong("input.kind", kind, f"one of {', '.join(INPUT_KINDS)}")
    return kind


def _input_values(document: object) -> InputValues | None:
    if "values" not in _take(document, "input", dict):  # older releases did not write it
        return None
    low, high = (
        _number(_take(document, f"input.values.{end}"), f"input.values.{end}")
        for end in ("low", "high")
    )
    path = "input.values.means"
    means: tuple[float, ...] = ()
    if "means" in _take(document, "input.values", dict):
        means = tuple(_number(value, path) for value in _take(document, path, list))
    return InputValues(_text(document, "input.values.kind"), low, high, means)


def _files(document: object) -> dict[str, FileInfo]:
    names = _take(document, "files", dict)
    for name in names:
        # The name becomes a path, which must not leave the version's folder.
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
            raise _wrong("files", name, f"names that match {_FILE_NAME.pattern}")
    for required in (MODEL_FILE, GOLDEN_FILE):
        if required not in names:
            raise CorruptVersion(f"{MANIFEST_FILE} lists no {required}")
    return {name: _file_info(info, f"files: {name}") for name, info in names.items()}


def _file_info(info: object, path: str) -> FileInfo:
    if not isinstance(info, dict):
        raise _wrong(path, info, "an object with sha256 and size")
    return FileInfo(_text(info, "sha256", _SHA256), _integer(info, "size", 0))


def _check_consistency(manifest: Manifest) -> None:
    network, signature = manifest.network, manifest.signature
    if math.prod(signature.input_shape) != network.inputs:
        raise _wrong("input.shape", signature.input_shape, f"a product of {network.inputs}")
    # The self-test computes every layer for all golden rows at once.
    if manifest.golden_rows * max(network.layer_sizes) > MAX_PARAMETERS:
        most = MAX_PARAMETERS // max(network.layer_sizes)
        raise _wrong("golden_rows", manifest.golden_rows, f"at most {most} for these layers")
    if not 0 < signature.input_maximum <= 255:
        raise _wrong("input.maximum", signature.input_maximum, "above 0 and at most 255")
    means = manifest.input_values.means if manifest.input_values else ()
    if means and len(means) != network.inputs:
        raise _wrong("input.values.means", means[:3], f"{network.inputs} numbers")
    names = signature.class_names
    if len(names) != network.classes or len(set(names)) != len(names) or "" in names:
        raise _wrong("class_names", names, f"{network.classes} different names")
    if manifest.gate.verdict not in VERDICTS:
        raise _wrong("gate.verdict", manifest.gate.verdict, f"one of {', '.join(VERDICTS)}")
