"""What a token file may be, and that tokens keep to themselves."""

import hmac
import os
from pathlib import Path

import pytest

from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_server import security
from mlpserve_server.security.scope import ALL
from mlpserve_server.security.tokens import Tokens, read_tokens
from tests.server.security.test_tokens import SECOND, TOKEN, bearer

BOTH = {TOKEN: ALL, SECOND: ALL}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "has no token"),
        (b"\n# only a comment\n\n", "has no token"),
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
    with pytest.raises(UnusableFile, match=expected) as caught:
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
        with pytest.raises(UnusableFile, match="chmod 600"):
            read_tokens(path)


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tokens"
    if kind == "a folder":
        path.mkdir()
    if kind == "a pipe":
        os.mkfifo(path)
    with pytest.raises(UnusableFile, match=r"No such file|not a regular file"):
        read_tokens(path)


def test_a_file_written_on_windows_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(f"\ufeff{TOKEN}\r\n{SECOND}\r\n".encode())
    path.chmod(0o600)
    tokens = read_tokens(path)
    assert tokens.scope(bearer(TOKEN)) is ALL
    assert tokens.scope(bearer(SECOND)) is ALL


def test_tokens_show_in_no_repr() -> None:
    tokens = Tokens(BOTH)
    for text in (repr(tokens), str(tokens), f"{tokens}", repr([tokens]), str(tokens.summary)):
        assert TOKEN not in text
        assert SECOND not in text
    assert repr(tokens) == "Tokens(2)"


@pytest.mark.parametrize(
    ("guess", "admitted"),
    [
        ("y" + TOKEN[1:], False),  # wrong from the first character
        (TOKEN[:-1] + "y", False),  # right up to the last one
        (TOKEN, True),
        (SECOND, True),
        ("x" * 1000, False),
    ],
)
def test_every_guess_is_compared_whole_with_every_token_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, guess: str, admitted: bool
) -> None:
    assert vars(security.tokens)["compare_digest"] is hmac.compare_digest
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(token: bytes, given: bytes) -> bool:
        compared.append((token, given))
        return hmac.compare_digest(token, given)

    monkeypatch.setattr(security.tokens, "compare_digest", compare_digest)

    assert (Tokens(BOTH).scope(bearer(guess)) is ALL) is admitted
    assert compared == [(token.encode(), guess.encode()) for token in (TOKEN, SECOND)]
