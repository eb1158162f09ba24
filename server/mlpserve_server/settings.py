"""The server's settings, read once in main."""

from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from mlpserve_model.process.addresses import is_host_and_port
from mlpserve_model.process.arguments import (
    LogSettings,
    PlaceSettings,
    SettingsParser,
    between,
    location,
    model_name,
    setting,
)
from mlpserve_model.process.choices import (
    VersionChoice,
    is_served,
    models,
    version,
    version_choice,
)
from mlpserve_model.process.cpus import usable_cores
from mlpserve_model.process.memory import usable_memory
from mlpserve_model.store.location import Location

__all__ = ["TRANSPORTS", "Settings", "default_max_bytes", "read_settings", "settings_parser"]

TRANSPORTS = ("auto", "direct", "standard")
# What a worker takes by itself, with a small model; and the bounds of what requests get.
_WORKER_BYTES, _MIN_REQUEST_BYTES, _MAX_REQUEST_BYTES = 128 << 20, 96 << 20, 2 << 30


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(part.strip() for part in text.split(",") if part.strip())
    if not addresses:
        raise ArgumentTypeError("no address to listen on")
    for address in addresses:
        if not (_is_socket_file(address) or is_host_and_port(address)):
            raise ArgumentTypeError(f"{address!r} is neither host:port nor unix:path")
    return addresses


def _address(text: str) -> str:
    if not is_host_and_port(text):
        raise ArgumentTypeError(f"{text!r} is not host:port")
    return text


def _is_socket_file(address: str) -> bool:
    return address.startswith("unix:") and address != "unix:"


_COUNT, _DAY = between(1, 1_000_000, int), 86_400


@dataclass(frozen=True, kw_only=True)
class Settings(LogSettings, PlaceSettings):
    """The settings of a server. Times are in seconds."""

    model: tuple[str, ...] = setting(
        ("mnist",),
        "models in the store: names and patterns such as letters-* or *, separated by commas",
        type=models,
    )
    default_model: str | None = setting(
        None, "model that answers calls that name none; the only one, if unset", type=model_name
    )
    listen: tuple[str, ...] = setting(
        ("127.0.0.1:50051",),
        "addresses, host:port or unix:path, several separated by commas; port 0 is any free one",
        type=_addresses,
    )
    serve: VersionChoice = setting(
        VersionChoice(),
        "version that answers: an alias, a number, or latest; MODEL=VERSION,... for single models",
        type=version_choice,
    )
    poll_seconds: float = setting(
        1.0,
        "seconds between two polls of the store; at most 1 between polls of credential files",
        type=between(0.01, _DAY),
    )
    standby: int = setting(
        3, "versions kept in memory besides the one that answers", type=between(0, 1000, int)
    )
    cache_dir: Path | None = setting(
        None,
        "folder where versions from an object store are kept for a start without it",
        type=Path,
        shown="~/.cache/mlpserve",
    )
    shadow: str | None = setting(
        None,
        "version that a sample of the live rows also goes through, to compare it: an alias, a "
        "number, or latest",
        type=version,
    )
    shadow_rows: float = setting(
        100.0,
        "maximum rows a second that go through the shadow, in each worker",
        type=between(0.01, 1_000_000),
    )
    max_batch: int = setting(8192, "maximum instances in one request", type=_COUNT)
    max_waiting: int = setting(
        1000, "maximum calls waiting for a prediction; others are refused at once", type=_COUNT
    )
    max_wait_seconds: float = setting(
        0.05,
        "refuse a call at once if it would wait about this many seconds behind others",
        type=between(0, 3600),
    )
    max_rows: int = setting(
        65536,
        "maximum rows of batches in flight; other batches are refused at once",
        type=between(1, 100_000_000, int),
    )
    max_bytes: int = setting(
        0,
        "maximum bytes of requests and answers in memory, in each worker; calls beyond are refused "
        "at once; 0 takes what the memory of the container or machine allows",
        type=between(0, 1 << 50, int),
    )
    connection_age_seconds: float = setting(
        300.0,
        "age at which clients are asked to reconnect, so that replicas and workers that came later "
        "get calls; those in flight are finished; 0 is never",
        type=between(0, _DAY),
    )
    drain_seconds: float = setting(
        1.0, "seconds to answer after SIGTERM while reporting not ready", type=between(0, _DAY)
    )
    grace_seconds: float = setting(
        20.0, "seconds that calls in flight may take after the drain", type=between(0, _DAY)
    )
    transport: str = setting(
        "auto",
        "direct is the fast transport, standard is grpcio's own; auto is direct where supported",
        choices=TRANSPORTS,
    )
    workers: int = setting(
        1, "processes that share the port", type=between(1, 1024, int), shown="the usable cores"
    )
    worker: int = setting(0, SUPPRESS, type=between(0, 1024, int))  # number of this worker, or 0
    tls_cert: Path | None = setting(
        None, "PEM file of the server's certificate and its chain; enables TLS", type=Path
    )
    tls_key: Path | None = setting(None, "PEM file of the certificate's private key", type=Path)
    tls_client_ca: Path | None = setting(
        None,
        "PEM file of authorities; only callers with a certificate of one of them may connect",
        type=Path,
    )
    token_file: Path | None = setting(
        None, "file of bearer tokens, one a line; only callers with one may call", type=Path
    )
    receipt_keys: Path | None = setting(
        None,
        "file of keys, one a line: answers get receipts where callers ask for them, signed by the "
        "first key and verified by all",
        type=Path,
    )
    audit_share: float = setting(
        0.1,
        "share of the receipts drawn for the audit, 0 to 1, at random; only reports on these are "
        "counted as accuracy",
        type=between(0, 1),
    )
    feedback: Location | None = setting(
        None,
        "place where reports about answers are kept: a folder, or s3://, gs:// or az:// with "
        "BUCKET/PREFIX; needs --receipt-keys",
        type=location,
    )
    feedback_rate: float = setting(
        600.0,
        "reports a minute from one token, or from all callers without tokens, in each worker",
        type=between(0.01, 1_000_000),
    )
    drift_window: int = setting(
        3000,
        "rows, sampled from the last ones, that are compared with the version's holdout to detect "
        "drift, in each worker; 0 is none; needs --metrics-listen",
        type=between(0, 1_000_000, int),
    )
    allow_plaintext: bool = setting(
        False, "listen without TLS where other machines can reach the server"
    )
    reflection: str = setting(
        "on", "whether callers may read the API's description by reflection", choices=("on", "off")
    )
    metrics_listen: str | None = setting(
        None, "host:port where Prometheus scrapes the metrics of all workers", type=_address
    )
    metrics_line: int = setting(0, SUPPRESS, type=between(0, 2**31 - 1, int))  # descriptor, or 0
    watch_line: int = setting(0, SUPPRESS, type=between(0, 2**31 - 1, int))  # the same
    access_log: float = setting(
        0.0,
        "sampling rate of the access log, 0 to 1; it has nothing of what callers send",
        type=between(0, 1),
    )
    traces: float = setting(
        0.0,
        "sampling rate of OpenTelemetry spans, 0 to 1, for calls whose caller has not decided; "
        "needs the extra telemetry",
        type=between(0, 1),
    )


def settings_parser() -> SettingsParser:
    """Return the parser of the flags and variables."""
    parser = SettingsParser(
        prog="mlpserve-server", description="Serve the accepted version of a model over gRPC."
    )
    parser.add_version()
    parser.add_settings(Settings, workers=usable_cores())
    return parser


def read_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Return the settings from flags and environment; exit with code 2 if they are wrong."""
    parser = settings_parser()
    settings = Settings(**vars(parser.parse_args(arguments)))
    if not settings.max_bytes:
        allowed = default_max_bytes(usable_memory(), settings.workers)
        settings = replace(settings, max_bytes=allowed)
    if settings.max_batch > settings.max_rows:
        parser.error(
            f"--max-rows {settings.max_rows} would refuse every batch of --max-batch "
            f"{settings.max_batch} rows: give at least as many"
        )
    if settings.feedback and not settings.receipt_keys:
        parser.error("--feedback needs --receipt-keys: reports are verified by their receipts")
    for flag, named in (
        ("--default-model", filter(None, [settings.default_model])),
        ("--serve", settings.serve.by_model),
    ):
        for name in named:
            if not is_served(name, settings.model):
                parser.error(f"{flag} {name} is not among --model {','.join(settings.model)}")
    if reason := _insecure(settings):
        parser.error(reason)
    return settings


def default_max_bytes(memory: int, workers: int) -> int:
    """Return the bytes for requests and answers in a worker, where all share this memory."""
    share = memory * 5 // 8 // workers  # the rest for what the count of bytes does not see
    return min(max(share - _WORKER_BYTES, _MIN_REQUEST_BYTES), _MAX_REQUEST_BYTES)


def _insecure(settings: Settings) -> str | None:
    """Return what is less protected than the settings suggest, None if nothing is."""
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
    """Return True if only programs on this machine can connect."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return _is_socket_file(address) or ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
