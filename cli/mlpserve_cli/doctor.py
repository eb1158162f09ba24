"""`mlpserve doctor`: what is installed, what is there, and what is in the way.

A check examines one thing and returns findings; it changes nothing. What it examines is what
the commands would use: the flags given, else the variables, else the defaults.
"""

import argparse
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from mlpserve_model.process.addresses import is_host_and_port
from mlpserve_model.process.tables import plain

__all__ = ["Finding", "main"]

# The first Python that the project supports; pyproject.toml says the same.
_OLDEST_PYTHON = (3, 11)
_EXTRAS = ("server", "trainer", "images", "web", "object-store", "telemetry", "onnx", "completion")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: a level (ok, note, problem), what was examined, what was found."""

    level: str
    subject: str
    message: str


def main(arguments: Sequence[str]) -> int:
    """Print all findings; return 0, or 1 if there is a problem."""
    options = _parser().parse_args(arguments)
    findings = list(_findings(options))
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.level:<8} {finding.subject:<{width}}  {plain(finding.message)}")
    return int(any(finding.level == "problem" for finding in findings))


def _parser() -> argparse.ArgumentParser:
    environment = os.environ.get
    parser = argparse.ArgumentParser(
        "mlpserve doctor",
        description="Check this installation. Exit code 1 if there is a problem.",
        allow_abbrev=False,
    )
    for flag, variable, default, text in (
        ("--store", "MLPSERVE_STORE", "models", "the store: a folder, or a URL of a bucket"),
        ("--model", "MLPSERVE_MODEL", "mnist", "the model's name in the store"),
        ("--target", "MLPSERVE_TARGET", "localhost:50051", "the server that clients call"),
        ("--data-dir", "MLPSERVE_DATA_DIR", "", "the training data"),
        ("--tls-cert", "MLPSERVE_TLS_CERT", "", "PEM file: the certificate and its chain"),
        ("--tls-key", "MLPSERVE_TLS_KEY", "", "PEM file: its private key"),
    ):
        value = environment(variable) or default
        shown = f"default: {value}; " if value else ""
        parser.add_argument(flag, default=value, help=f"{text} [{shown}{variable}]")
    return parser


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    yield _python()
    yield from map(_extra, ("", *_EXTRAS))
    checks: tuple[tuple[str, Callable[[argparse.Namespace], Finding]], ...] = (
        ("store", _store),
        ("server", _server),
        ("data", _data),
        ("certificate", _certificate),
    )
    for subject, check in checks:
        try:
            yield check(options)
        except Exception as error:  # a check that fails is a finding, and the others still run
            yield Finding("problem", subject, f"{type(error).__name__}: {error}")


def _python() -> Finding:
    running = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        oldest = ".".join(map(str, _OLDEST_PYTHON))
        return Finding("problem", "python", f"{running}, expected {oldest} or newer")
    return Finding("ok", "python", f"{running}, {sys.executable}")


def _extra(extra: str) -> Finding:
    """Return which packages of a dependency group are installed; "" is the client's."""
    subject = f"extra {extra}" if extra else "client"
    try:
        wanted = [_name(line) for line in requires("mlpserve") or [] if _belongs(line, extra)]
    except PackageNotFoundError:
        return Finding("problem", subject, "mlpserve is not installed: pip install .")
    missing = [name for name in wanted if not _installed(name)]
    if not missing:
        return Finding("ok", subject, ", ".join(f"{name} {version(name)}" for name in wanted))
    level = "note" if extra else "problem"
    command = f"pip install '.[{extra}]'" if extra else "pip install ."
    return Finding(level, subject, f"not installed: {', '.join(missing)}; {command}")


def _belongs(requirement: str, extra: str) -> bool:
    _, _, marker = requirement.partition(";")
    words = marker.replace("'", '"').split('"')
    return (words[1] if "extra" in marker else "") == extra


def _name(requirement: str) -> str:
    end = next((i for i, c in enumerate(requirement) if c in "<>=!~;[ "), len(requirement))
    return requirement[:end]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _store(options: argparse.Namespace) -> Finding:
    from mlpserve_model import CHAMPION, Store, StoreError

    if "://" not in options.store and not Path(options.store).is_dir():
        return Finding(
            "note", "store", f"there is no folder {options.store} yet: mlpserve train makes it"
        )
    store = Store(options.store, options.model)
    try:
        versions, aliases = store.versions(), store.aliases()
        if CHAMPION not in aliases:
            return Finding(
                "note",
                "store",
                f"{options.store}: {len(versions)} versions of {options.model} and no champion: "
                "nothing is served until one passes the gate or is promoted",
            )
        champion = store.load(aliases[CHAMPION]).manifest
    except StoreError as error:
        return Finding("problem", "store", f"{options.store}: {error}")
    return Finding(
        "ok",
        "store",
        f"{options.store}: {len(versions)} versions of {options.model}, champion "
        f"{champion.version} is whole{_writable(options.store)}",
    )


def _writable(store: str) -> str:
    local = "://" not in store
    return ", this user may not write to it" if local and not os.access(store, os.W_OK) else ""


def _server(options: argparse.Namespace) -> Finding:
    client = import_module("mlpserve_client")
    target = options.target.split(",")[0]
    if is_host_and_port(target):
        host, _, port = target.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError:
            return Finding("note", "server", f"nothing listens at {target}: mlpserve serve")
    try:
        with client.Client(target, timeout=3) as caller:
            served = caller.model()
    except client.MlpserveError as error:
        return Finding("problem", "server", f"{target}: {error}")
    return Finding("ok", "server", f"{target} answers with version {served.version}")


def _data(options: argparse.Namespace) -> Finding:
    if not options.data_dir:
        return Finding(
            "note", "data", "MLPSERVE_DATA_DIR is not set: MNIST comes from the cache or OpenML"
        )
    path = Path(options.data_dir)
    if not os.access(path, os.R_OK):
        return Finding("problem", "data", f"{path} is not there or cannot be read")
    return Finding("ok", "data", f"{path} is there")


def _certificate(options: argparse.Namespace) -> Finding:
    if not (options.tls_cert or options.tls_key):
        return Finding("note", "certificate", "none: the server does not encrypt")
    if not (options.tls_cert and options.tls_key):
        return Finding("problem", "certificate", "--tls-cert and --tls-key go together")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert, options.tls_key, password=_no_passphrase)
    except (OSError, ValueError) as error:
        return Finding(
            "problem", "certificate", f"{options.tls_cert} with {options.tls_key}: {error}"
        )
    return Finding("ok", "certificate", f"{options.tls_cert} and its key belong together")


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted: expected one without a passphrase")
