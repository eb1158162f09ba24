"""Bearer tokens, one of which a caller needs."""

import re
from collections.abc import Iterable, Mapping
from hmac import compare_digest
from pathlib import Path

from mlpserve_server.security.files import CredentialsError, read_private

__all__ = ["Tokens", "read_tokens"]

# Callers may try any number of tokens, so that none may be short enough to guess.
_MIN_LENGTH = 16
# Every call is compared with every token.
_MAX_TOKENS = 64
_LINE = re.compile(r"([!-~]+)(?:\s+#.*)?")
_HOW = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' prints a strong one"

Metadata = Iterable[tuple[str, str | bytes]]


class Tokens:
    """The tokens in force. Neither repr() nor the summary shows any."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = tuple(dict.fromkeys(token.encode() for token in tokens))

    def __repr__(self) -> str:
        return f"Tokens({len(self._tokens)})"

    @property
    def summary(self) -> Mapping[str, object]:
        """The number of tokens."""
        return {"count": len(self._tokens)}

    def admit(self, metadata: Metadata) -> bool:
        """Return True if a call's metadata has one of the tokens.

        All tokens are compared, each in a time that depends on its length alone: the time of a
        refusal reveals neither how much of a guess was right nor which token it resembles.
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
    """Read a file with one token a line; `#` begins a comment.

    Raises:
        CredentialsError: the file cannot be read, or has an unusable line.

    """
    try:
        lines = read_private(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not text: expected one token a line") from None
    tokens = [
        _token(f"line {number} of {path}", line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith("#")
    ]
    if not tokens:
        raise CredentialsError(f"{path} has no token: expected one a line; {_HOW}")
    if len(tokens) > _MAX_TOKENS:
        raise CredentialsError(f"{path} has {len(tokens)} tokens: expected at most {_MAX_TOKENS}")
    return Tokens(tokens)


def _token(where: str, line: str) -> str:
    match = _LINE.fullmatch(line)
    if not match:
        raise CredentialsError(
            f"{where} is not a token: expected printable ASCII without spaces; # begins a comment"
        )
    if len(match[1]) < _MIN_LENGTH:
        raise CredentialsError(
            f"{where}: a token of {len(match[1])} characters can be guessed: expected at least "
            f"{_MIN_LENGTH}; {_HOW}"
        )
    return match[1]
