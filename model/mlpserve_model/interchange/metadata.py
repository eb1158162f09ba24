"""What a file of another format says of a version: its names, its inputs, where it came from."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from mlpserve_model.format import strict_json
from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.manifest import INPUT_KINDS, InputValues, Manifest
from mlpserve_model.interchange.imported import Metadata

__all__ = ["ORIENTATION", "activations_of", "describe", "metadata_of"]

_PREFIX = "mlpserve."
ORIENTATION = f"{_PREFIX}orientation"  # of the weights in a file of arrays
_ORIGIN = ("model", "version", "digest", "manifest", "created", "dataset", "dataset_digest")


def describe(manifest: Manifest) -> dict[str, str]:
    """Return labels and provenance of a version as texts; those that are no text are JSON."""
    signature, network = manifest.signature, manifest.network
    facts: dict[str, Any] = {
        "model": manifest.model,
        "version": manifest.version,
        "digest": manifest.digest,
        "manifest": manifest.own_digest,
        "created": manifest.created.isoformat(),
        "dataset": manifest.dataset.name,
        "dataset_digest": manifest.dataset.digest,
        "class_names": signature.class_names,
        "input_shape": signature.input_shape,
        "input_kind": signature.input_kind,
        "input_maximum": signature.input_maximum,
        "input_values": asdict(manifest.input_values) if manifest.input_values else None,
        "activations": network.activations,
        "metrics": dict(manifest.metrics),
        "verdict": manifest.gate.verdict,
    }
    return {
        f"{_PREFIX}{name}": fact if isinstance(fact, str) else json.dumps(fact, ensure_ascii=False)
        for name, fact in facts.items()
    }


def metadata_of(entries: Mapping[str, str]) -> Metadata:
    """Return what a file's entries say, those of `describe`; others are left alone.

    Raises:
        UnsupportedModel: An entry of ours is damaged.

    """
    kind = entries.get(f"{_PREFIX}input_kind", "")
    if kind and kind not in INPUT_KINDS:
        raise UnsupportedModel(f"the file says input_kind {kind[:50]!r}, which is not known")
    values = _parsed(entries, "input_values", _are_values, None)
    means = values.pop("means") if values else ()
    origin = {
        name: entries[f"{_PREFIX}{name}"] for name in _ORIGIN if f"{_PREFIX}{name}" in entries
    }
    return Metadata(
        class_names=tuple(_parsed(entries, "class_names", _is_texts, [])),
        input_shape=tuple(_parsed(entries, "input_shape", _is_sizes, [])),
        input_kind=kind,
        input_maximum=float(_parsed(entries, "input_maximum", _is_maximum, 0)),
        input_values=InputValues(**values, means=tuple(means)) if values else None,
        origin=origin,
    )


def activations_of(entries: Mapping[str, str]) -> list[str]:
    """Return the activations that a file says, of each layer; none if it does not say."""
    return list(_parsed(entries, "activations", _is_texts, []))


def _parsed(
    entries: Mapping[str, str], name: str, is_valid: Callable[[Any], bool], default: Any
) -> Any:
    text = entries.get(f"{_PREFIX}{name}")
    if text is None:
        return default
    with suppress(ValueError):
        value = strict_json.parse(text.encode(errors="replace"))
        if is_valid(value):
            return value
    raise UnsupportedModel(f"the file's entry {_PREFIX}{name} is damaged: {text[:50]!r}")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(size) is int and 1 <= size < 2**31 for size in value
    )


def _are_values(value: Any) -> bool:
    number = int | float
    match value:
        case {"kind": str(), "low": low, "high": high, "means": list(means), **more} if not more:
            return all(isinstance(each, number) for each in (low, high, *means))
    return value is None


def _is_maximum(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 255
