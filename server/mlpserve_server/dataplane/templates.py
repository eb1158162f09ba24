"""Requests that differ from an earlier one in their values alone, which need no parsing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mlpserve_server.errors import InvalidInput

__all__ = ["Templates"]

# One for each length: callers that send the same kind of request send it in the same length.
_MAX_TEMPLATES = 64
# Longer requests are rare, and making a template takes three more copies of one.
_MAX_BYTES = 1 << 20
# Of longer requests one alone makes no template, only the second of the same length in a row:
# making one costs six times as much as parsing, and batches may each have a length of their own.
_LONG_BYTES = 64 << 10
# What a template keeps of a request, which is all but its values.
_MAX_AROUND = 64 << 10
# Requests of the same length that do not fit before another is tried: making one costs as much as
# parsing does, and callers that send by turns what fits and what does not should not pay for that.
_PATIENCE = 16

_OTHERS = bytes(range(255, -1, -1))  # to each byte another one


class _Query(Protocol):
    @property
    def data(self) -> bytes: ...


Q = TypeVar("Q", bound=_Query)


@dataclass(slots=True)
class _Template(Generic[Q]):
    """The bytes before and behind the values of a request, and its query."""

    before: bytes
    behind: bytes
    query: Q
    misfits: int = 0


class Templates(Generic[Q]):
    """Decodes requests; those that differ from an earlier one in their values alone unparsed.

    Most callers send the same request again and again with other values. To compare the bytes
    around the values costs a third of parsing them.

    Args:
        parse: returns the query in a request; raises InvalidInput.
        with_data: returns a query with other values.

    """

    def __init__(self, parse: Callable[[bytes], Q], with_data: Callable[[Q, bytes], Q]) -> None:
        self._parse = parse
        self._with_data = with_data
        self._by_length: dict[int, _Template[Q]] = {}
        self._last_long = 0

    def decode(self, request: bytes) -> Q:
        """Return the query in a request; raise InvalidInput if there is none."""
        known = self._by_length.get(len(request))
        if known is None:
            return self._learn(request)
        before, behind = known.before, known.behind
        if request.startswith(before) and request.endswith(behind):
            return self._with_data(known.query, request[len(before) : len(request) - len(behind)])
        known.misfits += 1
        return self._learn(request) if known.misfits >= _PATIENCE else self._parse(request)

    def _learn(self, request: bytes) -> Q:
        """Parse a request, and keep what is around its values if they can be told apart."""
        query = self._parse(request)
        template = self._template(request, query) if self._is_worth_one(len(request)) else None
        if template:
            if len(self._by_length) >= _MAX_TEMPLATES:
                self._by_length.clear()
            self._by_length[len(request)] = template
        return query

    def _is_worth_one(self, length: int) -> bool:
        """Return whether to make a template of a request that has none."""
        if length <= _LONG_BYTES:
            return True
        last, self._last_long = self._last_long, length
        return length == last and length <= _MAX_BYTES

    def _template(self, request: bytes, query: Q) -> _Template[Q] | None:
        """Return the template of a request; None if its values stand at no place of their own.

        The parser is the judge: with every byte of the values changed, it must find exactly these
        values, and nothing else changed. Then it takes them for the content of a field, whose
        length stands before them, and reads on behind them whatever they are. And with values of
        255 alone, which integers of variable length take two bytes for: 1 and 254 are written as
        three bytes that pass for two values and what is behind them.
        """
        if not query.data or len(request) - len(query.data) > _MAX_AROUND:
            return None
        place = request.find(query.data)
        if place < 0:
            return None
        before, behind = request[:place], request[place + len(query.data) :]
        for others in (query.data.translate(_OTHERS), b"\xff" * len(query.data)):
            try:
                if self._parse(before + others + behind) != self._with_data(query, others):
                    return None
            except InvalidInput:
                return None
        return _Template(before, behind, self._with_data(query, b""))
