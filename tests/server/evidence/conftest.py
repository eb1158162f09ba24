"""What servers that give receipts and take reports are tested with."""

from pathlib import Path
from typing import Protocol

import pytest

KEY, NEXT = "k" * 32, "n" * 32


class WriteKeys(Protocol):
    """Writes the file of keys as an operator does: beside it, and then into its place."""

    def __call__(self, *keys: str) -> Path: ...


@pytest.fixture
def write_keys(tmp_path: Path) -> WriteKeys:
    def write(*keys: str) -> Path:
        new = tmp_path / "new keys"
        new.write_text("\n".join(keys))
        new.chmod(0o600)
        return new.replace(tmp_path / "keys")

    return write
