"""Bearer tokens, one of which a caller needs, and the models that each of them allows."""

import hashlib
from collections.abc import Iterable, Mapping
from hmac import compare_digest
from pathlib import Path

from mlpserve_model.process.choices import MODEL_PATTERN
from mlpserve_model.store.secret_files import read_secret_lines
from mlpserve_server.security.scope import ALL, Scope

__all__ = ["Tokens", "fingerprint", "read_tokens"]

# Callers may try any number of tokens, so that none may be short enough to guess.
_MIN_LENGTH = 16
# Every call is compared with every token.
_MAX_TOKENS = 64

Metadata = Iterable[tuple[str, str | bytes]]


class Tokens:
    """The tokens in force, each with its scope. Neither repr() nor the summary shows any."""

    __slots__ = ("_scopes",)

    def __init__(self, scopes: Mapping[str, Scope]) -> None:
        self._scopes = {token.encode(): scope for token, scope in scopes.items()}

    def __repr__(self) -> str:
        return f"Tokens({len(self._scopes)})"

    @property
    def summary(self) -> Mapping[str, object]:
        """The number of tokens."""
        return {"count": len(self._scopes)}

    def scope(self, metadata: Metadata) -> Scope | None:
        """Return what the token in a call's metadata allows; None if it has none of these tokens.

        All tokens are compared, each in a time that depends on its length alone: the time of a
        refusal reveals neither how much of a guess was right nor which token it resembles.
        """
        for key, value in metadata:
            if key == "authorization":
                return self._scope_of(value)
        return None

    def _scope_of(self, value: str | bytes) -> Scope | None:
        if isinstance(value, bytes):
            return None
        scheme, _, shown = value.partition(" ")
        given, found = shown.encode(), None
        for token, scope in self._scopes.items():
            if compare_digest(token, given):
                found = scope
        return found if scheme.lower() == "bearer" else None


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
    """Read a file with one token a line, and after it the models that it allows; none is all.

    `#` begins a comment. A token in several lines allows what any of them does.

    Raises:
        UnusableFile: the file cannot be read, or has an unusable line.

    """
    lines = read_secret_lines(path, "token", _MIN_LENGTH, _MAX_TOKENS, MODEL_PATTERN)
    scopes: dict[str, Scope] = {}
    for token, patterns in lines:
        known = scopes.get(token)
        if not patterns or known is ALL:
            scopes[token] = ALL
        else:
            scopes[token] = Scope((*known.patterns, *patterns) if known else patterns)
    return Tokens(scopes)
