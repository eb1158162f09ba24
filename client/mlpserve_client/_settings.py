"""Settings: arguments win over the environment, which wins over the defaults."""

import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlpserve_client._errors import SettingsError
from mlpserve_client._targets import DEFAULT_PORT, is_local, parse_targets

DEFAULT_TARGET = f"localhost:{DEFAULT_PORT}"
DEFAULT_TIMEOUT = 10.0

MAX_TIMEOUT = 1e9  # seconds; gRPC treats a deadline beyond its range as already passed
_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")


@dataclass(frozen=True)
class Tls:
    """Encryption: certificates to trust, and the client's own. Every path is a PEM file.

    Attributes:
        ca: certificates to trust; None for those built into gRPC.
        cert: the client's certificate chain, for mutual TLS.
        key: the private key of `cert`.
        server_name: the name that the server's certificate must have; None for the target's
            host. A list of targets needs a name that all their certificates share.

    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise SettingsError("mutual TLS needs both a certificate and its key; one is missing")


@dataclass(frozen=True)
class Settings:
    """All settings of a client; read once, then passed down."""

    targets: tuple[str, ...] = (DEFAULT_TARGET,)
    timeout: float = DEFAULT_TIMEOUT
    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    model: str | None = None  # the model of calls that name none; None: the server's choice
    proxy: str = ""  # variable and address of the proxy that gRPC uses, for messages

    def __post_init__(self) -> None:
        if not self.targets:
            raise SettingsError("at least one target is needed, such as localhost:50051")
        check_timeout(self.timeout)
        if self.model is not None:
            check_model(self.model)
        if self.token is not None:
            _check_token(self.token)
            self._refuse_token_in_plain_text()

        if self.tls and not self.tls.server_name and len(self.targets) > 1:
            raise SettingsError("TLS to a list of targets needs the server_name that they share")

    @property
    def where(self) -> str:
        """The targets as text, for messages."""
        return ",".join(self.targets)

    def _refuse_token_in_plain_text(self) -> None:
        remote = [target for target in self.targets if not is_local(target)]
        if self.tls is None and remote:
            raise SettingsError(
                f"a token would travel unencrypted to {remote[0]}: switch TLS on, "
                "or use a target on this machine"
            )


def resolve(
    environ: Mapping[str, str],
    *,
    target: str | Sequence[str] | None = None,
    timeout: float | None = None,
    tls: Tls | None = None,
    token: str | None = None,
    model: str | None = None,
) -> Settings:
    """Return the settings from arguments (None: not given) and the environment.

    Raises:
        SettingsError: a setting is invalid.

    """
    with _naming("MLPSERVE_TARGET" if target is None else ""):
        if target is None:
            target = environ.get("MLPSERVE_TARGET") or DEFAULT_TARGET
        targets = parse_targets(target)
    if timeout is None:
        with _naming("MLPSERVE_TIMEOUT"):
            timeout = _seconds(environ.get("MLPSERVE_TIMEOUT") or str(DEFAULT_TIMEOUT))
    if model is None and (model := environ.get("MLPSERVE_MODEL") or None):
        with _naming("MLPSERVE_MODEL"):
            check_model(model)
    return Settings(
        targets=targets,
        timeout=check_timeout(timeout),
        tls=tls or _tls_from(environ),
        token=token or _token_from(environ),
        model=model,
        proxy=_proxy_from(environ),
    )


def check_model(name: object) -> str:
    """Return the name of a model.

    Raises:
        SettingsError: no model can have this name.

    """
    if not isinstance(name, str) or not _MODEL.fullmatch(name):
        raise SettingsError(
            f"invalid model name {name!r}: expected one that matches {_MODEL.pattern}"
        )
    return name


def check_timeout(seconds: float) -> float:
    """Return a timeout as a float, in seconds.

    Raises:
        SettingsError: it is not a number of seconds that a call can wait for.

    """
    if not (isinstance(seconds, numbers.Real) and 0 < seconds <= MAX_TIMEOUT):
        raise SettingsError(
            f"invalid timeout {seconds!r}: expected seconds, more than 0 and at most "
            f"{MAX_TIMEOUT:.0f}"
        )
    return float(seconds)  # a float32 would lose the seconds in a sum with the clock


def read_token(path: str | Path) -> str:
    """Return the first token of a file with one token a line, such as a server's token file.

    A # starts a comment.

    Raises:
        SettingsError: the file cannot be read, or has no token.

    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"cannot read the token file {path}: {reason}") from error
    words = [line.split()[0] for line in lines if line.strip()]
    tokens = [word for word in words if not word.startswith("#")]
    if not tokens:
        raise SettingsError(f"empty token file {path}: expected a token in its first line")
    return tokens[0]


def _seconds(text: str) -> float:
    try:
        return check_timeout(float(text))
    except ValueError as error:
        raise SettingsError(f"invalid timeout {text!r}: expected a number of seconds") from error


@contextmanager
def _naming(variable: str) -> Iterator[None]:
    """Name the variable that a wrong value comes from; "" where it is an argument."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"{variable}: {error}" if variable else str(error)) from error


def _tls_from(environ: Mapping[str, str]) -> Tls | None:
    names = {"ca": "TLS_CA", "cert": "TLS_CERT", "key": "TLS_KEY", "server_name": "TLS_SERVER_NAME"}
    given = {field: environ.get(f"MLPSERVE_{name}") or None for field, name in names.items()}
    wanted = _truth("MLPSERVE_TLS", environ.get("MLPSERVE_TLS", ""))
    return Tls(**given) if wanted or any(given.values()) else None


def _truth(variable: str, value: str) -> bool:
    if value.lower() not in _TRUE + _FALSE:
        words = ", ".join(_TRUE + _FALSE[1:])
        raise SettingsError(f"{variable} is {value!r}, expected one of {words}")
    return value.lower() in _TRUE


def _token_from(environ: Mapping[str, str]) -> str | None:
    path = environ.get("MLPSERVE_TOKEN_FILE")
    return environ.get("MLPSERVE_TOKEN") or (read_token(path) if path else None)


def _check_token(token: str) -> None:
    if not re.fullmatch("[!-~]+", token):
        # The token itself stays out of the message: messages end up in logs.
        raise SettingsError("the token must be printable ASCII without spaces")


def _proxy_from(environ: Mapping[str, str]) -> str:
    """Return the variable that gRPC reads and the proxy in it, without its password."""
    for variable in ("grpc_proxy", "https_proxy", "http_proxy"):  # in gRPC's order
        if address := environ.get(variable):
            return f"{variable}={address.rpartition('@')[2]}"
    return ""
