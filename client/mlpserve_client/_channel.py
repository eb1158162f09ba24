"""Configuration of a channel: target, options, service config, credentials.

Reconnecting, balancing and retrying are gRPC's own; they are only configured here.
"""

import codecs
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from mlpserve_client._errors import ConnectionFailedError, SettingsError
from mlpserve_client._settings import Settings, Tls
from mlpserve_client._targets import is_local

READINESS = "mlpserve.v1.PredictionService"
_CALLS = [
    {"service": f"mlpserve.v1.{name}"}
    for name in ("PredictionService", "ExplanationService", "FeedbackService", "ModelService")
]
_MESSAGE_LIMIT = 64 * 1024 * 1024  # bytes, as the server's

_RETRY_BUFFER = _MESSAGE_LIMIT  # gRPC's default of 256 KiB would send no batch again

_SERVICE_CONFIG = {
    # Calls go to all addresses in turn whose health check says SERVING: a server that is
    # about to stop gets no new calls.
    "loadBalancingConfig": [{"round_robin": {}}],
    # Of the server as a whole, whatever model the client names: to gRPC, a service that a server
    # does not know is one that is not SERVING, and earlier servers know no service of a single
    # model. A call may name another model, too. If one server lacks a model, the call is retried
    # at another.
    "healthCheckConfig": {"serviceName": READINESS},
    "methodConfig": [
        {
            "name": _CALLS,
            # Calls change nothing, or count once as reports do, so all may be retried. A server
            # that stops ends some calls as CANCELLED (grpc/grpc#41785), though the client did not
            # cancel them.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # Half of the tokens allow a burst of retries, as when a connection with many calls
    # breaks; beyond it one call in ten is retried, so that a broken server is not flooded.
    "retryThrottling": {"maxTokens": 400, "tokenRatio": 0.1},
}


def service_config() -> str:
    """Return the service config of the channel that carries the calls."""
    return json.dumps(_SERVICE_CONFIG)


def options(
    settings: Settings, targets: Sequence[str], *, carries_calls: bool
) -> list[tuple[str, Any]]:
    """Return the options of a channel to some targets; health checks need no readiness."""
    chosen: list[tuple[str, Any]] = [
        # Otherwise gRPC shares connections between equal channels: several clients would all
        # call one worker.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", _MESSAGE_LIMIT),
        ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
        # A restarted server is reached at once, a moved one within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.dns_min_time_between_resolutions_ms", 500),
        ("grpc.service_config_disable_resolution", 1),
        # A connection that broke silently is closed within seconds, not minutes; the server
        # allows pings every ten seconds.
        ("grpc.keepalive_time_ms", 11_000),
        ("grpc.keepalive_timeout_ms", 4_000),
        # So is one whose server hangs: a ping of gRPC's own is under way there, takes the place of
        # the keepalive's, and would be waited for for a minute.
        ("grpc.http2.ping_timeout_ms", 8_000),
    ]
    if all(map(is_local, targets)):
        # Docker's client, for one, puts proxy variables into every container.
        chosen.append(("grpc.enable_http_proxy", 0))
    if carries_calls:
        chosen += [
            ("grpc.service_config", service_config()),
            ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER),
        ]
    if settings.tls and settings.tls.server_name:
        chosen.append(("grpc.ssl_target_name_override", settings.tls.server_name))
    return chosen


def channel_target(targets: tuple[str, ...]) -> str:
    """Return gRPC's form of one or several targets.

    gRPC takes one name or many addresses, so several names are resolved here, once.

    Raises:
        ConnectionFailedError: none of several names has an address.

    """
    if len(targets) == 1:
        return targets[0]
    unix = [target.removeprefix("unix:") for target in targets if target.startswith("unix:")]
    if unix:
        if len(unix) < len(targets):
            raise SettingsError("a list of targets is either all unix sockets or none")
        return "unix:" + ",".join(unix)
    found = dict.fromkeys(address for target in targets for address in _addresses(target))
    if not found:
        raise ConnectionFailedError(
            f"none of {', '.join(targets)} has an address", target=",".join(targets)
        )
    if all(":" not in host for host, _ in found):
        return "ipv4:" + ",".join(f"{host}:{port}" for host, port in found)
    # gRPC takes a list of one family only, but also IPv4 addresses in IPv6's notation.
    hosts = ((host if ":" in host else f"::ffff:{host}", port) for host, port in found)
    return "ipv6:" + ",".join(f"[{host}]:{port}" for host, port in hosts)


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Return credentials from the certificates and keys.

    Raises:
        SettingsError: a file cannot be read, or is not a PEM file.

    """
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))


def metadata(settings: Settings) -> tuple[tuple[str, str], ...] | None:
    """Return the metadata of every call."""
    if settings.token is None:
        return None
    return (("authorization", f"Bearer {settings.token}"),)


def _addresses(target: str) -> list[tuple[str, str]]:
    host, _, port = target.removeprefix("dns:").lstrip("/").rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []  # the other targets may have one
    return [(str(entry[4][0]), port) for entry in found]


def _read(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        # gRPC would fail at every connection, and say so only in its log.
        raise SettingsError(f"invalid PEM file {path}: expected a line that starts -----BEGIN")
    return data
