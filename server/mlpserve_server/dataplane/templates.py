"""Requests that differ from an earlier one in their values alone, which need no parsing."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mlpserve_server.errors import InvalidInput

__all__ = ["Templates"]

# One for each length: callers that send the same kind of request send it in the same length.
_MAX_LENGTHS = 64
# Longer requests are rare, and making a template takes five more copies of one.
_MAX_BYTES = 1 << 20
# What a template keeps of a request, which is all but its values.
_MAX_AROUND = 4 << 10
# Requests of the same length that do not fit, or of which none could be made, before another is
# tried: making one costs more than parsing does, and callers that send by turns what fits and what
# does not should not pay for that. The second of a length is tried at once, and not the first:
# batches may each have a length of their own.
_PATIENCE = 16
# By which the values are looked for. To look for all of them can take a time that grows with the
# square of their length, if they repeat themselves.
_HEAD_BYTES = 5

_OTHERS = bytes(range(255, -1, -1))  # to each byte another one
_FULL = b"\xff" * 256  # to each byte 255


class _Query(Protocol):
    @property
    def data(self) -> bytes: ...


Q = TypeVar("Q", bound=_Query)


@dataclass(slots=True)
class _Template(Generic[Q]):
    """What is known of the requests of a length.

    Attributes:
        missed: how many did not fit since a template was tried.
        query: that of the template; None if there is none.
        before: the bytes before the values.
        behind: the bytes behind them.
    """

    missed: int
    query: Q | None = None
    before: bytes = b""
    behind: bytes = b""


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
        self._by_length: OrderedDict[int, _Template[Q]] = OrderedDict()

    def decode(self, request: bytes) -> Q:
        """Return the query in a request; raise InvalidInput if there is none."""
        known = self._by_length.get(len(request))
        if (
            known is not None
            and known.query is not None
            and request.startswith(known.before)
            and request.endswith(known.behind)
        ):
            values = request[len(known.before) : len(request) - len(known.behind)]
            return self._with_data(known.query, values)
        query = self._parse(request)
        if len(request) <= _MAX_BYTES:
            self._missed(known or self._new(len(request)), request, query)
        return query

    def _new(self, length: int) -> _Template[Q]:
        while len(self._by_length) >= _MAX_LENGTHS:
            self._by_length.popitem(last=False)
        new = self._by_length[length] = _Template(_PATIENCE - 2)
        return new

    def _missed(self, known: _Template[Q], request: bytes, query: Q) -> None:
        """Count a request that had to be parsed, and try to make a template of it in its turn."""
        known.missed += 1
        if known.missed < _PATIENCE:
            return
        known.missed = 0
        if made := self._template(request, query):
            self._by_length[len(request)] = made

    def _template(self, request: bytes, query: Q) -> _Template[Q] | None:
        """Return the template of a request; None if its values stand at no place of their own.

        The parser is the judge: with every byte of the values changed, it must find exactly these
        values, and nothing else changed. Then it takes them for the content of a field, whose
        length stands before them, and reads on behind them whatever they are. And with values of
        255 alone, which integers of variable length take two bytes for: 1 and 254 are written as
        three bytes that pass for two values and what is behind them. A crafted request of fewer
        than ten values can pass both; it is answered for those with the same bytes around theirs.
        """
        data = query.data
        if not data or (around := len(request) - len(data)) > _MAX_AROUND:
            return None
        head = data[:_HEAD_BYTES]
        place = request.find(head, 0, around + len(head))
        if place < 0 or not request.startswith(data, place):
            return None
        before, behind = request[:place], request[place + len(data) :]
        for byte_of in (_OTHERS, _FULL):
            others = data.translate(byte_of)
            try:
                if self._parse(before + others + behind) != self._with_data(query, others):
                    return None
            except InvalidInput:
                return None
        return _Template(0, self._with_data(query, b""), before, behind)
