"""Bearer tokens: who shows one of them may call."""

import re
from collections.abc import Iterable, Mapping
from hmac import compare_digest
from pathlib import Path

from mlpserve_server.security.files import CredentialsError, read_private

__all__ = ["Tokens", "read_tokens"]

# A caller may try as often as it likes, so no token may be within reach of trying.
_MIN_LENGTH = 16
# Every call is compared with every token.
_MAX_TOKENS = 64
_LINE = re.compile(r"([!-~]+)(?:\s+#.*)?")
_HOW = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one"

Metadata = Iterable[tuple[str, str | bytes]]


class Tokens:
    """The tokens in force. Neither its repr nor its summary shows any."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = tuple(dict.fromkeys(token.encode() for token in tokens))

    def __repr__(self) -> str:
        return f"Tokens({len(self._tokens)})"

    @property
    def summary(self) -> Mapping[str, object]:
        """How many there are."""
        return {"count": len(self._tokens)}

    def admit(self, metadata: Metadata) -> bool:
        """Whether a call's metadata shows one of the tokens.

        All are compared, each in a time that depends on nothing but its length: how long the
        refusal takes says neither how much of a guess was right nor which token it came near.
        """
        for key, value in metadata:
            if key == "authorization":
                return self._has(value)
        return False

    def _has(self, value: str | bytes) -> bool:
        if isinstance(value, bytes):
            return False
        scheme, _, shown = value.partition(" ")
        given, found = shown.encode(), False
        for token in self._tokens:
            found |= compare_digest(token, given)
        return found and scheme.lower() == "bearer"


def read_tokens(path: Path) -> Tokens:
    """Read one token a line; `#` begins a comment. Raises CredentialsError."""
    try:
        lines = read_private(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not text: one token a line is expected") from None
    tokens = [
        _token(f"line {number} of {path}", line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith("#")
    ]
    if not tokens:
        raise CredentialsError(f"there is no token in {path}: one a line is expected; {_HOW}")
    if len(tokens) > _MAX_TOKENS:
        raise CredentialsError(f"{path} has {len(tokens)} tokens, at most {_MAX_TOKENS} may be")
    return Tokens(tokens)


def _token(where: str, line: str) -> str:
    match = _LINE.fullmatch(line)
    if not match:
        raise CredentialsError(
            f"{where} is no token: printable ASCII without spaces is expected, and # for a comment"
        )
    if len(match[1]) < _MIN_LENGTH:
        raise CredentialsError(
            f"{where}: a token of {len(match[1])} characters could be guessed, at least "
            f"{_MIN_LENGTH} are expected; {_HOW}"
        )
    return match[1]
