"""The commands of mlpserve-client other than predict, explain, report and bench."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from mlpserve_client._cli import bench as _bench
from mlpserve_client._cli import explain as _explaining
from mlpserve_client._cli import predict as _predicting
from mlpserve_client._cli import report as _reporting
from mlpserve_client._cli.terminal import table
from mlpserve_client._cli.text import printable
from mlpserve_client._results import ModelVersion
from mlpserve_client._sync import Client

_HEADER = ("VERSION", "STATE", "ALIASES", "ACCURACY", "CREATED", "REASON")

Command = Callable[[Client, Namespace], int]


def models(client: Client, arguments: Namespace) -> int:
    """List the models, each with the version that answers."""
    found = client.models()
    rows = [(version.ref.name, *_row(version)) for version in found]
    return _list(found, ("MODEL", *_HEADER), rows, arguments)


def versions(client: Client, arguments: Namespace) -> int:
    """List the versions of a model in the store."""
    found = client.versions()
    return _list(found, _HEADER, map(_row, found), arguments)


def model(client: Client, arguments: Namespace) -> int:
    """Describe one version."""
    described = _as_json(client.model(version=arguments.version, alias=arguments.alias))
    if arguments.json:
        print(json.dumps(described))
    else:
        width = max(map(len, described))
        for key, value in described.items():
            print(f"{key:{width}}  {printable(_text(value))}".rstrip())
    return 0


def health(client: Client, arguments: Namespace) -> int:
    """Report whether a server is ready, or alive."""
    serving = client.health(live=arguments.live)
    word = "alive" if arguments.live else "ready"
    print(word if serving else f"not {word}", file=sys.stdout if serving else sys.stderr)
    return 0 if serving else 1


COMMANDS: dict[str, Command] = {
    "predict": _predicting.predict,
    "explain": _explaining.explain,
    "report": _reporting.report,
    "models": models,
    "versions": versions,
    "model": model,
    "health": health,
    "bench": _bench.bench,
}


def _list(
    found: Iterable[ModelVersion],
    header: tuple[str, ...],
    rows: Iterable[tuple[str, ...]],
    arguments: Namespace,
) -> int:
    if arguments.json:
        for version in found:
            print(json.dumps(_as_json(version)))
    else:
        print(table(header, rows))
    return 0


def _as_json(version: ModelVersion) -> dict[str, Any]:
    return {
        "name": version.ref.name,
        "version": version.version,
        "digest": version.ref.digest,
        "state": version.state,
        "reason": version.reason,
        "aliases": version.aliases,
        "input_shape": version.input_shape,
        "class_names": version.class_names,
        "created": version.created.isoformat(),
        "input_kind": version.input_kind,
        "input_maximum": version.input_maximum,
        "output_kind": version.output_kind,
        "input_values": version.input_values and asdict(version.input_values),
        "metrics": version.metrics,
    }


def _row(version: ModelVersion) -> tuple[str, ...]:
    accuracy = version.metrics.get("accuracy")
    return (
        str(version.version or "-"),
        version.state,
        ",".join(version.aliases),
        "" if accuracy is None else f"{accuracy:.4f}",
        version.created.strftime("%Y-%m-%d %H:%M:%S") if version.version else "",
        version.reason,
    )


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in sorted(value.items()))
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
