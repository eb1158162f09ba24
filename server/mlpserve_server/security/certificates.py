"""TLS and mutual TLS, with certificates that follow their files."""

import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from mlpserve_server.security.files import CredentialsError, Watched, read_private, read_public

__all__ = ["Certificates", "Files"]


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: our certificate with its chain, its key, and whom callers must be known to."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """Those that there are."""
        return [path for path in (self.cert, self.key, self.client_ca) if path]


@dataclass(frozen=True, slots=True)
class _Checked:
    configuration: grpc.ServerCertificateConfiguration
    summary: Mapping[str, object]


class Certificates:
    """What the server shows of itself and, with a client CA, wants to see of its callers.

    Raises CredentialsError.
    """

    def __init__(self, files: Files) -> None:
        self._mutual = files.client_ca is not None
        self.watched = Watched("certificates", files.paths, lambda: _read(files))

    def credentials(self) -> grpc.ServerCredentials:
        """For one address; every new connection there gets what is in force by then."""
        given = self.watched.value

        def newer() -> Any:  # None: no other than before, which the types of grpc do not know
            nonlocal given
            if self.watched.value is given:
                return None
            given = self.watched.value
            return given.configuration

        return grpc.dynamic_ssl_server_credentials(
            given.configuration, newer, require_client_authentication=self._mutual
        )


def _read(files: Files) -> _Checked:
    """Read the files and check that they belong together; raises CredentialsError."""
    chain, key = read_public(files.cert), read_private(files.key)
    roots = read_public(files.client_ca) if files.client_ca else None
    _check_pair(files)
    if files.client_ca:
        _check_authorities(files.client_ca)
    configuration = grpc.ssl_server_certificate_configuration([(key, chain)], roots)
    return _Checked(configuration, {"sha256": _fingerprint(chain), "mutual": roots is not None})


def _check_pair(files: Files) -> None:
    """Have OpenSSL read them: gRPC would not say what is wrong, or that anything is."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            files.cert, files.key, password=_no_password
        )
    except ssl.SSLError as error:
        raise CredentialsError(
            f"{files.cert} and {files.key} are no certificate and its key, both PEM: "
            f"{_reason(error)}"
        ) from error


def _no_password() -> str:
    raise CredentialsError("the key is encrypted: give one without a passphrase")


def _check_authorities(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        raise CredentialsError(f"{path} has no PEM certificates: {_reason(error)}") from error


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _fingerprint(chain: bytes) -> str:
    """Of the certificate itself, the first, as openssl shows it without the colons."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    first = chain.decode("ascii", "replace").partition(begin)[2].partition(end)[0]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(f"{begin}{first}{end}")).hexdigest()
