"""The server's settings, read once in main."""

import argparse
import os
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpserve_model.settings import SettingsParser, at_least
from mlpserve_model.store import ALIAS

__all__ = ["TRANSPORTS", "Settings", "read_settings"]

TRANSPORTS = ("auto", "direct", "standard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server needs to know. Times are in seconds."""

    store: Path
    model: str = "mnist"
    listen: tuple[str, ...] = ("127.0.0.1:50051",)
    serve: str = "champion"
    poll_seconds: float = 1.0
    standby: int = 3
    max_batch: int = 8192
    max_waiting: int = 1000
    drain_seconds: float = 1.0
    grace_seconds: float = 20.0
    transport: str = "auto"
    workers: int = 1
    worker: int = 0  # the number of this worker, which shares its ports; 0: none
    log_format: str = "human"
    log_level: str = "info"


def read_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from flags and environment; ends with exit code 2 when they are wrong."""
    parser = SettingsParser(
        prog="mlpserve-server", description="Serve the accepted version of a model over gRPC."
    )
    defaults = Settings(store=Path("models"))
    parser.add_store()
    parser.add_argument(
        "--listen",
        type=_addresses,
        default=",".join(defaults.listen),
        help="host:port or unix:path, several with commas; port 0 is any free one",
    )
    parser.add_argument(
        "--serve", type=_selection, default=defaults.serve, help="an alias, a number, or latest"
    )
    number, whole = at_least(0), at_least(0, int)
    parser.add_argument(
        "--poll-seconds",
        type=at_least(0.01),
        default=defaults.poll_seconds,
        help="how often to look for another version",
    )
    parser.add_argument(
        "--standby",
        type=whole,
        default=defaults.standby,
        help="versions kept in memory beside the served one",
    )
    parser.add_argument(
        "--max-batch",
        type=at_least(1, int),
        default=defaults.max_batch,
        help="most instances in one request",
    )
    parser.add_argument(
        "--max-waiting",
        type=at_least(1, int),
        default=defaults.max_waiting,
        help="most predictions waiting; the rest is refused at once",
    )
    parser.add_argument(
        "--drain-seconds",
        type=number,
        default=defaults.drain_seconds,
        help="on SIGTERM, how long to keep answering while not ready",
    )
    parser.add_argument(
        "--grace-seconds",
        type=number,
        default=defaults.grace_seconds,
        help="then, how long calls in flight may take",
    )
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default=defaults.transport,
        help="direct is the fast one, standard grpcio's own; auto: direct where it is supported",
    )
    parser.add_argument(
        "--workers", type=at_least(1, int), default=_cores(), help="processes that share the port"
    )
    parser.add_argument("--worker", type=whole, default=defaults.worker, help=argparse.SUPPRESS)
    parser.add_logging()
    return Settings(**vars(parser.parse_args(arguments)))


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(part.strip() for part in text.split(",") if part.strip())
    if not addresses:
        raise ArgumentTypeError("no address to listen on")
    for address in addresses:
        port = address.rpartition(":")[2]
        if not address.startswith("unix:") and not (port.isdecimal() and int(port) < 65536):
            raise ArgumentTypeError(f"{address!r} is neither host:port nor unix:path")
    return addresses


def _selection(text: str) -> str:
    number = text.isascii() and text.isdecimal() and int(text) >= 1
    if not number and not ALIAS.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is neither a version number, nor an alias, nor latest")
    return text


def _cores() -> int:
    """How many cores this process may use, which is less than the machine has in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
