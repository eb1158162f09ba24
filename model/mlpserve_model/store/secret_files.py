"""Files of secrets that the user named: tokens, keys, private keys of certificates."""

import os
import re
import stat
from pathlib import Path

from mlpserve_model.store.atomic_files import UnusableFile, open_regular

__all__ = ["read_private", "read_public", "read_secret_lines", "read_secrets"]

# Far more than any list of secrets or chain of certificates needs.
_MAX_BYTES = 1 << 20
_LINE = re.compile(r"([!-~]+)((?:\s+[^\s#]\S*)*)(?:\s+#.*)?")
_NO_WORD = re.compile("(?!)")
_HOW = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' prints a strong one"


def read_secrets(path: Path, noun: str, minimum: int, most: int) -> list[str]:
    """Read a private file with one secret a line; `#` begins a comment.

    Args:
        path: The file.
        noun: What a secret is called in messages, such as "token".
        minimum: The fewest characters that cannot be guessed.
        most: The number of secrets that the file may have.

    Raises:
        UnusableFile: The file cannot be read, or has an unusable line; the message has the reason
            and none of the content.

    """
    return [secret for secret, _ in read_secret_lines(path, noun, minimum, most)]


def read_secret_lines(
    path: Path, noun: str, minimum: int, most: int, word: re.Pattern[str] = _NO_WORD
) -> list[tuple[str, tuple[str, ...]]]:
    """Read a private file as `read_secrets` does, each secret with the words that follow it.

    Args:
        path: The file.
        noun: What a secret is called in messages.
        minimum: The fewest characters of a secret.
        most: The number of secrets that the file may have.
        word: Matches what may follow a secret, any number of times; by default nothing may.

    Raises:
        UnusableFile: As for `read_secrets`.

    """
    try:
        lines = read_private(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UnusableFile(f"{path} is not text: expected one {noun} a line") from None
    secrets = [
        _secret(f"line {number} of {path}", line.strip(), noun, minimum, word)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith("#")
    ]
    if not secrets:
        raise UnusableFile(f"{path} has no {noun}: expected one a line; {_HOW}")
    if len(secrets) > most:
        raise UnusableFile(f"{path} has {len(secrets)} {noun}s: expected at most {most}")
    return secrets


def read_private(path: Path) -> bytes:
    """Read a file that not every user of the machine may read.

    Raises:
        UnusableFile: It cannot be read, or every user may read or write it.

    """
    content, mode = _read(path)
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise UnusableFile(
            f"{path} is open to every user of this machine: chmod 600 (or 640) it; "
            "for a mounted secret set its mode (defaultMode: 0440)"
        )
    return content


def read_public(path: Path) -> bytes:
    """Read a file of a bounded size; raises UnusableFile if it cannot be read."""
    return _read(path)[0]


def _read(path: Path) -> tuple[bytes, int]:
    """Return the content and the mode, both through one descriptor."""
    try:
        with open_regular(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_BYTES + 1)
    except UnusableFile as error:
        raise UnusableFile(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise UnusableFile(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise UnusableFile(f"{path} has more than {_MAX_BYTES} bytes")
    return content, mode


def _secret(
    where: str, line: str, noun: str, minimum: int, word: re.Pattern[str]
) -> tuple[str, tuple[str, ...]]:
    match = _LINE.fullmatch(line)
    words = tuple(match[2].split()) if match else ()
    if not match or not all(map(word.fullmatch, words)):
        more = "" if word is _NO_WORD else f", and after it names that match {word.pattern}"
        raise UnusableFile(
            f"{where} is not a {noun}: expected printable ASCII without spaces{more}; # begins a "
            "comment"
        )
    if len(match[1]) < minimum:
        raise UnusableFile(
            f"{where}: a {noun} of {len(match[1])} characters can be guessed: expected at least "
            f"{minimum}; {_HOW}"
        )
    return match[1], words
