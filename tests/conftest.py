"""What every test may rely on."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start, also where CI runs in the background.

    A shell starts background jobs with SIGINT ignored, and what ignores it hands that on.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Authority:
    """Issues certificates; every path is a PEM file that only its owner may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self._issued = 0
        self.ca = self._write("ca.pem", self._ca.cert_pem)

    def issue(
        self, name: str = "localhost", *, days: float = 1, rsa: bool = False
    ) -> tuple[Path, Path]:
        """Issue a certificate for a host name, expired if days < 0; return it and its key."""
        now = datetime.now(UTC)
        kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        issued = self._ca.issue_cert(
            name,
            not_before=now - timedelta(days=2),
            not_after=now + timedelta(days=days),
            key_type=kind,
        )
        self._issued += 1
        cert = self._write(f"{self._issued}.pem", *issued.cert_chain_pems)
        return cert, self._write(f"{self._issued}.key", issued.private_key_pem)

    def _write(self, name: str, *parts: trustme.Blob) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(b"".join(part.bytes() for part in parts))
        return path


@pytest.fixture(scope="session")
def new_authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Authority]:
    """Make a certificate authority of its own."""
    return lambda: Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def authority(new_authority: Callable[[], Authority]) -> Authority:
    """The authority that servers and callers trust."""
    return new_authority()
