"""The server's settings, read once in main."""

import os
import re
import tempfile
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from mlpserve_model.format.records import ALIAS
from mlpserve_model.process.arguments import MAX_VERSION, SettingsParser, between
from mlpserve_model.process.cpus import usable_cores
from mlpserve_model.store.location import Location

__all__ = ["TRANSPORTS", "Settings", "read_settings", "settings_parser", "user_cache"]

TRANSPORTS = ("auto", "direct", "standard")
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[^\[\]:]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server needs to know. Times are in seconds."""

    store: Location
    model: str = "mnist"
    listen: tuple[str, ...] = ("127.0.0.1:50051",)
    serve: str = "champion"
    poll_seconds: float = 1.0
    standby: int = 3
    cache_dir: Path | None = None  # None: user_cache()
    shadow: str | None = None
    shadow_rows: float = 100.0
    max_batch: int = 8192
    max_waiting: int = 1000
    max_wait_seconds: float = 0.05
    max_rows: int = 65536
    drain_seconds: float = 1.0
    grace_seconds: float = 20.0
    transport: str = "auto"
    workers: int = 1
    worker: int = 0  # the number of this worker, which shares its ports; 0: none
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    token_file: Path | None = None
    allow_plaintext: bool = False
    reflection: str = "on"
    metrics_listen: str | None = None
    metrics_line: int = 0  # the descriptor of the socket on which a worker reports; 0: none
    access_log: float = 0.0
    traces: float = 0.0
    log_format: str = "human"
    log_level: str = "info"


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(part.strip() for part in text.split(",") if part.strip())
    if not addresses:
        raise ArgumentTypeError("no address to listen on")
    for address in addresses:
        if not (_is_socket_file(address) or _is_host_and_port(address)):
            raise ArgumentTypeError(f"{address!r} is neither host:port nor unix:path")
    return addresses


def _address(text: str) -> str:
    if not _is_host_and_port(text):
        raise ArgumentTypeError(f"{text!r} is not host:port")
    return text


def _is_socket_file(address: str) -> bool:
    return address.startswith("unix:") and address != "unix:"


def _is_host_and_port(address: str) -> bool:
    match = _HOST_AND_PORT.fullmatch(address)
    if not match:
        return False
    host, port = match.groups()
    try:
        host.encode("idna")  # as looking it up will; refuses empty and too long labels
    except UnicodeError:
        return False
    return int(port) < 65536


def _selection(text: str) -> str:
    # By its length first: Python refuses to read very long numbers.
    number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_VERSION))
    if not (number and int(text) >= 1) and not ALIAS.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is neither a version number, nor an alias, nor latest")
    return text


_COUNT, _DAY = between(1, 1_000_000, int), 86400
# As argparse takes them, but for the defaults, which are those of Settings.
_OPTIONS: dict[str, dict[str, Any]] = {
    "listen": {
        "type": _addresses,
        "help": "host:port or unix:path, several with commas; port 0 is any free one",
    },
    "serve": {"type": _selection, "help": "an alias, a number, or latest"},
    "poll_seconds": {"type": between(0.01, _DAY), "help": "how often to look for another version"},
    "standby": {
        "type": between(0, 1000, int),
        "help": "versions kept in memory beside the served one",
    },
    "cache_dir": {
        "type": Path,
        "help": "where versions from an object store are kept; else in the user's cache folder",
    },
    "shadow": {
        "type": _selection,
        "help": "an alias, a number, or latest: a sample of the live rows also goes through it",
    },
    "shadow_rows": {
        "type": between(0.01, 1_000_000),
        "help": "most rows a second that do, in each worker",
    },
    "max_batch": {"type": _COUNT, "help": "most instances in one request"},
    "max_waiting": {
        "type": _COUNT,
        "help": "most calls waiting for a prediction; the rest is refused at once",
    },
    "max_wait_seconds": {
        "type": between(0, 3600),
        "help": "a call that would wait longer behind others than about this is refused at once",
    },
    "max_rows": {
        "type": between(1, 100_000_000, int),
        "help": "most rows of batches in flight; the rest is refused at once",
    },
    "drain_seconds": {
        "type": between(0, _DAY),
        "help": "on SIGTERM, how long to keep answering while not ready",
    },
    "grace_seconds": {
        "type": between(0, _DAY),
        "help": "then, how long calls in flight may take",
    },
    "transport": {
        "choices": TRANSPORTS,
        "help": "direct is the fast one, standard grpcio's own; auto: direct where it is supported",
    },
    "workers": {"type": between(1, 1024, int), "help": "processes that share the port"},
    "tls_cert": {"type": Path, "help": "PEM file: our certificate and its chain; encrypts"},
    "tls_key": {"type": Path, "help": "PEM file: its private key"},
    "tls_client_ca": {
        "type": Path,
        "help": "PEM file: only callers with a certificate of one of these authorities may connect",
    },
    "token_file": {
        "type": Path,
        "help": "only callers with a bearer token of this file, one a line, may call",
    },
    "allow_plaintext": {
        "action": "store_true",
        "help": "listen without TLS where other machines can reach us",
    },
    "reflection": {"choices": ("on", "off"), "help": "whether callers can ask for the contract"},
    "metrics_listen": {
        "type": _address,
        "help": "host:port where Prometheus gets the metrics of all workers; none unless it is set",
    },
    "access_log": {
        "type": between(0, 1),
        "help": "log this share of the calls, 0 to 1, and nothing of what they carry",
    },
    "traces": {
        "type": between(0, 1),
        "help": "send OpenTelemetry spans of this share of the calls, 0 to 1; a caller's own "
        "decision goes first; the extra telemetry",
    },
    "worker": {"type": between(0, 1024, int), "help": SUPPRESS},
    "metrics_line": {"type": between(0, 2**31 - 1, int), "help": SUPPRESS},
}


def settings_parser() -> SettingsParser:
    """What reads the settings from flags and environment."""
    parser = SettingsParser(
        prog="mlpserve-server", description="Serve the accepted version of a model over gRPC."
    )
    parser.add_version()
    parser.add_store()
    defaults = Settings(store=Path("models"), workers=usable_cores())
    for name, option in _OPTIONS.items():
        default = getattr(defaults, name)
        shown = ",".join(default) if name == "listen" else default
        parser.add_argument(f"--{name.replace('_', '-')}", default=shown, **option)
    parser.add_logging()
    return parser


def read_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from flags and environment; ends with exit code 2 when they are wrong."""
    parser = settings_parser()
    settings = Settings(**vars(parser.parse_args(arguments)))
    if settings.max_batch > settings.max_rows:
        parser.error(
            f"--max-rows {settings.max_rows} would refuse every batch of --max-batch "
            f"{settings.max_batch} rows: give at least as many"
        )
    if reason := _insecure(settings):
        parser.error(reason)
    return settings


def user_cache() -> Path:
    """Where programs keep what they can get again: as XDG has it, or below the home folder."""
    with suppress(RuntimeError):  # a container's user id without a home
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "mlpserve")
    return Path(tempfile.gettempdir(), f"mlpserve-{os.getuid()}")


def _insecure(settings: Settings) -> str | None:
    """What would be less protected than it looks; None when nothing is."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        return "--tls-cert and --tls-key go together: one is missing"
    if settings.tls_client_ca and not settings.tls_cert:
        return "--tls-client-ca needs --tls-cert and --tls-key: nothing is encrypted without"
    if settings.tls_cert or settings.allow_plaintext:
        return None
    for address in settings.listen:
        if not _is_local(address):
            return (
                f"other machines may reach {address}, and nothing is encrypted: give --tls-cert "
                "and --tls-key, or --allow-plaintext where something else protects the connection"
            )
    return None


def _is_local(address: str) -> bool:
    """Whether none but this machine's own programs can connect."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return _is_socket_file(address) or ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
