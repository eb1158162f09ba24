"""The server's certificates, tokens and keys, which are reloaded when their files change."""

from collections.abc import Callable, Iterable
from functools import partial

import grpc

from mlpserve_model.store.evidence.receipts import ReceiptKeys, read_keys
from mlpserve_server.security.certificates import USABLE_KEYS, Certificates, Files
from mlpserve_server.security.files import ReloadingFiles
from mlpserve_server.security.scope import Scope
from mlpserve_server.security.tokens import fingerprint, read_tokens
from mlpserve_server.settings import Settings

__all__ = ["Credentials", "ScopeOf", "SourceOf"]

Metadata = Iterable[tuple[str, str | bytes]]
ScopeOf = Callable[[Metadata], Scope | None]
SourceOf = Callable[[Metadata], str]

# A withdrawn token is refused soon, even where the store is polled rarely.
_MAX_PAUSE = 1.0


class Credentials:
    """What the settings require of connections and calls.

    Attributes:
        scope: the models that a call may use, by its metadata: None if it is not admitted; None
            itself if every call may use every model.
        source: tells the callers of admitted calls apart; "" without tokens.
        reflects: whether callers may use reflection.
        receipt_keys: returns the keys in force that sign receipts; None if there are none.
        files: what is reloaded when it changes.
        pause: seconds between two polls of the files.

    Raises:
        UnusableFile: a file cannot be used.

    """

    def __init__(self, settings: Settings) -> None:
        self.reflects = settings.reflection == "on"
        self.scope: ScopeOf | None = None
        self.source: SourceOf = lambda _: ""
        self.files: list[ReloadingFiles] = []  # type: ignore[type-arg]  # of several kinds
        self.pause = min(settings.poll_seconds, _MAX_PAUSE)
        self._certificates: Certificates | None = None
        if settings.tls_cert and settings.tls_key:
            files = Files(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
            self._certificates = Certificates(files)
            self.files.append(self._certificates.files)
        self.receipt_keys: Callable[[], ReceiptKeys] | None = None
        if path := settings.receipt_keys:
            keys = ReloadingFiles("receipt keys", [path], partial(read_keys, path))
            self.receipt_keys = lambda: keys.value
            self.files.append(keys)
        if path := settings.token_file:
            tokens = ReloadingFiles("tokens", [path], partial(read_tokens, path))
            self.scope = lambda metadata: tokens.value.scope(metadata)
            self.source = fingerprint
            self.files.append(tokens)

    def open_port(self, server: grpc.Server, address: str) -> int:
        """Add an address to the server, encrypted if there is a certificate.

        Raises:
            RuntimeError: gRPC cannot listen there.

        """
        if self._certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._certificates.credentials())

    @property
    def bind_hint(self) -> str:
        """The likely reason when gRPC cannot listen on an address that is free."""
        if self._certificates is None:
            return "is the port taken?"
        return f"is the port taken? gRPC supports certificates with {USABLE_KEYS}, alone"
