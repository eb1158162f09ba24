"""Certificates: an authority that issues them, a server's pair of files, what a caller is shown."""

import hashlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "NewAuthority", "Pair", "fingerprint", "shown"]


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

    def issue_unusable(self, kind: str) -> tuple[Path, Path]:
        """Issue a certificate with a key that OpenSSL takes: P-521 or Ed25519."""
        is_curve = kind == "P-521"
        key: Any = generate_private_key(SECP521R1()) if is_curve else Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        built = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, SHA256() if is_curve else None)
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._issued += 1
        cert = self._write(f"{self._issued}.pem", trustme.Blob(built.public_bytes(Encoding.PEM)))
        return cert, self._write(f"{self._issued}.key", trustme.Blob(pem))

    def _write(self, name: str, *parts: trustme.Blob) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(b"".join(part.bytes() for part in parts))
        return path


NewAuthority: TypeAlias = Callable[[], Authority]


class Pair:
    """The files that a server is told of, and an operator who puts others in their place."""

    def __init__(self, folder: Path, cert: Path, key: Path) -> None:
        self._folder = folder
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        self.put(cert, key)

    def put(self, cert: Path | None = None, key: Path | None = None) -> None:
        """Put one or both into their places, each at once, one after the other."""
        for new, place in ((cert, self.cert), (key, self.key)):
            if new is not None:
                self.write(place, new.read_bytes())

    def turn_to(self, cert: Path, key: Path) -> None:
        """Put both into their places in one step, as Kubernetes does: by turning a link."""
        number = len(list(self._folder.iterdir()))
        made = self._folder / f"pair-{number}"
        made.mkdir()
        for source, place in ((cert, self.cert), (key, self.key)):
            (made / place.name).touch(mode=0o600)
            (made / place.name).write_bytes(source.read_bytes())
        link = self._folder / "data"
        new = self._folder / f"link-{number}"
        new.symlink_to(made.name)
        new.replace(link)
        for place in (self.cert, self.key):
            if not place.is_symlink():
                place.unlink()
                place.symlink_to(f"data/{place.name}")

    def write(self, place: Path, content: bytes) -> None:
        beside = place.with_suffix(".new")
        beside.touch(mode=0o600)
        beside.write_bytes(content)
        beside.replace(place)

    @property
    def fields(self) -> dict[str, Path]:
        """The settings that name them."""
        return {"tls_cert": self.cert, "tls_key": self.key}

    @property
    def flags(self) -> list[str]:
        """The same for the command."""
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]


def shown(address: str) -> str:
    """The fingerprint of the certificate that a new connection is shown."""
    pem = ssl.get_server_certificate(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def fingerprint(cert: Path) -> str:
    """The sha256 of a certificate's file."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(cert.read_text())).hexdigest()
