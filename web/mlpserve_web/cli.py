"""The command `mlpserve-web`."""

import logging
import os
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlpserve_model.process.log import set_up
from mlpserve_model.process.streams import printing
from mlpserve_web.settings import is_loopback, read_settings
from mlpserve_web.settings import settings_parser as parser

if TYPE_CHECKING:
    from mlpserve_web.origins import HostPolicy

__all__ = ["main", "parser"]

# What these hold is the gateway's, if of use here at all: its client would use it for every caller.
_IGNORED = (
    "MLPSERVE_TOKEN",
    "MLPSERVE_TOKEN_FILE",
    "MLPSERVE_TLS_CERT",
    "MLPSERVE_TLS_KEY",
)
# Who sets these, as for a client, means TLS towards the servers and is not to get less; off is what
# a client takes for it.
_REFUSED = ("MLPSERVE_TLS", "MLPSERVE_TLS_CA", "MLPSERVE_TLS_SERVER_NAME")
_OFF = ("", "0", "false", "no")

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 0 done, 1 failed, 2 wrong usage."""
    return printing("mlpserve-web", lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    settings = read_settings(arguments)
    set_up(settings.log_format, settings.log_level)
    named = [name for name in _REFUSED if os.environ.pop(name, "").lower() not in _OFF]
    if named and _upstream_tls(settings) is None:
        reason = f"{named[0]} is a client's: for TLS towards the servers give --target-tls"
        log.error("cannot start", extra={"reason": reason})
        return 2
    for name in _IGNORED:
        os.environ.pop(name, None)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters of its log reaches ours
    try:
        return _serve(settings)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mlpserve"):
            raise
        log.error(
            "cannot start: install the extra web, in a checkout: pip install '.[web]'",
            extra={"missing": error.name},
        )
        return 1


def _serve(settings: Namespace) -> int:
    from mlpserve_client import AsyncClient, MlpserveError, Tls
    from mlpserve_model import Store, StoreError
    from mlpserve_model.store.atomic_files import UnusableFile
    from mlpserve_model.store.evidence.records import FeedbackPlace
    from mlpserve_web.app import Page, application
    from mlpserve_web.listener import ListenError, serve
    from mlpserve_web.origins import OriginPolicy
    from mlpserve_web.requests import Limits
    from mlpserve_web.review import Desk, read_reviewers
    from mlpserve_web.upstream import Upstream

    tls_files = _upstream_tls(settings)
    tls = Tls(*tls_files) if tls_files else None

    def connect(token: str | None) -> AsyncClient:
        return AsyncClient(
            settings.target,
            timeout=settings.timeout,
            tls=tls,
            token=token or "",
            model=settings.model,
        )

    model = settings.model or "mnist"
    store = settings.store and Store(settings.store, model)
    try:
        connect(None)  # wrong settings end the start, not the first request
        desk = None
        if settings.review is not None:
            read_reviewers(settings.review_tokens)
            place = FeedbackPlace(settings.review)
            desk = Desk(place, model, settings.review_tokens, store)
        app = application(
            Upstream(connect),
            Limits(settings.max_body_bytes, settings.request_seconds, settings.max_bytes),
            OriginPolicy(settings.allow_origin, _hosts(settings)),
            Page(
                store,
                settings.target,
                settings.metrics,
                settings.dashboard,
                settings.feedback,
            ),
            desk,
        )
        serve(app, settings)
    except (MlpserveError, ListenError, StoreError, UnusableFile) as error:
        log.error("cannot start", extra={"reason": str(error)})
        return 1
    return 0


def _upstream_tls(settings: Namespace) -> tuple[Any, ...] | None:
    """Return the arguments of Tls for the connections to the servers; None for plain text."""
    files = (
        settings.target_tls_ca,
        settings.target_tls_cert,
        settings.target_tls_key,
        settings.target_tls_server_name,
    )
    return files if settings.target_tls or any(files) else None


def _hosts(settings: Namespace) -> "HostPolicy":
    from mlpserve_web.origins import HostPolicy

    host = settings.listen[0]
    names = (*settings.allow_host, host.lower())
    return HostPolicy(names, is_loopback(host), settings.tls_cert is not None)
