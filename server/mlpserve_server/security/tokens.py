"""Bearer tokens, one of which a caller needs."""

import hashlib
from collections.abc import Iterable, Mapping
from hmac import compare_digest
from pathlib import Path

from mlpserve_model.store.secret_files import read_secrets

__all__ = ["Tokens", "fingerprint", "read_tokens"]

# Callers may try any number of tokens, so that none may be short enough to guess.
_MIN_LENGTH = 16
# Every call is compared with every token.
_MAX_TOKENS = 64

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


def fingerprint(metadata: Metadata) -> str:
    """Return what records say instead of the token of an admitted call.

    It is the start of the token's SHA-256, in hex, so that an operator can tell whose it is.
    """
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            token = value.partition(" ")[2]
            return hashlib.sha256(token.encode()).hexdigest()[:16]
    return ""


def read_tokens(path: Path) -> Tokens:
    """Read a file with one token a line; `#` begins a comment.

    Raises:
        UnusableFile: the file cannot be read, or has an unusable line.

    """
    return Tokens(read_secrets(path, "token", _MIN_LENGTH, _MAX_TOKENS))
