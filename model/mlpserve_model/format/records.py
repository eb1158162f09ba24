"""aliases.json and history.jsonl: their contents as bytes and as Python objects."""

import getpass
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from mlpserve_model.format import strict_json

__all__ = [
    "ALIAS",
    "ALIASES_FILE",
    "HISTORY_FILE",
    "actor",
    "decode_aliases",
    "decode_events",
    "encode_aliases",
    "encode_event",
    "highest_recorded",
    "recently_published",
    "recorded_digests",
]

ALIASES_FILE, HISTORY_FILE = "aliases.json", "history.jsonl"
ALIAS = re.compile(r"[a-z][a-z0-9-]{0,62}")
# Writers of an object store that race record their versions in another order than the numbers'.
_RECENT = 100


def decode_aliases(data: bytes) -> dict[str, int]:
    """Return where every alias points; raises ValueError for anything else."""
    try:
        document = strict_json.parse(data)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or not all(map(_is_alias, document.items())):
        raise ValueError("not an object of aliases and version numbers")
    return document


def encode_aliases(aliases: Mapping[str, int]) -> bytes:
    """Return the text of aliases.json."""
    return json.dumps(dict(aliases), indent=2, sort_keys=True).encode() + b"\n"


def decode_events(data: bytes) -> list[dict[str, Any]]:
    """Return the events of a history, in its order; a line torn by a crash is left out."""
    return list(_events(data))


def recorded_digests(data: bytes) -> dict[int, str | None]:
    """Return the numbers in a history, each with the manifest's digest as it was last published.

    The digest is None where the event has none, as those of older releases.
    """
    return _digests(_events(data))  # not all at once: they take seven times their text


def recently_published(data: bytes) -> dict[int, str | None]:
    """Return what `recorded_digests` does of the versions published by the last hundred events.

    Which is all that one who follows a store needs of a history however long. The bytes may begin
    within a line.
    """
    events = [
        event for line in islice(_lines_from_the_end(data), _RECENT) if (event := _event(line))
    ]
    published = [event for event in reversed(events) if event.get("event") == "publish"]
    return _digests(published)


def highest_recorded(data: bytes) -> int:
    """Return the highest number in a history, 0 if there is none.

    Numbers are given out in ascending order. So it reads the last hundred events, and on to the
    last one that published: a history grows, and its length must not slow publishing down.
    """
    highest, published = 0, False
    for count, line in enumerate(_lines_from_the_end(data)):
        if published and count >= _RECENT:
            break
        if event := _event(line):
            highest = max(highest, _version(event))
            published = published or event.get("event") == "publish"
    return highest


def encode_event(event: Mapping[str, Any]) -> bytes:
    """Return one line of a history, without its newline."""
    # Text from a terminal that is not valid UTF-8 stays readable as JSON's own escapes.
    return json.dumps(dict(event), ensure_ascii=False).encode(errors="backslashreplace")


def actor() -> str:
    """Return the user and the host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _digests(events: Iterable[Mapping[str, Any]]) -> dict[int, str | None]:
    found: dict[int, str | None] = {}
    for event in events:
        if version := _version(event):
            digest = event.get("manifest")
            if event.get("event") == "publish":
                found[version] = digest if isinstance(digest, str) else None
            else:
                found.setdefault(version, None)
    return found


def _is_alias(item: tuple[object, object]) -> bool:
    alias, version = item
    named = isinstance(alias, str) and ALIAS.fullmatch(alias) is not None
    return named and type(version) is int and 1 <= version < 2**63


def _events(data: bytes) -> Iterator[dict[str, Any]]:
    return (event for line in data.splitlines() if (event := _event(line)) is not None)


def _lines_from_the_end(data: bytes) -> Iterator[bytes]:
    end = len(data)
    while end > 0:
        start = data.rfind(b"\n", 0, end) + 1
        if start < end:
            yield data[start:end]
        end = start - 1


def _version(event: Mapping[str, Any]) -> int:
    """Return the number of the version that an event is about, 0 if it is about none."""
    version = event.get("version")
    return version if type(version) is int and 1 <= version < 10**18 else 0


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
