"""TLS and mutual TLS, with certificates that are reloaded when their files change."""

import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.secret_files import read_private, read_public
from mlpserve_server.security.files import ReloadingFiles

__all__ = ["USABLE_KEYS", "Certificates", "Files"]

USABLE_KEYS = "RSA, or ECDSA on P-256 or P-384"
# The identifiers of these in a certificate, as DER encodes them. gRPC takes others without a word,
# and no caller that uses its library can connect.
_KEY_IDENTIFIERS = tuple(
    map(bytes.fromhex, ("06092a864886f70d010101", "06082a8648ce3d030107", "06052b81040022"))
)


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: the server's certificate with its chain, its key, the authorities of callers."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """The files that are set."""
        return [path for path in (self.cert, self.key, self.client_ca) if path]


@dataclass(frozen=True, slots=True)
class _Checked:
    configuration: grpc.ServerCertificateConfiguration
    summary: Mapping[str, object]


class Certificates:
    """The server's certificate and, with a client CA, the authorities that callers need.

    Raises:
        UnusableFile: a file cannot be read, or is not what it should be.

    """

    def __init__(self, files: Files) -> None:
        self._mutual = files.client_ca is not None
        self.files = ReloadingFiles("certificates", files.paths, lambda: _read(files))

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of one address; a new connection gets the current certificate."""
        given = self.files.value

        def newer() -> Any:  # None if nothing has changed, which the types of grpc do not allow
            nonlocal given
            if self.files.value is given:
                return None
            given = self.files.value
            return given.configuration

        return grpc.dynamic_ssl_server_credentials(
            given.configuration, newer, require_client_authentication=self._mutual
        )


def _read(files: Files) -> _Checked:
    """Read each file once, and check those bytes; raises UnusableFile."""
    chain, key = read_public(files.cert), read_private(files.key)
    certificate = _shown_by(_load_pair(files, chain, key))
    if not any(identifier in certificate for identifier in _KEY_IDENTIFIERS):
        raise UnusableFile(
            f"the key of {files.cert} is of a kind that callers with gRPC's library refuse: "
            f"expected {USABLE_KEYS}"
        )
    roots = None
    if files.client_ca:
        roots = read_public(files.client_ca)
        _check_authorities(files.client_ca, roots)
    configuration = grpc.ssl_server_certificate_configuration([(key, chain)], roots)
    fingerprint = hashlib.sha256(certificate).hexdigest()
    return _Checked(configuration, {"sha256": fingerprint, "mutual": roots is not None})


def _load_pair(files: Files, chain: bytes, key: bytes) -> ssl.SSLContext:
    """Load both into OpenSSL, which reports what is wrong; gRPC does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _as_file(chain) as chain_path, _as_file(key) as key_path:
            context.load_cert_chain(chain_path, key_path, password=_no_password)
    except ssl.SSLError as error:
        raise UnusableFile(
            f"{files.cert} and {files.key} are not a certificate and its key, both PEM: "
            f"{_reason(error)}"
        ) from error
    return context


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield a path at which this process, and no other, can read these bytes.

    OpenSSL reads certificates and keys from files only, and the configured files may have changed
    since they were read.
    """
    with (
        os.fdopen(os.memfd_create("pem"), "w+b")
        if hasattr(os, "memfd_create")
        else tempfile.TemporaryFile()
    ) as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _no_password() -> str:
    raise UnusableFile("the key is encrypted: give one without a passphrase")


def _check_authorities(path: Path, roots: bytes) -> None:
    try:
        with _as_file(roots) as roots_path:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(roots_path)
    except ssl.SSLError as error:
        raise UnusableFile(f"{path} has no PEM certificates: {_reason(error)}") from error


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "not readable as PEM").lower().replace("_", " ")


def _shown_by(context: ssl.SSLContext) -> bytes:
    """Return the certificate that callers get, in DER.

    It comes from a handshake in memory. A PEM file may have comments, any encoding and several
    kinds of blocks; a second parser could find another certificate than OpenSSL's, or none.
    """
    caller = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    caller.check_hostname, caller.verify_mode = False, ssl.CERT_NONE
    to_server, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = context.wrap_bio(to_server, to_caller, server_side=True)
    caller_side = caller.wrap_bio(to_caller, to_server)
    try:
        for side in (caller_side, server_side, caller_side):
            _shake_hands(side)
    except ssl.SSLError as error:
        raise UnusableFile(f"no TLS with this certificate: {_reason(error)}") from error
    return caller_side.getpeercert(binary_form=True) or b""


def _shake_hands(side: ssl.SSLObject) -> None:
    """Continue the handshake as far as the other side's data allows."""
    with suppress(ssl.SSLWantReadError):
        side.do_handshake()
