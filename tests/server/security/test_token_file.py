"""What a token file may be, and that tokens keep to themselves."""

import os
import time
from pathlib import Path

import pytest

from mlpserve_server.security.files import CredentialsError
from mlpserve_server.security.tokens import Tokens, read_tokens
from tests.server.security.test_tokens import SECOND, TOKEN, bearer


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "there is no token in"),
        (b"\n# only a comment\n\n", "there is no token in"),
        (b"s3cr\n", "line 1 of"),
        (b"# one\ns3cr with-words-that-are-long\n", "line 2 of"),
        (b"\xff\xfe\x00 s3cr", "is not text"),
        ("s3cr-an-umlaut-is-not-ascii-\u00e4\n".encode(), "line 1 of"),
        (f"s3cr{'x' * (2 << 20)}".encode(), "bytes"),
        ("\n".join(f"s3cr-and-so-on-{n:03}" for n in range(65)).encode(), "65 tokens"),
    ],
)
def test_what_is_no_list_of_tokens_is_refused_and_not_repeated(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CredentialsError, match=expected) as caught:
        read_tokens(path)
    assert str(path) in str(caught.value)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "allowed"), [(0o600, True), (0o400, True), (0o440, True), (0o640, True),
                          (0o644, False), (0o604, False), (0o602, False), (0o666, False)]
)  # fmt: skip
def test_a_file_that_everybody_may_read_or_write_is_refused(
    tmp_path: Path, mode: int, allowed: bool
) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    path.chmod(mode)
    if allowed:
        assert read_tokens(path).summary == {"count": 1}
    else:
        with pytest.raises(CredentialsError, match="chmod 600"):
            read_tokens(path)


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tokens"
    if kind == "a folder":
        path.mkdir()
    if kind == "a pipe":
        os.mkfifo(path)
    with pytest.raises(CredentialsError, match=r"No such file|not a file"):
        read_tokens(path)


def test_a_file_written_on_windows_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(f"\ufeff{TOKEN}\r\n{SECOND}\r\n".encode())
    path.chmod(0o600)
    tokens = read_tokens(path)
    assert tokens.admit(bearer(TOKEN))
    assert tokens.admit(bearer(SECOND))


def test_tokens_show_in_no_repr() -> None:
    tokens = Tokens([TOKEN, SECOND])
    for text in (repr(tokens), str(tokens), f"{tokens}", repr([tokens]), str(tokens.summary)):
        assert TOKEN not in text
        assert SECOND not in text
    assert repr(tokens) == "Tokens(2)"


class Compared(Tokens):
    """The broken twin, which compares as strings do: it stops at the first difference."""

    def _has(self, value: str | bytes) -> bool:
        return any(f"Bearer {token.decode()}" == value for token in self._tokens)


@pytest.mark.parametrize(("kind", "constant"), [(Tokens, True), (Compared, False)])
def test_how_long_a_refusal_takes_does_not_tell_how_much_of_a_guess_was_right(
    kind: type[Tokens], constant: bool
) -> None:
    # So long that the time of comparing is most of all.
    token = "x" * 1_000_000
    tokens = kind([token])
    guesses = {"early": bearer("y" + token[1:]), "late": bearer(token[:-1] + "y")}
    fastest = dict.fromkeys(guesses, float("inf"))
    for _ in range(200):  # in turn, so that whatever else runs slows both
        for name, guess in guesses.items():
            started = time.perf_counter()
            assert not tokens.admit(guess)
            fastest[name] = min(fastest[name], time.perf_counter() - started)
    ratio = fastest["late"] / fastest["early"]
    assert (0.8 < ratio < 1.25) == constant, fastest
