"""The settings of `mlpserve-web`, from flags and environment."""

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from mlpserve_model.format.errors import StoreError
from mlpserve_model.process.arguments import SettingsParser, between, model_name
from mlpserve_model.store.location import Location, parse_location

__all__ = ["is_loopback", "read_settings", "settings_parser"]

_COUNT = between(1, 1_000_000, int)
_COUNT_OF_BYTES = between(1024, 1 << 32, int)
_SECONDS = between(0.1, 86_400)


def settings_parser() -> SettingsParser:
    """Describe the flags."""
    parser = SettingsParser(
        prog="mlpserve-web",
        description="Serve the Open Inference Protocol over HTTP, in front of model servers.",
        allow_abbrev=False,
    )
    parser.add_version()
    add = parser.add_argument
    add("--target", default="localhost:50051", help="the model servers, HOST:PORT, with commas")
    add("--timeout", type=_SECONDS, default=10, help="seconds for one call of a model server")
    add(
        "--store", type=_location, help="the store, for the versions' reports: a folder or s3://..."
    )
    add(
        "--model",
        type=model_name,
        help="model that the page shows; the server's only or default one, if unset, and mnist in "
        "the store",
    )
    add(
        "--metrics",
        type=_pages,
        default="",
        help="where the model servers' metrics are, for the page: http://HOST:PORT/metrics, "
        "with commas",
    )
    add("--dashboard", type=_page, help="dashboard of the metrics that the page links to, a URL")
    add(
        "--feedback",
        action="store_true",
        help="ask on the page whether answers are right, and report it to the model servers, which "
        "need --receipt-keys and --feedback",
    )
    add(
        "--review",
        type=_location,
        help="let reviewers accept and reject callers' corrections on the page /review: the place "
        "that the model servers have as --feedback; needs --review-tokens",
    )
    add(
        "--review-tokens",
        type=Path,
        help="file of the reviewers' tokens, one a line: who has one decides what is learnt, so "
        "not the callers' tokens",
    )
    add("--target-tls", action="store_true", help="encrypt calls of the model servers")
    add("--target-tls-ca", type=Path, help="PEM file: authorities to trust for model servers")
    add("--target-tls-cert", type=Path, help="PEM file: certificate to show to model servers")
    add("--target-tls-key", type=Path, help="PEM file: private key of --target-tls-cert")
    add("--target-tls-server-name", help="name in the model servers' certificates")
    add("--listen", type=_address, default="127.0.0.1:8080", help="host:port; port 0: a free one")
    add("--tls-cert", type=Path, help="PEM file: certificate and chain to serve HTTPS with")
    add("--tls-key", type=Path, help="PEM file: private key of --tls-cert")
    add(
        "--allow-plaintext",
        action="store_true",
        help="listen without TLS where other machines can connect",
    )
    add("--allow-origin", type=_origins, default="", help="other sites whose pages may call")
    add(
        "--allow-host",
        type=_names,
        default="",
        help="further names that the gateway is called by, with commas; * is any. Without TLS it "
        "answers to addresses, names without a dot, and names of private networks (.local, "
        ".internal)",
    )
    add("--max-body-bytes", type=_COUNT_OF_BYTES, default=64 << 20, help="maximum of a request")
    add(
        "--max-bytes",
        type=between(0, 1 << 50, int),
        default=0,
        help="maximum of bodies and answers in memory, beyond which requests of more than 64 KiB "
        "get 503; 0 takes a sixteenth of the container's or machine's memory",
    )
    add("--max-connections", type=_COUNT, default=256, help="maximum at a time; then 503")
    add(
        "--request-seconds",
        type=_SECONDS,
        default=10,
        help="maximum until a request is there, and until 64 KiB of an answer are read",
    )
    add("--grace-seconds", type=_SECONDS, default=20, help="on SIGTERM, for requests in flight")
    parser.add_logging()
    return parser


def read_settings(arguments: Sequence[str] | None = None) -> Namespace:
    """Return the settings by the names of their flags; end with exit code 2 if they are wrong."""
    parser = settings_parser()
    settings: Namespace = parser.parse_args(arguments)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        parser.error("--tls-cert and --tls-key go together: one is missing")
    if (settings.review is None) != (settings.review_tokens is None):
        parser.error("--review and --review-tokens go together: one is missing")
    host = settings.listen[0]
    if not (settings.tls_cert or settings.allow_plaintext or is_loopback(host)):
        parser.error(
            f"other machines can reach {host}, and nothing is encrypted: give --tls-cert and "
            "--tls-key, or --allow-plaintext where something else protects the connection"
        )
    return settings


def is_loopback(host: str) -> bool:
    """Return True if only programs of this machine can connect to the host."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (host and re.fullmatch("[0-9]{1,5}", port) and int(port) < 1 << 16):
        raise ArgumentTypeError(f"{text} is not an address, expected host:port")
    return host.strip("[]"), int(port)


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        scheme, found, host = origin.partition("://")
        if not found or scheme not in ("http", "https") or not host or "/" in host:
            raise ArgumentTypeError(f"{origin} is not an origin, expected https://NAME[:PORT]")
    return origins


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().strip("[]").lower() for part in text.split(",") if part.strip())
    for name in names:
        if "/" in name or (name.count(":") == 1 and "*" not in name):
            raise ArgumentTypeError(
                f"{name} is not a name, expected models.example, without a port"
            )
    return names


def _pages(text: str) -> tuple[str, ...]:
    return tuple(_page(part.strip()) for part in text.split(",") if part.strip())


def _page(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ArgumentTypeError(f"{text} is not an address, expected http://HOST:PORT/PATH")
    return text


def _location(text: str) -> Location:
    try:
        return parse_location(text)
    except StoreError as error:
        raise ArgumentTypeError(str(error)) from error
