"""The servers that are compared: how each is started, asked and weighed."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from benchmarks.compare.contracts import (
    Calls,
    explanation,
    json_over_http,
    open_inference,
    open_inference_over_http,
    own_contract,
)
from benchmarks.compare.environments import (
    Absent,
    cpp_server,
    distribution_bytes,
    environment,
    environment_bytes,
    linked_bytes,
    version_in,
)
from benchmarks.compare.processes import free_port
from benchmarks.compare.workload import Workload

__all__ = ["SERVERS", "Here", "Server", "ours"]

PEERS = "benchmarks.compare.peers"
INPUT = "instances"  # of every model that mlpserve serves


class Here(NamedTuple):
    """A server as it is on this machine, ready to be started."""

    command: list[str]
    version: str
    installed_bytes: int


@dataclass(frozen=True)
class Server:
    """One line of the table. `find` raises Absent where the server cannot be run."""

    name: str
    find: Callable[[Workload, int], Here]
    calls: Callable[[Workload], Calls] = own_contract
    environment: str | None = None  # the peer's own, as `install` knows it
    computes: bool = True  # False where answers are not probabilities: of an echo, of Explain
    quick: bool = False  # part of a --quick run


def mlpserve(workload: Workload, port: int, *, flags: str = "") -> Here:
    unknown = [f for f in flags.split() if f.startswith("--") and f not in _server_help()]
    if unknown:
        raise Absent(f"this mlpserve-server has no {' '.join(unknown)}")
    command = [
        *(_beside_python("mlpserve-server"), "--store", str(workload.store)),
        *("--listen", f"127.0.0.1:{port}", "--log-level", "warning", "--drain-seconds", "0"),
        *flags.split(),
    ]
    weight = distribution_bytes("mlpserve[server]")
    return Here(command, f"mlpserve {metadata.version('mlpserve')}, {_grpcio()}", weight)


def cpp(workload: Workload, port: int) -> Here:
    program = cpp_server()
    version = subprocess.check_output(["pkg-config", "--modversion", "grpc++"], text=True)
    command = [str(program), str(workload.raw), str(port)]
    return Here(command, f"gRPC {version.strip()}", linked_bytes(program))


def rest(workload: Workload, port: int) -> Here:
    if not Path(_beside_python("mlpserve-web")).exists():
        raise Absent("no mlpserve-web here: install the extra web")
    command = [sys.executable, "-m", f"{PEERS}.mlpserve_rest", str(workload.store)]
    weight = distribution_bytes("mlpserve[server,web]")
    return Here(command, f"mlpserve {metadata.version('mlpserve')}", weight)


def echo(workload: Workload, port: int) -> Here:
    command = [sys.executable, "-m", f"{PEERS}.echo_server"]
    return Here(command, _grpcio(), distribution_bytes("grpcio", "protobuf", "numpy"))


def python_peer(
    workload: Workload,
    port: int,
    *,
    package: str,
    name: str,
    command: str,
    prepare: Callable[[Workload, int], None] | None = None,
) -> Here:
    """A framework in its own environment; `command` begins with a program of it."""
    folder = environment(name)
    if prepare:
        prepare(workload, port)
    program, *rest = command.format(port=port, folder=workload.folder).split()
    version = f"{package} {version_in(folder, package)}"
    return Here([str(folder / "bin" / program), *rest], version, environment_bytes(folder))


def mlserver_settings(workload: Workload, port: int, *, measured: str) -> None:
    """Its leanest form: the model in the server's own process; `measured` is grpc or http."""
    folder = workload.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    ports = {f"{name}_port": free_port() for name in ("grpc", "http", "metrics")}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, **ports, f"{measured}_port": port}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "mlp", "implementation": f"{PEERS}.mlserver_model.Classifier"}
    (folder / "model-settings.json").write_text(json.dumps(model))


def _beside_python(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


@cache
def _server_help() -> str:
    return subprocess.check_output([_beside_python("mlpserve-server"), "--help"], text=True)


def _grpcio() -> str:
    return f"grpcio {metadata.version('grpcio')}"


def _peer(
    label: str,
    name: str,
    package: str,
    calls: Callable[[Workload], Calls],
    command: str,
    prepare: Callable[[Workload, int], None] | None = None,
) -> Server:
    find = partial(python_peer, package=package, name=name, command=command, prepare=prepare)
    return Server(label, find, calls, environment=name)


def ours(flags: str = "") -> Server:
    return Server(f"mlpserve {flags}".strip(), partial(mlpserve, flags=flags), quick=True)


_one_worker = partial(mlpserve, flags="--workers 1")

# The first that is measured is what the ratios refer to.
SERVERS = [
    ours(),
    ours("--workers 1"),
    ours("--workers 1 --transport standard"),
    Server("mlpserve --workers 1, Explain", _one_worker, explanation, computes=False),
    Server("C++ gRPC, callback API", cpp, quick=True),
    Server("grpcio echo, computes nothing", echo, computes=False, quick=True),
    _peer(
        "PyTriton, gRPC",
        "pytriton",
        "nvidia-pytriton",
        partial(open_inference, floats="floats", pixels="pixels"),
        f"python -m {PEERS}.pytriton_server",
    ),
    _peer(
        "MLServer, gRPC",
        "mlserver",
        "mlserver",
        partial(open_inference, floats="mlp", pixels="mlp"),
        "mlserver start {folder}/mlserver",
        partial(mlserver_settings, measured="grpc"),
    ),
    Server("mlpserve, REST", rest, partial(open_inference_over_http, model="mnist", name=INPUT)),
    _peer(
        "MLServer, REST",
        "mlserver",
        "mlserver",
        partial(open_inference_over_http, model="mlp", name="rows"),
        "mlserver start {folder}/mlserver",
        partial(mlserver_settings, measured="http"),
    ),
    _peer("Ray Serve, gRPC", "ray", "ray", own_contract, f"python -m {PEERS}.ray_server"),
    _peer(
        "BentoML, HTTP",
        "bentoml",
        "bentoml",
        partial(json_over_http, single="/classify", batch="/classify_pixels"),
        f"bentoml serve {PEERS}.bentoml_server:Classifier --host 127.0.0.1 --port {{port}}",
    ),
    _peer(
        "LitServe, HTTP",
        "litserve",
        "litserve",
        partial(json_over_http, single="/predict", batch="/predict"),
        f"python -m {PEERS}.litserve_server",
    ),
]
