"""Tables and values as people read them in a terminal."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["described", "plain", "readable", "table"]

# Of a list, so many values at each end.
_ENDS = 3
_DIGEST = re.compile(r"((?:sha256:)?[0-9a-f]{12})[0-9a-f]{20,}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the rows below the header, in columns; what is not printable is escaped."""
    lines = [tuple(header), *(tuple(map(plain, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def described(document: Mapping[str, Any]) -> list[str]:
    """Return a JSON document as lines: a value each, those of an object below its name."""
    lines: list[str] = []
    width = max(map(len, map(plain, document)), default=0)
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            below = max(map(len, map(plain, value)))
            lines += [plain(key)]
            lines += [f"  {plain(k):{below}}  {readable(v)}".rstrip() for k, v in value.items()]
        else:
            lines.append(f"{plain(key):{width}}  {readable(value)}".rstrip())
    return lines


def readable(value: Any) -> str:
    """Return a value of a JSON document on one line: 4 digits, digests and long lists cut."""
    match value:
        case bool() | None:
            return json.dumps(value)
        case float():
            return f"{value:.4g}"
        case str():
            return _DIGEST.sub(r"\1...", plain(value))
        case Mapping():
            return ", ".join(f"{plain(str(k))} {readable(v)}" for k, v in value.items())
        case list() | tuple():
            return _listed([readable(item) for item in value])
    return str(value)


def plain(text: str) -> str:
    """Return the text on one line, with nothing in it that a terminal obeys."""
    return text if text.isprintable() else json.dumps(text)


def _listed(items: Sequence[str]) -> str:
    between = "; " if any("," in item for item in items) else ", "
    if len(items) <= 4 * _ENDS:
        return between.join(items)
    ends = [*items[:_ENDS], "...", *items[-_ENDS:]]
    return f"{between.join(ends)} ({len(items)})"
