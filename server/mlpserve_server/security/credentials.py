"""Who may connect and who may call: certificates and tokens, as their files say at the moment."""

from collections.abc import Callable, Iterable

import grpc

from mlpserve_server.security.certificates import Certificates, Files
from mlpserve_server.security.files import ReloadingFiles
from mlpserve_server.security.tokens import read_tokens
from mlpserve_server.settings import Settings

__all__ = ["Admits", "Credentials"]

Admits = Callable[[Iterable[tuple[str, str | bytes]]], bool]

# Whoever polls the store seldom still wants a token withdrawn to be refused soon.
_MAX_PAUSE = 1.0


class Credentials:
    """What the settings ask of callers; raises CredentialsError where a file is not in order.

    `admits` tells from a call's metadata whether it is to be answered; None: every call is.
    `reflects` is whether callers may ask for the contract. `files` are to be reloaded every
    `pause` seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self.reflects = settings.reflection == "on"
        self.admits: Admits | None = None
        self.files: list[ReloadingFiles] = []  # type: ignore[type-arg]  # of several kinds
        self.pause = min(settings.poll_seconds, _MAX_PAUSE)
        self._certificates: Certificates | None = None
        if settings.tls_cert and settings.tls_key:
            files = Files(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
            self._certificates = Certificates(files)
            self.files.append(self._certificates.files)
        if path := settings.token_file:
            tokens = ReloadingFiles("tokens", [path], lambda: read_tokens(path))
            self.admits = lambda metadata: tokens.value.admit(metadata)
            self.files.append(tokens)

    def open_port(self, server: grpc.Server, address: str) -> int:
        """Have the server listen, encrypted if so set; raises RuntimeError."""
        if self._certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._certificates.credentials())

    @property
    def bind_hint(self) -> str:
        """What may be wrong when a port cannot be opened though nothing is in its way."""
        if self._certificates is None:
            return "is the port taken?"
        return "gRPC takes no certificates but RSA, and ECDSA on P-256 or P-384"
