"""Strict JSON: whatever is read can be written again, by any program."""

import json
from collections import Counter
from typing import Any

__all__ = ["parse"]

MAX_DEPTH = 32
_MAX_DIGITS = 4300


def parse(data: bytes) -> Any:
    """Return the document; raises ValueError unless it is finite, shallow UTF-8, each key once."""
    try:
        document = json.loads(
            data.decode(),
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
        # Lone surrogates and 1e999 can be read, as escapes and numbers, but not be written.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    except UnicodeError as error:
        raise ValueError("not UTF-8, or with half of a surrogate pair") from error
    _check_depth(document)
    return document


def _check_depth(document: object) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:  # Python's own limit, which it explains with its own functions
        raise ValueError(f"an integer of {len(text)} digits, expected at most {_MAX_DIGITS}")
    return int(text)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0][:50]!r} is repeated")
    return document
