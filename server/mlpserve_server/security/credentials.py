"""Who may connect and who may call: certificates and tokens, as their files say at the moment."""

import threading
from collections.abc import Callable, Iterable

import grpc

from mlpserve_server.security.certificates import Certificates, Files
from mlpserve_server.security.files import Watched
from mlpserve_server.security.tokens import read_tokens
from mlpserve_server.settings import Settings

__all__ = ["Access", "Admits"]

Admits = Callable[[Iterable[tuple[str, str | bytes]]], bool]

# Whoever polls the store seldom still wants a token withdrawn to be refused soon.
_LONGEST_PAUSE = 1.0


class Access:
    """What the settings ask of callers; raises CredentialsError where a file is not in order.

    `admits` tells from a call's metadata whether it is to be answered; None: every call is.
    `reflects` is whether callers may ask for the contract.
    """

    def __init__(self, settings: Settings) -> None:
        self.reflects = settings.reflection == "on"
        self.admits: Admits | None = None
        self._certificates: Certificates | None = None
        self._looks: list[Callable[[], None]] = []
        self._pause = min(settings.poll_seconds, _LONGEST_PAUSE)
        if settings.tls_cert and settings.tls_key:
            files = Files(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
            self._certificates = Certificates(files)
            self._looks.append(self._certificates.watched.look)
        if path := settings.token_file:
            tokens = Watched("tokens", [path], lambda: read_tokens(path))
            self.admits = lambda metadata: tokens.value.admit(metadata)
            self._looks.append(tokens.look)

    def open_port(self, server: grpc.Server, address: str) -> int:
        """Have the server listen, encrypted if so set; raises RuntimeError."""
        if self._certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._certificates.credentials())

    @property
    def doubt(self) -> str:
        """What may be wrong when a port cannot be opened though nothing is in its way."""
        if self._certificates is None:
            return "is the port taken?"
        return "gRPC takes no certificates but RSA, and ECDSA on P-256 or P-384"

    def follow(self, stop: threading.Event) -> None:
        """Look after the files until `stop` is set, in a thread of its own."""
        if self._looks:
            threading.Thread(
                target=self._look, args=(stop,), name="follow-credentials", daemon=True
            ).start()

    def _look(self, stop: threading.Event) -> None:
        while not stop.wait(self._pause):
            for look in self._looks:
                look()
