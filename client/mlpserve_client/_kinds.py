"""Names of the values of enums; a newer server may send some that are not known here."""

from typing import Any

from mlpserve.v1 import model_pb2


def input_kind(number: int) -> str:
    """Return the name of an InputKind; servers that do not say it have pixels."""
    return _INPUT_KINDS.get(number or model_pb2.INPUT_KIND_PIXELS, "unknown")


def output_kind(number: int) -> str:
    """Return the name of an OutputKind, `unknown` from a server that does not say it."""
    return _OUTPUT_KINDS.get(number, "unknown")


def values_kind(number: int) -> str:
    """Return the name of an InputValues.Kind."""
    return _VALUES_KINDS.get(number, "unknown")


def state(number: int) -> str:
    """Return the name of a version's state, in capitals."""
    return _STATES.get(number, "UNKNOWN")


def _names(enum: Any, prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix).lower() for name, number in enum.items() if number}


# Looked up for every answer: the descriptors would take a microsecond.
_INPUT_KINDS = _names(model_pb2.InputKind, "INPUT_KIND_")
_OUTPUT_KINDS = _names(model_pb2.OutputKind, "OUTPUT_KIND_")
_VALUES_KINDS = _names(model_pb2.InputValues.Kind, "KIND_")
_STATES: dict[int, str] = {
    number: name.removeprefix("STATE_") for name, number in model_pb2.ModelVersion.State.items()
}
